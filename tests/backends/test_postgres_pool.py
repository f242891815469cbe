"""Connections of our own to PostgreSQL: more of them in ``queues/queue_contract.py``."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from sigra.backends.postgres_pool import _until


def _work() -> Generator[str, int, str]:
    """Wait for a server twice, as psycopg does."""
    came = (yield "socket"), (yield "socket")
    return f"done by {came}"


def test_an_answer_that_comes_at_the_last_moment_counts() -> None:
    """Its jobs were sent: who was told that the server gave no answer sent them again."""
    long_ago = 0.0
    bounded = _until(long_ago, _work())
    assert next(bounded) == "socket"
    assert bounded.send(1) == "socket"
    with pytest.raises(StopIteration, match=r"done by \(1, 2\)"):
        bounded.send(2)
