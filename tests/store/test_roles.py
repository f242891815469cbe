"""The roles of PostgreSQL that docs/store-operations.md grants rights to."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import NOON, event
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from sigra import AuditEvent, AuditScope, audit, configure, log_safe
from sigra.cli.app import sigra
from sigra.store import Signer, SqlAuditSink, erase, export, prune, take_checkpoint, verify
from sigra.store.errors import AuditTablesError
from sigra.store.migrate import downgrade
from sigra.store.reading import EventFilter

pytestmark = pytest.mark.servers

PAGE = Path(__file__).parents[2] / "docs" / "store-operations.md"
ROLES = ("audit_writer", "audit_reader", "audit_keeper")
KEY = Signer(Ed25519PrivateKey.generate())
SCOPE = AuditScope.build(actor_id="ann", organization_id="acme")
CHANGES = (
    "UPDATE sigra_audit_entries SET action = 'x.y'", "DELETE FROM sigra_audit_entries",
    "UPDATE sigra_audit_chains SET tag = 'x'", "DELETE FROM sigra_audit_chains",
    "UPDATE sigra_audit_marks SET body = 'x'", "DELETE FROM sigra_audit_marks",
    "TRUNCATE sigra_audit_entries", "DROP TABLE sigra_audit_entries",
)  # fmt: skip


@pytest.fixture
def url_of(new_url: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Return what gives the URL of a role that has the rights of the page."""
    url = make_url(new_url("postgresql"))
    # A server may ask each role for its password.
    owner, tail, password = create_engine(url), f"_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    made = SqlAuditSink(owner)
    for number in range(1, 6):
        made.write(event(number))
    (page,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with owner.begin() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        for role in ROLES:
            connection.execute(text(f"CREATE ROLE {role}{tail} LOGIN PASSWORD '{password}'"))
            connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}{tail}"))
        connection.execute(text(re.sub(rf"\b({'|'.join(ROLES)})\b", rf"\1{tail}", page)))
    yield lambda role: url.set(username=role + tail, password=password).render_as_string(False)
    with owner.begin() as connection:
        for role in ROLES:
            connection.execute(text(f"DROP OWNED BY {role}{tail}"))
            connection.execute(text(f"DROP ROLE {role}{tail}"))
    owner.dispose()


def refused(url: str, statements: tuple[str, ...]) -> list[str]:
    """Return those of the statements that a role may not run."""
    engine, found = create_engine(url), []
    for statement in statements:
        with engine.connect() as connection:
            try:
                connection.execute(text(statement))
            except ProgrammingError:
                found.append(statement)
    engine.dispose()
    return found


@pytest.mark.parametrize("create_tables", [True, False])
def test_who_logs_can_change_no_event(
    url_of: Callable[[str], str], open_sink: Any, create_tables: bool
) -> None:
    """In a transaction of its own or of the caller's, of an old or a new organization."""
    url = url_of("audit_writer")
    sink, engine = open_sink(url, create_tables=create_tables), create_engine(url)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        results = [log_safe("a.b", SCOPE), log_safe("a.b", None, organization_id="new")]
        with engine.begin() as connection:
            results.append(audit.log("a.b", SCOPE, conn=connection))
    assert [result.reason for result in results] == [None] * 3
    assert sink.count(EventFilter(all_organizations=True)) == 8
    assert verify(sink, all_organizations=True).verdict == "intact"
    assert refused(url, CHANGES) == list(CHANGES)
    engine.dispose()


def test_who_reads_verifies_and_writes_nothing(
    url_of: Callable[[str], str], open_sink: Any, tmp_path: Path
) -> None:
    """Nor logs; and why it was refused is in the reason."""
    url = url_of("audit_reader")
    sink = open_sink(url)
    assert verify(sink, all_organizations=True).verdict == "intact"
    assert take_checkpoint(sink, KEY).is_signed({KEY.key_id: KEY.public_key})
    assert export(sink, tmp_path / "out", all_organizations=True).files
    with configure(sinks=[sink], audit_schema=AuditEvent):
        reason = log_safe("a.b", SCOPE).reason
    assert reason is not None
    assert reason.endswith("ProgrammingError (psycopg.errors.InsufficientPrivilege)")
    assert refused(url, CHANGES) == list(CHANGES)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            """ALTER TABLE sigra_audit_entries RENAME TO elsewhere;
            CREATE VIEW sigra_audit_entries AS SELECT * FROM elsewhere WHERE {};
            GRANT SELECT ON sigra_audit_entries TO PUBLIC""",
            "is no table",
        ),
        (
            """ALTER TABLE sigra_audit_entries ENABLE ROW LEVEL SECURITY;
            CREATE POLICY hides ON sigra_audit_entries USING ({})""",
            "has a policy for this role",
        ),
    ],
)
def test_what_may_hide_events_from_who_reads_and_not_from_who_verifies_is_found(
    url_of: Callable[[str], str], postgres: str, open_sink: Any, change: str, what: str
) -> None:
    """It can tell who asks: the chain is whole, and readers miss an event of it."""
    reader = make_url(url_of("audit_reader"))
    sink, owner = open_sink(reader), open_sink(make_url(postgres).set(query=reader.query))
    kept = "sequence <> 3 OR current_query() NOT LIKE '%DESC%'"
    owner.database.write(lambda connection: connection.execute(text(change.format(kept))))
    assert len(sink.query(EventFilter(all_organizations=True), None, 50).events) == 4
    reason = f"sigra_audit_entries {what}, so readers may miss events"
    for which in ({"all_organizations": True}, {"organization_id": "acme"}):
        report = verify(sink, **which)
        assert report.rows == 5
        assert report.findings == ((None, 0, None, "changed", reason),)


