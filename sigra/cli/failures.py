"""A log of failures that shows the first of each kind in full and counts the others."""

from __future__ import annotations

import logging
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = 10
"""How many kinds of failure are shown in full, each once."""

_KINDS = 1000

_LOGGERS = ("sigra", "huey.consumer")
"""Whose failures are shown: huey says so if its file, from which jobs run, cannot be written."""


class FailureLog(logging.Handler):
    """Say the first failure of each kind, and count the others.

    Two failures are of one kind where the same exception comes from the same line.
    ``kinds`` counts them; ``say`` prints a text for a human. ``muted``: do neither.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.kinds: Counter[str] = Counter()
        self.muted = False
        self._say = say
        self._shown = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record, and print it if none of its kind came before."""
        if self.muted:
            return
        kind = _kind(record)
        if kind not in self.kinds and len(self.kinds) >= _KINDS:
            kind = "others"
        self.kinds[kind] += 1
        if self.kinds[kind] > 1 or self._shown > FULL:
            return
        self._shown += 1
        if self._shown > FULL:
            self._say("Further kinds of failure are only counted; see the end.")
            return
        text = f"{record.levelname.capitalize()}: {record.getMessage()}"
        if record.exc_info is not None and record.exc_info[1] is not None:
            lines = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            text += "\n" + "\n".join(f"    {line}" for line in lines.splitlines())
        self._say(text)

    @contextmanager
    def attached(self) -> Iterator[FailureLog]:
        """Receive what Sigra logs, in place of handlers that would print it all."""
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        printing = [known for known in logging.getLogger().handlers if _prints(known)]
        for handler in printing:
            handler.addFilter(_not_ours)
        # Without it logging's last resort prints all, where the application has no handler.
        spare = logging.NullHandler()
        for logger in loggers:
            logger.addHandler(self)
        logging.getLogger().addHandler(spare)
        try:
            yield self
        finally:
            for logger in loggers:
                logger.removeHandler(self)
            logging.getLogger().removeHandler(spare)
            for handler in printing:
                handler.removeFilter(_not_ours)


def _kind(record: logging.LogRecord) -> str:
    if record.exc_info is not None and record.exc_info[1] is not None:
        error = record.exc_info[1]
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"{type(error).__qualname__}{where}"
    if record.name == "sigra.audit":
        return record.getMessage()
    worker = getattr(record, "worker", None)
    return str(record.msg) if worker is None else f"{worker} {_what(record)}"


def _what(record: logging.LogRecord) -> str:
    """Return what became of a job, without what differs from one job to the next."""
    match record.args:
        case (_, _, str(said)) if hasattr(record, "attempt"):
            # The reason, which comes after the colon, may hold ids of the job.
            what = said.partition(":")[0].partition(";")[0]
            return "returned Failure" if what == "failed" else what
    return str(record.msg).removeprefix("%s ").partition("%")[0].strip(" ,:")


def _prints(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (
        sys.stdout,
        sys.stderr,
        sys.__stdout__,
        sys.__stderr__,
    )


def _not_ours(record: logging.LogRecord) -> bool:
    return not record.name.startswith(tuple(f"{name}." for name in _LOGGERS))
