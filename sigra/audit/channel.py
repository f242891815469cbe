"""The way of an event through structlog, as the application configured it.

The only file that imports structlog.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog

from sigra.audit.compose import Composed
from sigra.audit.event import copied
from sigra.audit.line import line_of
from sigra.audit.render import JSONRenderer

LEVELS: dict[str, str] = {"success": "info", "failure": "warning", "error": "error"}
"""The outcome of an event, and the level at which it is logged."""

_NUMBERS = {"success": logging.INFO, "failure": logging.WARNING, "error": logging.ERROR}
_native = frozenset(
    structlog.make_filtering_bound_logger(level) for level in range(0, logging.CRITICAL + 1, 10)
)


class Channel(NamedTuple):
    """A bound logger, what it was made from, and what stands behind it.

    ``is_enabled`` asks the bound logger for a level, where it can tell; ``enabled`` are
    the outcomes whose level is on, where that is settled by the logger's class.
    ``wrapped`` is the logger below, where the bound one does no more than run the
    processors.
    """

    processors: Iterable[Any]
    wrapper_class: Any
    context_class: Any
    logger_factory: Any
    stdout: Any
    stderr: Any
    bound: Any
    is_enabled: Callable[[Any, int], bool] | None
    enabled: frozenset[str] | None
    wrapped: Any


_channel: Channel | None = None


def open_channel(outcome: str) -> Channel | None:
    """Return the way as structlog is configured now, or None where the level is filtered out.

    It is kept only where the application keeps its loggers, and only while nothing
    that it was made from has changed; so capture_logs, capsys and a later configure()
    work.
    """
    settings = structlog.get_config()
    channel = _channel
    if (
        channel is None
        or settings["cache_logger_on_first_use"] is not True
        or settings["processors"] is not channel[0]
        or settings["wrapper_class"] is not channel[1]
        or settings["context_class"] is not channel[2]
        or settings["logger_factory"] is not channel[3]
        or sys.stdout is not channel[4]
        or sys.stderr is not channel[5]
    ):
        channel = _new_channel(settings)
    enabled = channel[8]
    if enabled is not None:
        return channel if outcome in enabled else None
    is_enabled = channel[7]
    if is_enabled is None or is_enabled(channel[6], _NUMBERS[outcome]):
        return channel
    return None


def _new_channel(settings: dict[str, Any]) -> Channel:
    global _channel
    bound = structlog.get_logger("sigra.audit").bind()
    kind: Any = type(bound)
    # On the class: a generic BoundLogger would take the name for that of a log method.
    is_enabled = getattr(kind, "is_enabled_for", None) or getattr(kind, "isEnabledFor", None)
    native = kind in _native
    enabled = None
    if native and is_enabled is not None:
        enabled = frozenset(name for name in LEVELS if is_enabled(bound, _NUMBERS[name]))
    channel = Channel(
        settings["processors"],
        settings["wrapper_class"],
        settings["context_class"],
        settings["logger_factory"],
        sys.stdout,
        sys.stderr,
        bound,
        is_enabled,
        enabled,
        bound._logger if native and settings["context_class"] is dict else None,
    )
    _channel = channel if settings["cache_logger_on_first_use"] is True else None
    return channel


def send(channel: Channel, composed: Composed) -> None:
    """Log one event. Whatever a processor or the logger raises passes through.

    Where structlog's own bound logger would but run the processors, they are run here:
    handing sixteen keywords through its three calls takes as long as all the rest.
    """
    _, line, _, nested = composed
    level = LEVELS[line["outcome"]]
    logger = channel.wrapped
    processors = channel.processors
    if logger is not None and type(processors) is list and len(processors) == 1:
        renderer = processors[0]
        if type(renderer) is JSONRenderer:
            line["level"] = level
            rendered = line_of(line)
            getattr(logger, level)(rendered.decode() if renderer.text else rendered)
            return
    # A processor may change what it is given, and the event may not change.
    metadata = line["metadata"]
    line["metadata"] = copied(metadata) if nested else metadata.copy()
    line["occurred_at"] = line["occurred_at"].isoformat()
    if logger is None:
        getattr(channel.bound, level)(line.pop("event"), **line)
    else:
        _run(processors, logger, level, line)


def _run(processors: Iterable[Any], logger: Any, level: str, line: Any) -> None:
    try:
        for process in processors:
            line = process(logger, level, line)
        if type(line) is bytes or type(line) is str:
            getattr(logger, level)(line)
        else:
            arguments, keywords = _as_arguments(line)
            getattr(logger, level)(*arguments, **keywords)
    except structlog.DropEvent:
        pass


def _as_arguments(line: Any) -> tuple[Any, Any]:
    """Read what the last processor returned, as structlog does."""
    if isinstance(line, (str, bytes, bytearray)):
        return (line,), {}
    if isinstance(line, tuple):
        arguments, keywords = line
        return arguments, keywords
    if isinstance(line, dict):
        return (), line
    raise ValueError("the last processor returned no str, bytes, tuple or dict")
