"""What lets a signal amid a statement of SQLite's leaves the connection and the error as they are."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from types import FrameType

import pytest

from sigra.store.interrupts import interruptible

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="Windows has no such signal"
)

COUNT = """WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {})
    SELECT max(n) FROM more"""


@pytest.fixture
def driver() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def test_a_connection_whose_statement_a_signal_stopped_is_used_again(
    driver: sqlite3.Connection,
) -> None:
    """It stays in the pool: whatever took long on it was stopped too."""

    def stop(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_name == "_run_handlers":  # amid the statement
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(driver):
            driver.execute(COUNT.format(10**9)).fetchone()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert driver.execute(COUNT.format(10**5)).fetchone() == (10**5,)


def test_a_signal_that_has_the_connection_closed_is_what_is_raised(
    driver: sqlite3.Connection,
) -> None:
    """SQLAlchemy closes it: an error that says so hid the signal."""
    with pytest.raises(KeyboardInterrupt), interruptible(driver):
        driver.close()
        raise KeyboardInterrupt
