"""Remove the audit events that the host no longer keeps."""

from __future__ import annotations

from sigra.decorators import worker
from sigra.store.reading import cleanup


@worker(name="sigra.workers.AuditCleanup", max_attempts=1)
def AuditCleanup(retention_days: int | None = None) -> int:  # noqa: N802 - it is used as an object
    """Remove events older than ``retention_days``; return how many. None keeps all of them.

    Works on the configured sinks that can (``SqlAuditSink``), in batches; what was removed
    stays so if it is interrupted, and the next run goes on from there.
    """
    return cleanup(retention_days)