@pytest.mark.parametrize(
    ("version", "are", "granted"),
    [
        ("0001", "of version 0001", "SELECT"),
        ("0001", "of version 0001", ""),
        ("base", "not there", ""),
    ],
)
def test_who_may_not_make_the_tables_is_told_who_may(
    url_of: Callable[[str], str],
    postgres: str,
    open_sink: Any,
    version: str,
    are: str,
    granted: str,
) -> None:
    """It is not said that he lacks a right to a table that he may read."""
    reader = make_url(url_of("audit_reader"))
    owner = open_sink(make_url(postgres).set(query=reader.query))
    schema = str(reader.query["options"]).split("search_path=")[1].split()[0]
    downgrade(owner.database, version)
    if granted:
        right = f"GRANT {granted} ON ALL TABLES IN SCHEMA {schema} TO {reader.username}"
        owner.database.write(lambda connection: connection.exec_driver_sql(right))
    with pytest.raises(AuditTablesError, match=f"are {are}, and this role may not bring them"):
        open_sink(reader).prepare()


def test_who_lacks_a_right_is_told_where_the_rights_are(url_of: Callable[[str], str]) -> None:
    """The database names only the table."""
    words = ["audit", "erase", "--all-organizations", "--person", "ann", "--reason", "asked"]
    result = CliRunner().invoke(sigra, [*words, "--store", url_of("audit_reader")])
    assert (1, True) == (result.exit_code, "permission denied" in result.stderr)
    assert '"PostgreSQL roles" in docs/store-operations.md' in result.stderr


def test_who_would_write_to_a_replica_is_told_to_name_the_primary(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The database names only the statement; what reads works there."""
    url = new_url("postgresql")
    open_sink(url).write(event(1))
    read_only = "-cdefault_transaction_read_only=on "
    given = make_url(url).query["options"]
    there = make_url(url).update_query_dict({"options": f"{read_only}{given}"})
    words = ("--store", there.render_as_string(False), "--all-organizations")
    assert 0 == CliRunner().invoke(sigra, ["audit", "verify", *words]).exit_code
    erase = ["audit", "erase", *words, "--person", "ann", "--reason", "asked"]
    result = CliRunner().invoke(sigra, erase)
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.endswith("name the primary, or end what makes it read-only\n")


def test_who_has_too_short_a_statement_timeout_is_told_to_change_it(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The database says only that the statement was cancelled."""
    url = new_url("postgresql")
    sink = open_sink(url)
    sink.write(event(1))
    given = make_url(url).query["options"]
    short = make_url(url).update_query_dict({"options": f"-cstatement_timeout=300 {given}"})
    words = ["--store", short.render_as_string(False), "--all-organizations", "--reason", "asked"]
    holder = create_engine(url)
    with holder.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE sigra_audit_chains")
        result = CliRunner().invoke(sigra, ["audit", "erase", *words, "--person", "ann"])
    holder.dispose()
    assert (True, 1) == (result.exit_code > 0, result.stderr.count("\n"))
    assert result.stderr.endswith("or none: ALTER ROLE ... SET statement_timeout = 0\n")


def test_who_erases_by_the_command_is_told_what_is_left_to_do(
    url_of: Callable[[str], str],
) -> None:
    """On a server the text stays on the disk, and another role than this one must remove it."""
    words = ["audit", "erase", "--all-organizations", "--reason", "asked", "--person"]
    url, told = url_of("audit_keeper"), "VACUUM FULL sigra_audit_entries"
    results = [CliRunner().invoke(sigra, [*words, who, "--store", url]) for who in ("ann", "ann")]
    assert [(0, True), (0, False)] == [(each.exit_code, told in each.stderr) for each in results]


def test_the_owner_makes_the_tables_by_the_command_and_is_told_to_grant(
    new_url: Callable[[str], str],
) -> None:
    """Where there are none; and once they are there, there is nothing to do."""
    url = make_url(new_url("postgresql")).render_as_string(hide_password=False)
    words = ["audit", "upgrade", "--store", url]
    refused, made, again = (
        CliRunner().invoke(sigra, [*words, *more]) for more in ([], ["--create"], [])
    )
    assert (2, True) == (refused.exit_code, "it has no such tables" in refused.stderr)
    assert (0, "the tables were made, of version 0003\n") == (made.exit_code, made.stdout)
    assert '"PostgreSQL roles" in docs/store-operations.md' in made.stderr
    assert (0, "") == (again.exit_code, again.stderr)
    back = CliRunner().invoke(sigra, ["audit", "downgrade", "--to", "0001", "--store", url])
    assert (0, True) == (back.exit_code, "grant the other roles their rights" in back.stderr)


def test_who_keeps_the_store_prunes_and_erases(
    url_of: Callable[[str], str], open_sink: Any
) -> None:
    """And can neither log nor change what stays of an event."""
    url = url_of("audit_keeper")
    sink = open_sink(url)
    assert erase(sink, "ann", reason="asked", signer=KEY, all_organizations=True)
    late = NOON + timedelta(days=9999)
    assert list(prune(sink, late, reason="old", signer=KEY, all_organizations=True))
    report = verify(sink, all_organizations=True, public_keys=[KEY.public_key])
    assert (report.verdict, report.rows, report.pruned) == ("intact", 0, 5)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        assert log_safe("a.b", SCOPE).status == "failed"
    kept = tuple(each for each in CHANGES if each != "DELETE FROM sigra_audit_entries")
    assert refused(url, CHANGES) == list(kept)
