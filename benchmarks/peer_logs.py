"""Pairs about audit events beside the loggers that one would pick instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from benchmarks import logs
from benchmarks.measure import Pair


def logged(peer: Callable[[], Callable[..., object]]) -> Pair:
    """Compare log_safe through the shipped processor with a peer that writes the same fields."""
    return Pair(logs.audited(logs.shipped_chain()), logs.written_by(peer()), logs.reset)


def json_logger() -> Callable[..., object]:
    """Return python-json-logger's way to write an event."""
    from pythonjsonlogger.json import JsonFormatter

    logger = _stdlib_logger("peers.json", JsonFormatter("%(asctime)s %(levelname)s %(message)s"))

    def info(action: str, **fields: Any) -> None:
        logger.info(action, extra=fields)

    return info


def structlog_stdlib() -> Callable[..., object]:
    """Return structlog's way through the standard library."""
    import structlog

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    logger = structlog.wrap_logger(
        _stdlib_logger("peers.structlog", formatter),
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger.info  # type: ignore[no-any-return]


def loguru() -> Callable[..., object]:
    """Return loguru's way to write JSON."""
    from loguru import logger

    logger.remove()
    logger.add(logs.null("w"), serialize=True)
    return lambda action, **fields: logger.bind(**fields).info(action)


def _stdlib_logger(name: str, formatter: logging.Formatter) -> logging.Logger:
    handler = logging.StreamHandler(logs.null("w"))
    handler.setFormatter(formatter)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
