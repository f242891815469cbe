"""Ids with signs that a database cannot hold: whose an event is stays plain."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import pytest
from events import event
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, DateTime, create_engine, insert, literal_column
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sigra import AuditEvent, audit, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import SqlAuditSink, erase, verify
from sigra.store.chain import GENESIS, chain_tag, link, organization_of
from sigra.store.tables import chains, entries

ODD = (
    "t\0", "t\ufffd", "t%00", "t%2500", "nul:t%00", "t\0%", "t\0%25", "\0", "none",
    "t\ud800", "t\udfff",
)  # fmt: skip
"""PostgreSQL's text has no NUL, UTF-8 no lone surrogate, and some of these may pass for such."""

PEOPLE = ODD[:-2]
"""Those that an event can have as they are."""

_texts = st.none() | st.text(st.sampled_from("\0%025anulorg:")) | st.text()


@given(_texts, _texts)
def test_a_chain_s_name_is_that_of_one_organization(one: str | None, other: str | None) -> None:
    """It has no NUL, and says whose it is."""
    assert organization_of(chain_tag(one)) == one
    assert (chain_tag(one) == chain_tag(other)) is (one == other)
    assert "\0" not in chain_tag(one)


def test_a_chain_of_no_organization_s_name_is_nobody_s_and_is_found(sink: SqlAuditSink) -> None:
    """What somebody put in under a name that is never made is shown as no organization's event."""
    sink.write(event(1))
    names: list[Any] = ["zzz:acme", "nul:acme", "nul:%00%41", "", "no", "orG:acme"]
    if sink.database.dialect == "sqlite":
        names += ["org:ac\0me", literal_column("CAST(x'6f72673aff' AS TEXT)")]

    def put_in(connection: Connection) -> None:
        for chain, tag in enumerate(names, 50):
            head, row = link(chain, str(tag), 1, GENESIS, event(chain))
            known = {"id": chain, "tag": tag, "sequence": 1, "head": head}
            connection.execute(insert(chains).values(known))
            connection.execute(insert(entries).values(row))

    sink.database.write(put_in)
    report = verify(sink, all_organizations=True)
    found = {each.reason.split()[4] for each in report.findings}
    assert found == {str(chain) for chain in range(50, 50 + len(names))}
    shown = [each.organization_id for each in sink.stream(EventFilter(all_organizations=True))]
    assert (shown.count("acme"), sink.count(EventFilter("acme"))) == (1, 1)


def test_no_two_organizations_share_a_chain_and_no_two_actors_events(sink: SqlAuditSink) -> None:
    """Whatever is in an id, no event is lost for it, and each is found by its own id alone."""
    ids = list(itertools.product(ODD, ODD))
    with configure(sinks=[sink], audit_schema=AuditEvent):
        logged = [
            log_safe("login.fail", None, organization_id=organization, actor_id=actor)
            for organization, actor in ids
        ]
        found = [
            audit.query(organization_id=organization, actor_id=actor).events
            for organization, actor in ids
        ]
    assert {each.status for each in logged} == {"emitted"}
    assert [(each.event,) for each in logged] == found
    report = verify(sink, all_organizations=True)
    assert (report.verdict, report.chains, report.rows) == ("intact", len(ODD), len(ids))


@pytest.mark.parametrize("person", PEOPLE)
def test_a_person_of_any_id_is_erased_and_nobody_else(sink: SqlAuditSink, person: str) -> None:
    """As who acted, in whose name, and as what it was done to."""
    fields = ("actor_id", "effective_user_id", "target_id")
    for number, (field, who) in enumerate(itertools.product(fields, PEOPLE)):
        sink.write(event(number, "acme", **{"actor_id": "bob", field: who}))
    assert erase(sink, person, reason="asked", organization_id="acme") == len(fields)
    assert erase(sink, person, reason="asked", organization_id="acme") == 0
    assert verify(sink, all_organizations=True).verdict == "intact"


@pytest.mark.parametrize("field", ["actor_id", "target_id"])
def test_who_cannot_be_written_as_he_is_is_erased_and_nobody_else(
    sink: SqlAuditSink, field: Any
) -> None:
    """A lone surrogate tells his id apart from that which it would become."""
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for person in ("t\ud800", "t\udfff", "t\ufffd"):
            log_safe("login.fail", None, organization_id="acme", **{field: person})
    assert erase(sink, "t\ud800", reason="asked", organization_id="acme") == 1
    assert erase(sink, "t\ufffd", reason="asked", organization_id="acme") == 1


def test_a_copy_of_an_actor_s_id_that_is_another_s_is_found(sink: SqlAuditSink) -> None:
    """That U+FFFD stands for a NUL lets nobody put it for anything else."""
    for number, actor in enumerate(("a\0", "a\ufffd", "a?", None)):
        sink.write(event(number, "acme", actor_id=actor))
    sink.database.write(lambda c: c.execute(entries.update().values(actor_id="a\ufffd")))
    found = verify(sink, organization_id="acme").findings
    assert [(each.sequence, each.reason) for each in found] == [
        (number, "its actor_id is not that of its payload") for number in (3, 4)
    ]


class Base(DeclarativeBase):
    pass


class OwnAudit(Base):
    __tablename__ = "own_audit"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    organization_id: Mapped[str | None]
    actor_id: Mapped[str | None]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def test_a_class_of_one_s_own_holds_what_its_database_does(url: str, open_sink: Any) -> None:
    """On PostgreSQL an id with a NUL has failed, and none is found by it; no other is read for it."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with configure(sinks=[open_sink(engine)], audit_schema=OwnAudit):
        told = [
            log_safe("login.fail", None, organization_id=odd, actor_id=odd).status
            for odd in ("t\0", "t\ufffd")
        ]
        found = [
            [audit.count(organization_id=odd), audit.count(all_organizations=True, actor_id=odd),
             len(audit.query(organization_id=odd).events), len([*audit.stream(organization_id=odd)])]
            for odd in ("t\0", "t\ufffd")
        ]  # fmt: skip
    kept = engine.name == "sqlite"
    assert told == ["emitted" if kept else "failed", "emitted"]
    assert found == [[int(kept)] * 4, [1] * 4]
    engine.dispose()
