"""The way of an event through structlog, as the application configured it.

The only file that imports structlog.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from sigra.audit.event import LEVELS
from sigra.audit.line import JSONRenderer
from sigra.frozen import thaw

_NUMBERS = {outcome: getattr(logging, level.upper()) for outcome, level in LEVELS.items()}
_native = frozenset(
    structlog.make_filtering_bound_logger(level) for level in range(0, logging.CRITICAL + 1, 10)
)


def _always(_: Any, __: int) -> bool:
    return True


class Channel:
    """A bound logger, what it was made from, and which outcomes are logged.

    ``is_native``: its class is structlog's own, whose level is settled.
    """

    __slots__ = ("allows", "bound", "is_native", "made_from")

    def __init__(self, made_from: tuple[Any, ...]) -> None:
        self.made_from = made_from
        self.bound: Any = structlog.get_logger("sigra.audit").bind()
        kind: Any = type(self.bound)
        # On the class: a generic BoundLogger would take the name for that of a log method.
        asked: Any = getattr(kind, "is_enabled_for", None) or getattr(kind, "isEnabledFor", _always)
        self.is_native = kind in _native and asked is not _always
        self.allows: Callable[[str], bool] = lambda outcome: asked(self.bound, _NUMBERS[outcome])
        if self.is_native:
            self.allows = frozenset(filter(self.allows, LEVELS)).__contains__

    def send(self, line: dict[str, Any]) -> None:
        """Log one event. Whatever a processor or the logger raises passes through."""
        level = LEVELS[line["outcome"]]
        processors = self.bound._processors
        if self.is_native and len(processors) == 1 and type(processors[0]) is JSONRenderer:
            getattr(self.bound._logger, level)(processors[0](None, level, line))
            return
        # A processor may change what it is given, and the event may not change.
        moment = line["occurred_at"].isoformat()
        line = {**line, "metadata": thaw(line["metadata"]), "occurred_at": moment}
        if not self.is_native:
            getattr(self.bound, level)(**line)
            return
        # What the class's own methods come to, without handing sixteen keywords on thrice.
        try:
            arguments, keywords = self.bound._process_event(level, None, line)
            getattr(self.bound._logger, level)(*arguments, **keywords)
        except structlog.DropEvent:
            pass


_channel: Channel | None = None


def open_channel(outcome: str) -> Channel | None:
    """Return the way as structlog is configured now, or None where the level is filtered out.

    It is kept only where the application keeps its loggers, and only while nothing
    that it was made from has changed; so capture_logs, capsys and a later configure()
    work.
    """
    global _channel
    settings = structlog.get_config()
    made_from = (settings, sys.stdout, sys.stderr)
    channel = _channel
    if channel is None or channel.made_from != made_from:
        channel = Channel(made_from)
        _channel = channel if settings["cache_logger_on_first_use"] is True else None
    return channel if channel.allows(outcome) else None
