"""SIGTERM interrupts a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM, where that interrupts as Ctrl-C does."""

    status = 128 + signal.SIGTERM


@contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """Have SIGTERM interrupt the block, in the main thread, where nothing else handles it.

    By default it would end the process; but not the first one of a container, which then runs on
    until it is killed.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
