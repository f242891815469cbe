"""AuditCleanup removes the events that are older than they are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import OperationalError

from sigra import AuditEvent, SyncBackend, configure
from sigra.audit import cleanup, count, log
from sigra.audit.transaction import NoAuditStoreError
from sigra.store import Signer, SqlAuditSink, verify
from sigra.store.errors import InvalidQueryError
from sigra.testing import AuditLog
from sigra.workers import AuditCleanup


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep 40 events of two organizations, one for each of the last 20 days."""
    path: Path = tmp_path_factory.mktemp("store") / "audit.db"
    with closing(SqlAuditSink(f"sqlite:///{path}")) as sink, configure(sinks=[sink]):
        now = datetime.now(timezone.utc)
        for day in range(20, 0, -1):
            for organization in ("acme", None):
                at = now - timedelta(days=day, hours=-1)
                log(
                    "invoice.close",
                    None,
                    organization_id=organization,
                    occurred_at=at,
                    audit_schema=AuditEvent,
                )
    return path


@pytest.fixture
def sink(filled: Path, tmp_path: Path) -> Iterator[SqlAuditSink]:
    """Write into a copy of that store."""
    path = shutil.copyfile(filled, tmp_path / "audit.db")
    with closing(SqlAuditSink(f"sqlite:///{path}")) as sink:
        with configure(backend=SyncBackend(), sinks=[sink], audit_schema=AuditEvent):
            yield sink


def test_what_is_older_goes_and_the_chains_verify(sink: SqlAuditSink) -> None:
    """Of every organization, and of events without one."""
    assert 30 == AuditCleanup.new({"retention_days": 5}).result()
    assert 10 == count(all_organizations=True)
    report = verify(sink, all_organizations=True)
    assert ("intact", 10, 30) == (report.verdict, report.rows, report.pruned)


@pytest.mark.parametrize("signed", [True, False])
def test_what_it_removes_is_signed_for_by_the_sinks_key(
    sink: SqlAuditSink, tmp_path: Path, signed: bool
) -> None:
    """Who verifies with keys takes an unsigned removal for a theft."""
    signer = Signer(Ed25519PrivateKey.generate())
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    with closing(SqlAuditSink(url, signer=signer if signed else None)) as own:
        with configure(sinks=[own]):
            assert 30 == AuditCleanup.new({"retention_days": 5}).result()
    report = verify(sink, public_keys=[signer.public_key], all_organizations=True)
    assert ("intact" if signed else "broken") == report.verdict
    assert signed or "forged" == report.findings[0].kind


@pytest.mark.parametrize("args", [{}, {"retention_days": None}])
def test_without_a_retention_everything_stays(sink: SqlAuditSink, args: dict[str, None]) -> None:
    """For ever is the default."""
    assert 0 == AuditCleanup.new(args).result()
    assert 40 == count(all_organizations=True)


def test_it_is_tried_once(sink: SqlAuditSink) -> None:
    """The next tick is its retry."""
    assert 1 == AuditCleanup.new({}).options.max_attempts


@pytest.mark.parametrize("days", [0, -1, True, "30", 1.5, 10**9])
def test_no_other_retention_is_guessed(sink: SqlAuditSink, days: object) -> None:
    """A wrong number removes nothing."""
    with pytest.raises(InvalidQueryError, match="retention_days"):
        cleanup(days)  # type: ignore[arg-type]
    assert 40 == count(all_organizations=True)


def test_progress_is_told_and_a_second_run_finds_nothing(sink: SqlAuditSink) -> None:
    """Batches are counted up."""
    told: list[int] = []
    assert 30 == cleanup(5, progress=told.append)
    assert [15, 30] == told
    assert 0 == cleanup(5)


def test_a_sink_that_keeps_no_events_is_passed_over(sink: SqlAuditSink) -> None:
    """Such as one that sends them elsewhere."""
    with configure(sinks=[AuditLog(), sink]):
        assert 30 == AuditCleanup.new({"retention_days": 5}).result()


def test_a_store_that_fails_keeps_no_event_in_the_others(
    sink: SqlAuditSink, tmp_path: Path
) -> None:
    """Their retention is due too, and would be missed each time."""
    gone, full = (SqlAuditSink(f"sqlite:///{tmp_path / name}/a.db") for name in ("gone", "full"))
    with configure(sinks=[gone, sink, full]), pytest.raises(OperationalError) as caught:
        cleanup(5)
    (note,) = caught.value.__notes__
    assert note.startswith("another store failed too: OperationalError(")
    assert 10 == count(all_organizations=True)


def test_without_a_store_the_job_says_so() -> None:
    """A retention that nobody keeps is an error, not a success."""
    with configure(sinks=[]), pytest.raises(NoAuditStoreError):
        cleanup(30)
