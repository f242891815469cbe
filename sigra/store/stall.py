"""What is said while the database takes none of the events that are queued."""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic

from sigra.audit.read import type_name
from sigra.audit.sink import fault_of

_log = logging.getLogger("sigra.audit")

_PAUSE = 60.0
"""Seconds from one line to the next, also where the database comes and goes."""


class Stall:
    """The log lines of one batch: that its events wait, and that they are written again.

    Call it with no lock held: a handler of logging may write audit events itself.
    """

    def __init__(self, who: type) -> None:
        self._who, self._said = type_name(who), -_PAUSE
        self._told = False

    def goes_on(self, waiting: int, error: Exception) -> None:
        """Log how many events wait, and why by types alone, unless a line was just written."""
        now = monotonic()
        if now - self._said < _PAUSE:
            return
        self._told, self._said = True, now
        events = "event waits" if waiting == 1 else "events wait"
        with suppress(Exception):  # what a filter raises must not end the thread that writes
            _log.error("%d audit %s: %s", waiting, events, fault_of(self._who, error))

    def ends(self) -> None:
        """Log that events are written again, if it was logged that they wait."""
        if self._told:
            self._told = False
            with suppress(Exception):
                _log.warning("audit events are written again by %s", self._who)
