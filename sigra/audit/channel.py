"""An event's way through structlog, as the application configured it.

The only file that imports structlog.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog

from sigra.audit.event import LEVELS
from sigra.audit.line import JSONRenderer, line_of
from sigra.frozen import thaw
from sigra.ids import in_child

_NUMBERS = {outcome: getattr(logging, level.upper()) for outcome, level in LEVELS.items()}
_native = frozenset(map(structlog.make_filtering_bound_logger, range(0, logging.CRITICAL + 1, 10)))

_locks: dict[Any, Any] = getattr(sys.modules.get("structlog._output"), "WRITE_LOCKS", {})
# A thread that holds one is missing in the child.
in_child(after_in_child=lambda: [lock._at_fork_reinit() for lock in _locks.values()])


class Channel:
    """A bound logger, what it was made from, and which outcomes are logged.

    ``processors`` and ``logger`` are those of the bound logger if its class is one of structlog's
    own, whose level is fixed; otherwise None. ``takes``: how to ask a standard logger whether it
    takes a level, which may change later; None of any other logger.
    """

    __slots__ = ("allows", "bound", "logger", "made_from", "processors", "takes")

    def __init__(self, made_from: tuple[Any, ...]) -> None:
        self.made_from = made_from
        bound: Any = structlog.get_logger("sigra.audit").bind()
        # Nobody here could await the methods of an AsyncBoundLogger: take the one inside it.
        self.bound: Any = bound.sync_bl if hasattr(type(bound), "sync_bl") else bound
        self.processors = self.logger = None
        kind, logger = type(self.bound), getattr(self.bound, "_logger", None)
        # Of the classes: structlog's generic BoundLogger itself takes any name for a log method.
        asked: Any = getattr(kind, "isEnabledFor", None)
        self.takes: Any = getattr(type(logger), "isEnabledFor", None)
        # It asks the wrapped logger, and only one of the standard library can answer.
        if asked is None or self.takes is None:
            asked = None if asked else getattr(kind, "is_enabled_for", None)
        self.allows: Any = lambda outcome: not asked or asked(self.bound, _NUMBERS[outcome])
        # Not past a tracer that has wrapped what they do, as New Relic's agent has.
        if kind in _native and not hasattr(self.bound._process_event, "__wrapped__"):
            self.allows = frozenset(filter(self.allows, LEVELS)).__contains__
            self.processors, self.logger = self.bound._processors, logger

    def send(self, line: dict[str, Any]) -> bool:
        """Log one event, and return whether it was not left out by the standard logger's level.

        Whatever a processor or the logger raises passes through.
        """
        outcome, processors = line["outcome"], self.processors
        level = LEVELS[outcome]
        if processors is not None and len(processors) == 1 and type(processors[0]) is JSONRenderer:
            line["level"] = level
            text = line_of(line)  # what the renderer returns, without its frame: each counts here
            getattr(self.logger, level)(text.decode() if processors[0].text else text)
            return not self.takes or self.takes(self.logger, _NUMBERS[outcome])
        # A processor may change what it is given, and the event may not change.
        moment = line["occurred_at"].isoformat()
        line = {**line, "metadata": thaw(line["metadata"]), "occurred_at": moment}
        if processors is None:
            getattr(self.bound, level)(line.pop("event"), **line)
            return True
        # As the class's own methods do, but without passing sixteen keywords on three times.
        with suppress(structlog.DropEvent):
            arguments, keywords = self.bound._process_event(level, None, line)
            getattr(self.logger, level)(*arguments, **keywords)
            return not self.takes or self.takes(self.logger, _NUMBERS[outcome])
        return True


_channel: Channel | None = None


def open_channel(outcome: str) -> Channel | None:
    """Return the channel that structlog's settings make now; None if the level is filtered out.

    It is kept for the next call only where the application caches its loggers, and only while
    nothing that it was made from has changed: capture_logs, capsys and a later configure() work.
    """
    global _channel
    made_from = (structlog.get_config(), sys.stdout, sys.stderr)
    if (channel := _channel) is None or channel.made_from != made_from:
        channel = Channel(made_from)
        _channel = channel if made_from[0]["cache_logger_on_first_use"] is True else None
    return channel if channel.allows(outcome) else None
