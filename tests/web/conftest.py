"""A store with something to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sigra import AuditEvent, configure
from sigra.audit import log
from sigra.store import SqlAuditSink

HOSTILE = (
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=document.title='owned'>",
    "'; alert(1); //",
    "{{ 'jin' ~ 'ja' }}",
    "javascript:document.title='owned'",
    "\u202egnp.exe\u3164\u034f\ufe0f\U000e0100",
    "a\x00b\x1b[31m\u2028c",
    "&lt;b&gt; %3Cscript%3E",
    "</td></tr></table><iframe src=//evil.example>",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try a test that asks for ``hostile`` with each of the strings."""
    if "hostile" in metafunc.fixturenames:
        metafunc.parametrize("hostile", HOSTILE, ids=map(str, range(len(HOSTILE))))


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'audit.db'}"


@pytest.fixture(scope="session")
def sink(url: str) -> Iterator[SqlAuditSink]:
    """Hold 120 events of two organizations and of none, and one for each hostile string."""
    sink = SqlAuditSink(url)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        fill(log)
    yield sink
    sink.close()


def fill(write: Callable[..., Any]) -> None:
    now = datetime.now(timezone.utc)
    outcomes = ("success", "success", "success", "failure", "error")
    for number in range(120):
        write(
            "invoice.close",
            None,
            organization_id=("acme", "globex", None)[number % 3],
            actor_id=f"user-{number % 7}" if number % 3 < 2 else None,
            outcome=outcomes[number % 5],
            target_id=f"inv-{number}",
            target_type="invoice",
            occurred_at=now - timedelta(hours=4 * number),
            metadata={"number": number, "lines": [{"price": 1.5}]},
        )
    ann_as_bob = {"user": {"id": "bob"}, "active_organization": {"id": "acme"}}
    write("user.impersonate", {**ann_as_bob, "impersonating_from": {"id": "ann"}})
    for text in HOSTILE:
        write(
            "hostile.text",
            None,
            organization_id=text,
            actor_id=text,
            target_id=text,
            target_type=text,
            ip_address=text,
            user_agent=text,
            metadata={"text": text, "nested": [{text: text}]},
        )
