"""Events for tests: one a minute, by Ann of Acme, who closes invoices."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from sigra import AuditEvent

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)


def event(number: int, organization: str | None = "acme", **fields: Any) -> AuditEvent:
    """Return the event of a minute; its target has the minute's number."""
    moment = NOON + timedelta(minutes=number)
    named = {"action": "invoice.close", "actor_id": "ann", "target_id": str(number)}
    return AuditEvent(**{**named, **fields}, organization_id=organization, occurred_at=moment)
