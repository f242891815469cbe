"""What one would write by hand for the same job, and the args of both sides.

The goals call it H_c with a compiled JSON package (orjson), and H_s with the standard library's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

FLAT: dict[str, Any] = {
    "organization_id": "org_2f1c9a70",
    "actor_id": "usr_81d3",
    "invoice_id": 48_213,
    "amount": 1299.5,
    "currency": "EUR",
    "reason": "customer asked for it",
    "notify": True,
    "parent_id": None,
    "locale": "de-AT",
    "retries_left": 3,
}
"""Ten scalars, the tenant keys among them."""

NESTED: dict[str, Any] = {
    "organization_id": "org_2f1c9a70",
    "actor_id": "usr_81d3",
    "invoice": {
        "id": 48_213,
        "customer": {"name": "Example Ltd", "address": {"city": "Graz", "zip": "8010"}},
        "lines": [
            {
                "sku": f"SKU-{number:05}",
                "quantity": number % 7 + 1,
                "price": number * 1.25,
                "taxable": number % 2 == 0,
                "tags": ["hardware", f"shelf-{number % 9}"],
                "note": None,
            }
            for number in range(28)
        ],
    },
}
"""3 KB of compact JSON, four levels deep."""


@dataclass(frozen=True, slots=True)
class Identity:
    id: str


@dataclass(frozen=True, slots=True)
class Scope:
    user: Identity | None
    active_organization: Identity | None
    impersonating_from: Identity | None


def body(scope: Any, args: Any) -> None:
    """Do nothing: what is measured is the way there."""


def scope_of(args: dict[str, Any]) -> Scope:
    """Build a scope from the ids of a job."""
    actor, organization = args["actor_id"], args["organization_id"]
    impersonator = args.get("impersonating_from")
    return Scope(
        None if actor is None else Identity(actor),
        None if organization is None else Identity(organization),
        None if impersonator is None else Identity(impersonator),
    )


def compiled(function: Callable[[Any, Any], Any] = body, *, strict: bool = False) -> Any:
    """Return H_c. ``strict``: refuse what orjson would let through, such as NaN."""
    import orjson

    dumps, loads = orjson.dumps, orjson.loads
    # Equal strictness: without these, orjson makes text of objects that are not JSON.
    options = (
        orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def run(args: dict[str, Any]) -> None:
        if "organization_id" not in args or "actor_id" not in args:
            raise ValueError("organization_id and actor_id are required")
        job = {
            "id": str(uuid.uuid4()),
            "worker": "invoices.close",
            "enqueued_at": datetime.now(timezone.utc).isoformat(),
            "args": args,
        }
        received = loads(dumps(job, option=options))["args"]
        if strict and received != args:
            raise ValueError("the args are not strict JSON")
        function(scope_of(received), received)

    return run


def stdlib(function: Callable[[Any, Any], Any] = body) -> Any:
    """Return H_s: the same with the standard json module, strict and compact."""

    def run(args: dict[str, Any]) -> None:
        if "organization_id" not in args or "actor_id" not in args:
            raise ValueError("organization_id and actor_id are required")
        job = {
            "id": str(uuid.uuid4()),
            "worker": "invoices.close",
            "enqueued_at": datetime.now(timezone.utc).isoformat(),
            "args": args,
        }
        text = json.dumps(job, allow_nan=False, separators=(",", ":"))
        received = json.loads(text)["args"]
        function(scope_of(received), received)

    return run
