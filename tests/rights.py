"""Be somebody who may not do everything, whoever runs the tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody in particular, if this process may do everything."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if me == 0:
            os.seteuid(me)


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Be where no thread can be started, as under a container's limit of processes."""
    before = threading.stack_size(1 << 46)  # more than there is
    try:
        yield
    finally:
        threading.stack_size(before)
