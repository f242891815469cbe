"""Logging many audit events at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sigra.audit.emit import log
from sigra.audit.event import AuditResult
from sigra.audit.failure import report
from sigra.audit.read import error_name
from sigra.audit.stats import emitted
from sigra.audit.transaction import NoAuditStoreError, Pair, Transaction, stores
from sigra.errors import AuditRejectedError


def log_many(events: Iterable[Mapping[str, Any]], *, conn: Any = None) -> list[AuditResult]:
    """Log events as ``log`` does, each a mapping of its arguments; return their results.

    All are checked before the first is written to a store, which writes them in one transaction:
    that of ``conn``, the caller's connection or session, or one of its own. If it raises, none is
    written (with several stores: not by the one that raised, nor by those after it), and all that
    were well formed count as failed. Raises ``AuditRejectedError`` (its ``index`` says which is
    not well formed), what the store raises, and ``NoAuditStoreError`` if no configured sink is a
    store.
    """
    if not (found := stores()):
        raise NoAuditStoreError
    held: list[Pair] = []
    results: list[AuditResult] = []
    try:
        _hold(events, conn, held, results)
        for sink in found if held else ():  # a transaction without events would lock SQLite
            sink.write_in(conn, held, savepoint=False)
    except Exception as error:
        reason = f"a store wrote none of the events: {error_name(error)}"
        for result in results:
            if _is_held(result) and result.event is not None:
                report(AuditResult("failed", reason, result.event), result.event.action)
        raise
    return [_emitted(result) if _is_held(result) else result for result in results]


def _hold(
    events: Iterable[Mapping[str, Any]], conn: Any, held: list[Pair], results: list[AuditResult]
) -> None:
    """Check all events; put those that the stores must write into ``held``."""
    for index, arguments in enumerate(events):
        if not isinstance(arguments, Mapping):
            raise TypeError(
                f"item {index} of the events is a {type(arguments).__qualname__}: pass a list with "
                "a mapping of log's arguments for each event"
            )
        call: Any = dict(arguments)
        try:
            results.append(log(**call, conn=Transaction(conn, strict=True, held=held)))
        except AuditRejectedError as error:
            raise error.at(index) from None


def _is_held(result: AuditResult) -> bool:
    status: str = result.status
    return status == "held"


def _emitted(result: AuditResult) -> AuditResult:
    next(emitted)
    return AuditResult("emitted", None, result.event, result.redacted)
