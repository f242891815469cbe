"""The story that ``sigra demo`` tells: three organizations, their people, their jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from sigra.audit.emit import log_safe
from sigra.audit.event import AuditEvent
from sigra.authority import request_scope_only
from sigra.decorators import tenant_worker
from sigra.job import JobInfo
from sigra.outcome import Cancel, Failure, Snooze
from sigra.proxy import TenantWorker
from sigra.scope import AuditScope

ORGANIZATIONS = {
    "bakery": "North Bakery",
    "clinic": "Harbor Clinic",
    "books": "Oak St. Books",
}
PEOPLE = {
    "bakery": ("ines", "tomas"),
    "clinic": ("grace", "amir"),
    "books": ("lena", "paul"),
}
SUPPORT = "sam"
"""Works for the vendor, and sometimes acts as a customer to help."""

NAMES = {
    "ines": "Ines",
    "tomas": "Tomas",
    "grace": "Grace",
    "amir": "Amir",
    "lena": "Lena",
    "paul": "Paul",
    "sam": "Sam of support",
}

_A_MOMENT = 0.002
"""Seconds that the work of a job takes here."""


@tenant_worker(audit_schema=AuditEvent)
def issue_invoice(scope: AuditScope, invoice: int) -> None:
    """Issue an invoice."""
    time.sleep(_A_MOMENT)
    log_safe("invoice.issue", scope, target_id=invoice, target_type="invoice")


@tenant_worker(audit_schema=AuditEvent)
def send_receipt(scope: AuditScope, invoice: int, job: JobInfo) -> Snooze | None:
    """Mail a receipt; while the mail server is busy, be snoozed and run again."""
    if invoice % 10 == 5 and job.snoozes == 0:
        return Snooze(1)
    time.sleep(_A_MOMENT)
    # A secret among the metadata comes out redacted.
    metadata = {"channel": "mail", "smtp_password": "correct horse"}
    log_safe("receipt.send", scope, target_id=invoice, target_type="invoice", metadata=metadata)
    return None


@tenant_worker(audit_schema=AuditEvent, action="payment.charge", max_attempts=2, backoff=0.3)
def charge_card(scope: AuditScope, invoice: int, job: JobInfo) -> Failure | None:
    """Charge a card: the network fails now and then, and some cards are declined."""
    del scope
    time.sleep(_A_MOMENT)
    if invoice % 9 == 0 and job.attempt == 1:
        raise ConnectionError("the card network does not answer")
    return Failure("the card was declined") if invoice % 14 == 0 else None


@tenant_worker(audit_schema=AuditEvent, action="ledger.close")
def close_ledger(scope: AuditScope, month: int) -> Cancel | None:
    """Close a month: a nightly job of the system, with no person behind it."""
    del scope
    return Cancel("the month is not over") if month == 12 else None


@request_scope_only
def may_delete(scope: object) -> bool:
    """Stand for the host's own authorization, which is for people's requests."""
    return scope is not None


@tenant_worker(audit_schema=AuditEvent, action="ledger.delete")
def delete_ledger(scope: AuditScope) -> None:
    """Make the mistake that Sigra refuses: use a job's scope to decide on access."""
    may_delete(scope)


Step = tuple[TenantWorker[..., Any], dict[str, Any]]
"""A worker, and the args of one job of it."""


def steps() -> Iterator[Step]:
    """Yield the jobs of the story, the same ones each time."""
    yield from _everyday("bakery", invoices=325)
    yield from _everyday("clinic", invoices=160)
    yield from _small_shop()
    for organization in ORGANIZATIONS:
        for month in (11, 12):
            yield close_ledger, _keys(organization, None, month=month)


def _everyday(organization: str, invoices: int) -> Iterator[Step]:
    people = PEOPLE[organization]
    for invoice in range(1, invoices + 1):
        person = people[invoice % 2]
        # Each fortieth invoice was written by support, acting as the customer.
        helper = SUPPORT if invoice % 40 == 0 else None
        yield issue_invoice, _keys(organization, person, helper, invoice=invoice)
        yield (charge_card, send_receipt)[invoice % 2], _keys(organization, person, invoice=invoice)


def _small_shop() -> Iterator[Step]:
    for invoice, person, helper in ((13, "paul", None), (14, "lena", None), (15, "lena", SUPPORT)):
        yield issue_invoice, _keys("books", person, helper, invoice=invoice)
        yield send_receipt, _keys("books", person, helper, invoice=invoice)
    yield charge_card, _keys("books", "paul", invoice=9)
    yield charge_card, _keys("books", "paul", invoice=13)
    yield charge_card, _keys("books", "lena", SUPPORT, invoice=14)
    yield delete_ledger, _keys("books", "paul")


def _keys(
    organization: str, person: str | None, helper: str | None = None, **args: int
) -> dict[str, Any]:
    keys = {"organization_id": organization, "actor_id": person}
    if helper is not None:
        keys["impersonating_from"] = helper
    return {**keys, **args}
