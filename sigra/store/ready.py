"""What every function that works on a whole store does first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigra.store.keys import check_signer

if TYPE_CHECKING:
    from sigra.store.keys import Signer
    from sigra.store.sink import SqlAuditSink


def make_ready(sink: SqlAuditSink, signer: Signer | None = None) -> None:
    """Write what is queued, and see to the tables.

    Raises ``TypeError`` before that for what is no sink or no signer.
    """
    if not callable(getattr(sink, "prepare", None)):
        kind = type(sink).__qualname__
        raise TypeError(f"the store must be a SqlAuditSink, as SqlAuditSink(url), not {kind}")
    check_signer(signer)
    sink.flush()
    sink.prepare()
