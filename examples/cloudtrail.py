"""Replay AWS CloudTrail records as audit events, one job a record.

    sigra run examples.cloudtrail:record --args FILE.jsonl --backend thread

Each line of the file holds ``organization_id`` (the account), ``actor_id`` (the
identity's ARN, null for an AWS service), ``impersonating_from`` (the session issuer,
for an assumed role) and ``event`` (the record as CloudTrail wrote it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sigra import AuditEvent, AuditScope, log_safe, tenant_worker

KEPT = (
    "eventID",
    "awsRegion",
    "readOnly",
    "errorCode",
    "errorMessage",
    "userIdentity",
    "requestParameters",
    "responseElements",
    "additionalEventData",
)
"""What of a record goes into the metadata; Sigra takes the secrets out of it."""


@tenant_worker(audit_schema=AuditEvent)
def record(scope: AuditScope, event: Mapping[str, Any]) -> None:
    """Log one CloudTrail record under the ids that the job runs for."""
    target_id, target_type = target_of(event)
    log_safe(
        action_of(event["eventSource"], event["eventName"]),
        scope,
        outcome=outcome_of(event),
        target_id=target_id,
        target_type=target_type,
        ip_address=event.get("sourceIPAddress"),
        user_agent=event.get("userAgent"),
        occurred_at=datetime.fromisoformat(event["eventTime"]),
        metadata={key: event[key] for key in KEPT if event.get(key) is not None},
    )


def action_of(source: str, name: str) -> str:
    """Write ``s3.amazonaws.com`` and ``GetBucketAcl`` as ``cloudtrail.s3.get_bucket_acl``.

    The first word keeps clear of the prefixes that Sigra reserves: one of the services
    is called ``account``.
    """
    service = re.sub(r"\W", "_", source.partition(".")[0].lower())
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return f"cloudtrail.{service}.{re.sub(r'[^a-z0-9_]', '_', words.lower())}"


def outcome_of(event: Mapping[str, Any]) -> Literal["success", "error"]:
    """Tell whether the call that the record is about went well."""
    return "error" if event.get("errorCode") else "success"


def target_of(event: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the ARN and the type of the first resource, None where there is none."""
    for resource in event.get("resources") or ():
        return resource.get("ARN"), resource.get("type")
    return None, None
