"""Logging many audit events at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sigra.audit.emit import log
from sigra.audit.event import AuditResult
from sigra.audit.transaction import Pair, Transaction, stores
from sigra.errors import AuditRejectedError


def log_many(events: Iterable[Mapping[str, Any]], *, conn: Any = None) -> list[AuditResult]:
    """Log events as ``log`` does, each a mapping of its arguments; return their results.

    All are checked before the first is written to a store, and that writes them in one
    transaction: the caller's, of the connection or session ``conn``, or its own. Raises
    ``AuditRejectedError`` (whose ``index`` says which is not well formed), what the store
    raises, and ``NoAuditStoreError`` where no configured sink is one.
    """
    found = stores()
    held: list[Pair] = []
    results = []
    for index, arguments in enumerate(events):
        if not isinstance(arguments, Mapping):
            raise TypeError(
                f"item {index} of the events is a {type(arguments).__qualname__}: pass a list, and "
                "in it for each event a mapping of log's arguments"
            )
        call: Any = dict(arguments)
        try:
            results.append(log(**call, conn=Transaction(conn, strict=True, held=held)))
        except AuditRejectedError as error:
            raise error.at(index) from None
    for sink in found:
        sink.write_in(conn, held, savepoint=False)
    return results
