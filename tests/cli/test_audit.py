"""``sigra audit`` looks at a store, verifies it and keeps it."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from click import Option
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from rights import unprivileged
from sqlalchemy import Engine, event, make_url

from sigra import AuditEvent, configure
from sigra.audit import log
from sigra.cli.app import sigra
from sigra.cli.audit import audit
from sigra.cli.opening import _opening
from sigra.cli.store_commands import words_of
from sigra.cli.target import MisuseError
from sigra.store import Checkpoint, Signer, SqlAuditSink, read_checkpoints
from sigra.store.migrate import downgrade

ACME = ("--organization", "acme")
ALL = ("--all-organizations",)
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of 12 events in three chains, the newest of which has hostile text."""
    path: Path = tmp_path_factory.mktemp("store") / "audit.db"
    fill(path, 12)
    return path


@pytest.fixture
def database(filled: Path, tmp_path: Path) -> Path:
    """Return a copy of it, for one test."""
    return Path(shutil.copyfile(filled, tmp_path / "audit.db"))


def fill(path: Path, number: int, first: int = 0) -> None:
    sink = SqlAuditSink(f"sqlite:///{path}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for day in range(first, first + number):
            log(
                "invoice.close" if day % 4 else "invoice.send",
                {"user": {"id": "bob"}, "impersonating_from": {"id": "ann"}} if day % 2 else None,
                organization_id=("acme", "globex", None)[day % 3],
                outcome=("success", "failure")[day % 2],
                target_id=f"\x1b[31m{day}",
                occurred_at=datetime.now(timezone.utc) - timedelta(days=number - day, hours=-1),
            )
    sink.close()


@pytest.fixture
def run(database: Path) -> Command:
    def run(name: str, *options: object) -> Result:
        environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}", "COLUMNS": "120"}
        return CliRunner().invoke(sigra, ["audit", name, *map(str, options)], env=environment)

    return run


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Return the files of a private key and of its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)
    return {"private": tmp_path / "private.pem", "public": tmp_path / "public.pem"}


def objects(result: Result) -> list[dict[str, Any]]:
    assert 0 == result.exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_list_shows_a_page_and_how_to_go_on(run: Command) -> None:
    """Pages follow each other without a gap."""
    seen: list[str] = []
    options: tuple[object, ...] = ()
    while True:
        result = run("list", *ALL, "--limit", 5, "--json", *options)
        seen += [event["event_id"] for event in objects(result)]
        if not result.stderr:
            break
        options = ("--cursor", result.stderr.split()[-1])
    assert 12 == len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("ago", "found"), [("48h", 2), ("1d", 1), ("120m", 0), ("172800s", 2), ("99d", 12)]
)
def test_a_moment_is_said_as_how_long_ago(run: Command, ago: str, found: int) -> None:
    """Who looks for what went wrong just now does not compute a time in UTC first."""
    assert found == len(objects(run("list", *ALL, "--since", ago, "--json")))


@pytest.mark.parametrize(("since", "until"), [("2h", "3h"), ("2026-11-25", "2026-11-25")])
def test_a_time_that_ends_before_it_begins_is_refused(run: Command, since: str, until: str) -> None:
    """Who has mixed them up is not told that nothing happened."""
    result = run("list", *ALL, "--since", since, "--until", until)
    assert (2, True) == (result.exit_code, " must be before --until " in result.stderr)


@pytest.mark.parametrize("text", ["d", "-1d", "1.5h", "\u0664h", "5w", "999999999999d"])
def test_what_is_no_time_ago_is_no_moment(run: Command, text: str) -> None:
    """It is told what would be one."""
    result = run("list", *ALL, f"--since={text}")
    assert (2, True) == (result.exit_code, "or 90m (ago; s, h, d)" in result.stderr)


def test_list_is_a_table_for_a_person(run: Command) -> None:
    """Who acted as whom stands there, and no text of a tenant's steers the terminal."""
    result = run("list", "-o", "globex", "--action", "invoice.close")
    assert 0 == result.exit_code
    assert "ann as bob" in result.stdout
    assert "\x1b[31m" not in result.stdout
    assert "no event matches" in run("list", "-o", "nobody").stdout


@pytest.mark.parametrize(("columns", "lines"), [(80, 1), (104, 3)])
def test_on_a_narrow_terminal_no_id_is_cut_apart(database: Path, columns: int, lines: int) -> None:
    """A table that would fold them comes as ``tail`` shows events, to be copied and searched."""
    environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}", "COLUMNS": str(columns)}
    who = ["-o", "globex", "--limit", "1"]
    shown = CliRunner().invoke(sigra, ["audit", "list", *who], env=environment).stdout
    assert lines == sum(bool(line.strip()) for line in shown.splitlines())


@pytest.mark.parametrize("columns", ["1", "20"])
def test_on_a_narrow_terminal_no_verdict_and_no_number_is_cut_apart(
    database: Path, columns: str
) -> None:
    """What a table would cut to pieces comes in plain lines."""
    environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}", "COLUMNS": columns}
    verified = CliRunner().invoke(sigra, ["audit", "verify", *ALL], env=environment).stdout
    assert {"verdict: intact", "events: 12", "last checkpoint: none"} <= set(verified.splitlines())
    counted = CliRunner().invoke(sigra, ["audit", "stats", *ALL], env=environment).stdout
    assert "all: 6 success, 6 failure, 0 error" == counted.splitlines()[-1]


def test_in_a_pipe_an_event_is_one_line(database: Path) -> None:
    """What a cron job mails, or grep reads, is not folded to the width of no terminal."""
    environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}", "COLUMNS": None}
    shown = CliRunner().invoke(sigra, ["audit", "list", "-o", "globex"], env=environment).stdout
    whole = re.findall(
        r"^ +[-\d]{10} [:\d]{8} +globex .* invoice\.\w+ .* \w+ *$", shown, re.MULTILINE
    )
    assert 4 == len(whole)


FORGED = "\n1999-12-31 09:00:00  acme  root  invoice.delete  invoice 1  success"


@pytest.mark.parametrize("field", ["organization_id", "actor_id", "target_id", "target_type"])
@pytest.mark.parametrize("name", ["list", "tail"])
@pytest.mark.parametrize("columns", [None, "200"])
def test_no_event_stands_on_two_lines(
    database: Path, field: str, name: str, columns: str | None
) -> None:
    """A line end in what a tenant chose makes no second event, in a pipe or on a terminal."""
    url = f"sqlite:///{database}"
    sink = SqlAuditSink(url)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log("invoice.close", None, **{field: f"1{FORGED}"})
    sink.close()
    environment = {"SIGRA_AUDIT_STORE": url, "COLUMNS": columns}
    shown = CliRunner().invoke(sigra, ["audit", name, *ALL], env=environment).stdout
    assert [] == [line for line in shown.splitlines() if line.lstrip().startswith("1999-12-31")]
    assert "\\n1999-12-31" in shown


def test_a_file_s_name_makes_no_line_of_a_verdict(run: Command, tmp_path: Path) -> None:
    """What somebody has put into an export's folder is named on the one line that there is."""
    out = tmp_path / "out"
    run("export", *ALL, "--to", out)
    (out / f"x\nexport {out.name}: as its manifest says").touch()
    shown = run("verify", "--export", out)
    assert (1, 1) == (shown.exit_code, shown.stdout.count("\n"))


@pytest.mark.parametrize("value", ["CAST(x'ff80' AS TEXT)", "x'ff80'"])
@pytest.mark.parametrize(
    "column", ["entries SET action", "entries SET outcome", "entries SET payload"]
)
@pytest.mark.parametrize("options", [("list",), ("list", "--json"), ("tail",), ("tail", "--json"),
                                     ("stats",), ("stats", "--json")])  # fmt: skip
def test_text_that_is_none_is_shown_or_told_in_one_line(
    run: Command, database: Path, options: tuple[str, ...], column: str, value: str
) -> None:
    """Whoever put it there gets no traceback out of those who look."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"UPDATE sigra_audit_{column} = {value} WHERE sequence = 2")
    result = run(*options, *ALL)
    shown = (0, "") == (result.exit_code, result.stderr)
    assert shown or (1, 1) == (result.exit_code, result.stderr.count("\n"))


@pytest.mark.parametrize(
    ("name", "status"), [("list", 1), ("tail", 1), ("stats", 1), ("export", 1), ("verify", 2)]
)
def test_a_store_that_cannot_be_read_is_no_misuse(
    run: Command, database: Path, tmp_path: Path, name: str, status: int
) -> None:
    """The status is 1, for the command was called rightly; of verify that would mean "broken"."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'sigra_audit_entries'"
        pages = [number for (number,) in connection.execute(query)]
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
    result = run(name, *ALL, *(("--to", tmp_path / "out") if name == "export" else ()))
    assert (status, "") == (result.exit_code, result.stdout)
    assert (
        result.stderr == "Error: the audit store cannot be used: database disk image is malformed\n"
    )


@pytest.mark.parametrize("name", ["list", "tail", "stats", "export"])
def test_a_text_that_is_none_steers_no_terminal(
    run: Command, database: Path, tmp_path: Path, name: str
) -> None:
    """Events are shown, and what of them cannot be read is said."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE sigra_audit_entries SET action = CAST(x'1b5b31ff' AS TEXT)")
    result = run(name, *ALL, *(("--to", tmp_path / "out") if name == "export" else ()))
    assert (0, "") == (result.exit_code, result.stderr)
    assert "\x1b" not in result.stdout
    if name == "list":
        lines = [json.loads(line) for line in run("list", *ALL, "--json").stdout.splitlines()]
        assert {"unreadable": True} in [line["metadata"] for line in lines]
        assert {"\x1b[1\ufffd"} == {line["action"] for line in lines}


def test_a_text_that_the_terminal_s_encoding_lacks_is_shown_by_its_codes(
    database: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tenant's letters keep no other events from being shown."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    sink = SqlAuditSink(f"sqlite:///{database}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log("invoice.close", None, organization_id="acme", actor_id="\u65e5\xe9")
    sink.close()
    store = ("--store", f"sqlite:///{database}")
    command = start("audit", "list", *store, *ACME, anew=True)
    out, error = command.communicate()
    assert (command.returncode, b"Traceback" in error) == (0, False)
    assert b"\\u65e5\xe9" in out and out.count(b"invoice.") == 5


@pytest.mark.programs
def test_the_locale_c_shows_what_it_lacks_by_its_codes(database: Path) -> None:
    """There standard output refuses it in another way than by default."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log("invoice.close", None, organization_id="acme", actor_id="\u65e5\xe9")
    sink.close()
    words = [sys.executable, "-m", "sigra", "audit", "list", *ACME]
    given = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **given, "SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
    done = subprocess.run(words, capture_output=True, env=environment, timeout=240, check=False)
    assert (0, True) == (done.returncode, b"\\u65e5\\xe9" in done.stdout), done.stderr


STOPPED = """
import sys
from sqlalchemy import Engine, event

@event.listens_for(Engine, "connect")
def stop_at_the_last(connection, _):
    def read(data):
        if data == b"the last":
            raise KeyboardInterrupt
        return data.decode()
    connection.text_factory = read

from sigra.cli import main
main()
"""


LOADING = """
import sys

class Stop:
    def find_spec(self, name, *_):
        if name == "sigra.cli.audit":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from sigra.cli import main
main()
"""


@pytest.mark.programs
def test_ctrl_c_while_the_command_is_loaded_ends_it_without_a_word() -> None:
    """As it does later."""
    words = [sys.executable, "-c", LOADING, "audit", "list"]
    done = subprocess.run(words, capture_output=True, timeout=240, check=False)
    assert (130, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.programs
def test_ctrl_c_amid_a_verification_ends_it_without_a_word(database: Path) -> None:
    """What SQLAlchemy then says of a cursor, with a traceback, helps nobody."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    made = [AuditEvent(action="a.b", organization_id="zoo") for _ in range(20_000)]
    last = AuditEvent(action="a.b", organization_id="zoo", event_id="the last")
    sink.write_in(None, [(each, None) for each in (*made, last)], savepoint=False)
    sink.close()
    words = [sys.executable, "-c", STOPPED, "audit", "verify", *ALL]
    environment = {**os.environ, "SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
    done = subprocess.run(words, capture_output=True, env=environment, timeout=240, check=False)
    assert (130, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_a_store_that_is_not_said_has_two_ways_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the option and the variable."""
    monkeypatch.delenv("SIGRA_AUDIT_STORE", raising=False)
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL])
    assert 2 == result.exit_code
    assert "'--store' (env var: 'SIGRA_AUDIT_STORE')" in result.stderr


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (ACME, 4),
        (("--without-organization",), 4),
        ((*ALL, "--outcome", "failure"), 6),
        ((*ALL, "--actor", "ann"), 6),
        ((*ALL, "--action", "invoice.send"), 3),
        ((*ALL, "--until", "2001-01-01"), 0),
        ((*ALL, "--since", "2001-01-01T00:00"), 12),
    ],
)
def test_filters_narrow_list_tail_and_stats(
    run: Command, options: tuple[str, ...], number: int
) -> None:
    """The same options mean the same everywhere."""
    assert number == len(objects(run("list", *options, "--json")))
    assert number == len(objects(run("tail", *options, "--lines", 100, "--json")))
    assert number == objects(run("stats", *options, "--json"))[0]["events"]


@pytest.mark.parametrize("name", ["list", "tail", "stats", "verify", "export"])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "no events are selected"),
        ((*ACME, *ALL), "exclude each other"),
        (("--without-organization", *ACME), "exclude each other"),
    ],
)
def test_which_organization_must_be_said(
    run: Command, name: str, options: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    """Nobody reads every tenant's events by leaving an option out."""
    extra = ("--to", tmp_path / "out") if name == "export" else ()
    result = run(name, *options, *extra)
    assert (2, True) == (result.exit_code, why in result.stderr)
    assert "--organization ID, --without-organization and --all-organizations" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run", "jobs:close", "--args", "a.jsonl", "--args", "b.jsonl"],
        ["audit", "list", *ACME, "-o", "globex"],
    ],
)
def test_an_option_of_one_value_is_not_taken_twice(words: list[str], database: Path) -> None:
    """Else the first is dropped, and nobody is told."""
    environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
    result = CliRunner().invoke(sigra, words, env=environment)
    assert (2, True) == (result.exit_code, "is given more than once" in result.stderr)


def test_a_flag_may_be_given_twice(run: Command) -> None:
    """It says the same again."""
    assert run("list", *ACME, "--json", "--json").stdout == run("list", *ACME, "--json").stdout


def test_help_and_a_shell_s_completions_come_before_an_option_that_is_given_twice() -> None:
    """Who asks for them is still writing the command."""
    words = ["audit", "list", *ACME, "-o", "globex", "--"]
    asked = {"_SIGRA_COMPLETE": "bash_complete", "COMP_CWORD": "7"}
    completed = CliRunner().invoke(sigra, env={**asked, "COMP_WORDS": " ".join(["sigra", *words])})
    helped = CliRunner().invoke(sigra, [*words[:-1], "--help"])
    assert (0, 0) == (completed.exit_code, helped.exit_code)
    assert ("--cursor" in completed.stdout, "List events" in helped.stdout) == (True, True)


def test_tail_shows_the_newest_last(run: Command) -> None:
    """As tail does with a file."""
    moments = [event["occurred_at"] for event in objects(run("tail", *ALL, "-n", 3, "--json"))]
    assert 3 == len(moments)
    assert sorted(moments) == moments


def test_a_table_is_straight_in_an_encoding_that_lacks_characters(
    database: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their codes take more room than they do."""
    store = f"sqlite:///{database}"
    sink = SqlAuditSink(store)
    sink.write(AuditEvent(action="a.b", organization_id="Zürich", actor_id="Zoë"))
    sink.close()
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    found, _ = start(
        "audit", "list", *ALL, "--limit", "1", "--store", store, anew=True
    ).communicate()
    assert b"| Z\\xfcrich    | Zo\\xeb |" in found
    assert len({len(line) for line in found.splitlines() if line.startswith((b"|", b"+"))}) == 1


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_tail_follows_and_a_signal_ends_it(
    database: Path, start: Any, sign: int, status: int
) -> None:
    """An event that comes later is shown, once, and only where it matches."""
    store = f"sqlite:///{database}"
    process = start("audit", "tail", *ACME, "--store", store, "-f", "-n", "1", "--json")
    first = json.loads(process.stdout.readline())
    fill(database, 3, first=12)
    later = json.loads(process.stdout.readline())
    time.sleep(1.2)
    process.send_signal(sign)
    rest = process.stdout.read()
    assert status == process.wait(240)
    assert ("acme", "acme", b"") == (first["organization_id"], later["organization_id"], rest)
    assert "\x1b[31m12" == later["target_id"]


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_page(database: Path, start: Any, sign: int, status: int) -> None:
    """By an exit of its own: the first process of a container is not ended by the signal itself."""
    process = start("audit", "serve", "--store", f"sqlite:///{database}", "--port", "0")
    port = int(re.search(rb":(\d+)/", process.stdout.readline())[1])
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert browser.recv(100).startswith(b"HTTP/1.1 421 ")
    process.send_signal(sign)
    assert (b"", b"") == process.communicate()
    assert status == process.returncode


ENDLESS = """
ALTER TABLE sigra_audit_entries RENAME TO kept;
CREATE VIEW sigra_audit_entries AS SELECT * FROM kept WHERE 0 < (
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT 1 FROM numbers)
    SELECT max(n) FROM numbers
);
"""
"""A store whose events nobody ever has read."""


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_page_amid_a_verification(
    database: Path, start: Any, sign: int, status: int
) -> None:
    """Of a large store it takes minutes, and nobody waits until it is done."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(ENDLESS)
    process = start("audit", "serve", "--store", f"sqlite:///{database}", "--port", "0")
    port, query = re.search(r":(\d+)/(.*)", process.stdout.readline().decode()).groups()
    browser, other = (HTTPConnection("127.0.0.1", int(port), timeout=100) for _ in range(2))
    with closing(browser), closing(other):
        browser.request("GET", f"/{query}")
        with browser.getresponse() as answer:
            cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        browser.request("GET", "/verify", headers=cookie)
        for _ in range(2):  # by the second answer the verification has begun
            other.request("GET", "/")
            with other.getresponse() as answer:
                assert (401, True) == (answer.status, bool(answer.read()))
        process.send_signal(sign)
        assert (b"", b"") == process.communicate(timeout=100)
    assert status == process.returncode


def test_tail_says_in_one_line_that_the_file_was_removed(database: Path, start: Any) -> None:
    """Whoever moves a store meanwhile is not shown where the code stood."""
    process = start("audit", "tail", *ALL, "--store", f"sqlite:///{database}", "-f", "-n", "1")
    process.stdout.readline()
    database.rename(database.with_name("moved.db"))
    _, error = process.communicate()
    assert (1, 1) == (process.returncode, error.count(b"\n"))
    assert b"cannot be used: [Errno 2] somebody removed the file" in error


def test_stats_count_by_action_and_outcome(run: Command) -> None:
    """A table, and the same as JSON."""
    found = objects(run("stats", *ALL, "--json"))[0]
    assert {"invoice.send": {"success": 3}, "invoice.close": {"success": 3, "failure": 6}} == found[
        "actions"
    ]
    assert "invoice.close" in run("stats", *ALL).stdout


def test_verify_says_intact_and_what_that_is_worth(run: Command) -> None:
    """Chained, and nothing outside vouches for it."""
    result = run("verify", *ALL)
    assert 0 == result.exit_code
    assert "intact" in result.stdout
    assert "chained" in result.stdout


def test_verify_names_the_first_bad_row(run: Command, database: Path) -> None:
    """With its organization, sequence and what was done."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE sigra_audit_entries SET outcome = 'error' WHERE sequence = 2 AND chain = "
            "(SELECT id FROM sigra_audit_chains WHERE tag = 'org:acme')"
        )
    result = run("verify", *ALL)
    assert 1 == result.exit_code
    assert "changed: acme, sequence 2" in result.stdout
    assert 'follow "When verify says broken" in docs/security.md' in result.stderr
    report = json.loads(run("verify", *ALL, "--json").stdout)
    assert ("broken", "changed") == (report["verdict"], report["findings"][0]["kind"])


def test_verify_as_json_says_how_old_the_newest_checkpoint_is(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """In seconds, and null where there is none."""
    kept, trust = tmp_path / "kept", ("--public-key", keys["public"], "--json")
    assert json.loads(run("verify", *ALL, *trust).stdout)["checkpoint_age_seconds"] is None
    run("checkpoint", "--key", keys["private"], "--to", kept)
    report = json.loads(run("verify", *ALL, "--checkpoints", kept, *trust).stdout)
    assert 0 <= report["checkpoint_age_seconds"] < 3600


def test_an_organization_without_events_is_no_success(run: Command) -> None:
    """Nothing verified is not the same as nothing wrong."""
    result = run("verify", "-o", "nobody")
    assert (1, True) == (result.exit_code, "empty" in result.stdout)


def cut_the_tail(database: Path) -> None:
    """Leave two of Acme's four events, as somebody who can write the whole database."""
    with closing(sqlite3.connect(database)) as connection, connection:
        (chain,) = connection.execute(
            "SELECT id FROM sigra_audit_chains WHERE tag = 'org:acme'"
        ).fetchone()
        connection.execute(
            "DELETE FROM sigra_audit_entries WHERE chain = ? AND sequence > 2", (chain,)
        )
        connection.execute(
            "UPDATE sigra_audit_chains SET sequence = 2, head = (SELECT hash FROM "
            "sigra_audit_entries WHERE chain = ? AND sequence = 2) WHERE id = ?",
            (chain, chain),
        )


def test_a_checkpoint_of_a_chain_that_became_shorter_warns(
    run: Command, database: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever keeps the checkpoints hears of it before the next verification."""
    asked = ("--key", keys["private"], "--to", tmp_path / "kept")
    run("checkpoint", *asked)
    assert "" == run("checkpoint", *asked).stderr
    cut_the_tail(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM sigra_audit_chains WHERE tag = 'none'")
    result = run("checkpoint", *asked)
    assert (0, True) == (result.exit_code, result.stdout.startswith("checkpoint 3 of 2 chains"))
    ends = "sequence {}, but in the checkpoint before at 4: its end was removed, or a backup was"
    assert [
        f"Warning: the chain of no organization ends at {ends.format(0)} restored",
        f"Warning: the chain of organization acme ends at {ends.format(2)} restored",
    ] == result.stderr.splitlines()


def test_a_checkpoint_of_many_chains_that_became_shorter_warns_of_the_first(
    run: Command, database: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """As after a backup was restored: of 10^5 chains no more could be read."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    made = [AuditEvent(action="a.b", organization_id=f"o{number:03}") for number in range(150)]
    sink.write_in(None, [(each, None) for each in made], savepoint=False)
    sink.close()
    asked = ("--key", keys["private"], "--to", tmp_path / "kept")
    run("checkpoint", *asked)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM sigra_audit_chains WHERE tag LIKE 'org:o%'")
    *first, last = run("checkpoint", *asked).stderr.splitlines()
    assert ([f"organization o{number:03} " in first[number] for number in range(100)]) == [
        True
    ] * 100
    assert (100, "Warning: the same of 50 more chains: verify --checkpoints names them") == (
        len(first),
        last,
    )


def test_a_checkpoint_kept_outside_catches_a_cut_tail(
    run: Command, database: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """What no chain alone can show."""
    kept = tmp_path / "checkpoints.jsonl"
    for _ in range(2):
        assert 0 == run("checkpoint", "--key", keys["private"], "--to", kept).exit_code
    trust = ("--public-key", keys["public"], "--checkpoints", kept)
    shown = run("verify", *ALL, *trust).stdout
    assert "anchored" in shown
    assert re.search(r"last checkpoint +\d+:\d\d:\d\d ago", shown)
    cut_the_tail(database)
    assert 0 == run("verify", *ALL).exit_code
    result = run("verify", *ALL, *trust)
    assert 1 == result.exit_code
    assert "truncated: acme" in result.stdout


def test_a_checkpoint_of_a_time_to_come_is_not_said_to_be_old(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Some clock was wrong: who reads "-3 days, 0:38:39 ago" takes it for another age."""
    kept = tmp_path / "checkpoints.jsonl"
    run("checkpoint", "--key", keys["private"], "--to", kept)
    (taken,) = read_checkpoints(kept)
    body = {**json.loads(taken.body), "at": "2999-01-01T00:00:00.000000+00:00"}
    signer = Signer.from_pem(keys["private"].read_bytes())
    late = json.dumps(body, separators=(",", ":"), sort_keys=True)
    kept.write_text(f"{Checkpoint(late, signer.key_id, signer.sign('checkpoint', late))}\n")
    shown = run("verify", *ALL, "--public-key", keys["public"], "--checkpoints", kept).stdout
    assert re.search(r"last checkpoint +\d+ days, [\d:]+ ahead: a clock is wrong", shown)


def test_a_checkpoint_that_no_key_signed_is_of_no_organization(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """It is not said to be the first entry of those without one; a mark is said to be a chain's."""
    key = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (tmp_path / "other.pem").write_bytes(key)
    kept = tmp_path / "checkpoints.jsonl"
    run("checkpoint", "--key", tmp_path / "other.pem", "--to", kept)
    run("erase", *ACME, "--person", "ann", "--reason", "asked", "--key", tmp_path / "other.pem")
    shown = run("verify", *ALL, "--public-key", keys["public"], "--checkpoints", kept).stdout
    lines = shown.splitlines()
    assert [True] * 2 == [
        any(line.startswith(begin) for line in lines)
        for begin in ("forged: checkpoint 1: none of the keys", "forged: acme: mark 1 is not one")
    ]
    assert "sequence 0" not in shown


def test_a_person_is_shown_the_first_hundred_findings(run: Command, database: Path) -> None:
    """The verdict stays in sight where every row is bad; a machine is given all that there are."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    made = [AuditEvent(action="a.b", organization_id=f"zoo{number}") for number in range(120)]
    sink.write_in(None, [(each, None) for each in made], savepoint=False)
    sink.close()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE sigra_audit_entries SET outcome = 'error'")
    lines = run("verify", *ALL).stdout.splitlines()
    assert (100, "and 32 more: --json lists them") == (
        sum(line.startswith("changed: ") for line in lines),
        lines[-1],
    )
    found = json.loads(run("verify", *ALL, "--json").stdout)
    assert (132, 132) == (found["found"], len(found["findings"]))


def test_findings_that_are_not_even_listed_are_counted(run: Command, database: Path) -> None:
    """Whoever reads a hundred, or has a machine do so, knows how many there are."""
    fill(database, 330)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE sigra_audit_entries SET outcome = 'error'")
    last = run("verify", *ALL).stdout.splitlines()[-1]
    assert "and 242 more: --json lists the first 100 of each organization" == last
    found = json.loads(run("verify", *ALL, "--json").stdout)
    assert (342, 300) == (found["found"], len(found["findings"]))


@pytest.mark.parametrize("change", ["DELETE FROM", "DROP TABLE"])
def test_a_store_whose_version_somebody_removed_is_one(
    run: Command, database: Path, change: str
) -> None:
    """Its events are there: it is not said that there is no store."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"{change} sigra_audit_version")
    result = run("verify", *ALL)
    assert (2, False) == (result.exit_code, "no audit store" in result.stderr)
    assert "sigra_audit_version is gone or empty" in result.stderr


def test_checkpoints_taken_at_once_follow_each_other(
    run: Command, start: Any, database: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Two schedules that meet leave a file that verifies, with one checkpoint of each."""
    kept = tmp_path / "checkpoints.jsonl"
    words = ("audit", "checkpoint", "--to", str(kept))
    given = ("--key", str(keys["private"]), "--store", f"sqlite:///{database}")
    started = [start(*words, *given) for _ in range(3)]
    said = [process.communicate(timeout=240)[0].split()[1] for process in started]
    assert [b"1", b"2", b"3"] == sorted(said)
    trust = ("--public-key", keys["public"], "--checkpoints", kept)
    assert "intact" in run("verify", *ALL, *trust).stdout


def test_checkpoints_without_a_key_are_misuse(run: Command, tmp_path: Path) -> None:
    """They would be believed by whoever wrote them."""
    (tmp_path / "kept").touch()
    result = run("verify", *ALL, "--checkpoints", tmp_path / "kept")
    assert (2, True) == (result.exit_code, "without --public-key" in result.stderr)


def test_no_checkpoint_is_none_to_trust(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever empties their file would else be told that all is intact."""
    (tmp_path / "kept").touch()
    trust = ("--public-key", keys["public"], "--checkpoints", tmp_path / "kept")
    result = run("verify", *ALL, *trust)
    assert (2, True) == (result.exit_code, "holds no checkpoint" in result.stderr)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_export_is_verified_with_the_store(
    run: Command, keys: dict[str, Path], tmp_path: Path, form: str
) -> None:
    """Signed, complete, and a change to it shows."""
    out = tmp_path / "out"
    result = run("export", *ALL, "--to", out, "--format", form, "--key", keys["private"])
    assert (0, f"12 events in 3 files in {out}\n") == (result.exit_code, result.stdout)
    check = ("verify", *ALL, "--export", out, "--public-key", keys["public"])
    assert 0 == run(*check).exit_code
    next(out.glob(f"*.{form}")).write_bytes(b"")
    result = run(*check)
    assert (1, True) == (result.exit_code, "was changed" in result.stdout)
    assert 2 == run("export", *ALL, "--to", out).exit_code


def test_cleanup_warns_of_an_event_of_the_future(run: Command, database: Path) -> None:
    """A clock that was wrong for a minute puts retention off for years, and nobody would notice."""
    now, sink = datetime.now(timezone.utc), SqlAuditSink(f"sqlite:///{database}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for organization, day in (("late", 3650), ("late", -9), ("skewed", 0.5), ("skewed", -9)):
            moment = now + timedelta(days=day)
            log("x.y", None, organization_id=organization, occurred_at=moment)
    sink.close()
    result = run("cleanup", "--retention-days", 5)
    assert (0, 1) == (result.exit_code, result.stderr.count("\n"))
    dated = f"the oldest event of organization late is dated {now + timedelta(days=3650):%Y-%m-%d}T"
    assert result.stderr.startswith(f"Warning: {dated}")
    assert result.stderr.endswith('See "Prune" in docs/store-operations.md\n')
    assert "7 events older than" in result.stdout


def test_cleanup_removes_what_is_old_and_the_rest_verifies(run: Command) -> None:
    """Of all organizations, and it says how many."""
    assert run("cleanup", "--retention-days", 5).stdout.startswith("7 events older than")
    report = json.loads(run("verify", *ALL, "--json").stdout)
    assert ("intact", 5, 7) == (report["verdict"], report["rows"], report["pruned"])
    assert 2 == run("cleanup", "--retention-days", 10**9).exit_code


def test_erase_leaves_nothing_of_a_person_and_the_rest_verifies(
    run: Command, keys: dict[str, Path], database: Path
) -> None:
    """Of several persons in one call, in a signed mark; nobody else loses anything."""
    persons = ("--person", "ann", "--person", "bob")
    signed = ("--reason", "request of 12 May", "--key", keys["private"])
    assert "6 events erased\n" == run("erase", *ALL, *persons, *signed).stdout
    report = run("verify", *ALL, "--public-key", keys["public"], "--json")
    found = json.loads(report.stdout)
    assert ("intact", 12, 6) == (found["verdict"], found["rows"], found["erased"])
    assert "ann" not in run("list", *ALL, "--json").stdout
    assert b'"ann"' not in database.read_bytes()


def test_erase_spares_what_only_has_the_same_id(run: Command, database: Path) -> None:
    """Where events say what kind a target is of, those about another kind stay."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for kind in ("user", "invoice"):
            log("thing.close", None, organization_id="acme", target_id=77, target_type=kind)
    sink.close()
    asked = (*ACME, "--person", 77, "--reason", "asked for", "--target-type", "user")
    assert "1 event erased\n" == run("erase", *asked).stdout
    kept = objects(run("list", *ACME, "--action", "thing.close", "--json"))
    assert {None, "77"} == {event["target_id"] for event in kept}


@pytest.mark.parametrize("machine", [False, True], ids=["person", "machine"])
def test_erase_is_no_success_where_somebody_had_changed_what_it_erased(
    run: Command, database: Path, machine: bool
) -> None:
    """It names the events, whose text is gone; the person is erased all the same."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE sigra_audit_entries SET payload = replace(payload, 'bob', 'eve') WHERE chain ="
            " (SELECT id FROM sigra_audit_chains WHERE tag = 'org:globex') AND sequence = 1"
        )
    asked = ("--person", "ann", "--reason", "asked for", *["--json"][:machine])
    result = run("erase", *ALL, *asked)
    assert 1 == result.exit_code
    assert re.fullmatch(
        "changed: globex, sequence 1: it had been changed .* a mark\n", result.stderr
    )
    if machine:
        said = json.loads(result.stdout)
        (finding,) = said["findings"]
        assert (6, "globex", 1) == (said["erased"], finding["organization_id"], finding["sequence"])
    else:
        assert "6 events erased; somebody had changed 1 of them\n" == result.stdout
    assert "ann" not in run("list", *ALL, "--json").stdout


@pytest.mark.parametrize(
    ("organization", "warning"),
    [("acmee", "Warning: organization acmee has no events; is that its id?\n"), ("acme", "")],
)
def test_erase_warns_of_an_organization_without_events(
    run: Command, organization: str, warning: str
) -> None:
    """It may be misspelt, and its person then is not erased."""
    result = run("erase", "-o", organization, "--person", "nobody", "--reason", "asked for")
    assert (0, "0 events erased\n", warning) == (result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ("erase", *ALL, "--person", "bob", "--reason", "asked for"),
        ("cleanup", "--retention-days", 1),
    ],
    ids=lambda words: words[0],
)
def test_who_forgets_the_key_that_marks_are_signed_with_is_refused(
    run: Command, keys: dict[str, Path], words: tuple[object, ...]
) -> None:
    """The mark could never be signed afterwards, and the store would be called broken for good."""
    trust = ("--public-key", keys["public"], "--json")
    signed = ("--key", keys["private"])
    assert 0 == run("erase", *ACME, "--person", "ann", "--reason", "asked", *signed).exit_code
    before = run("verify", *ALL, *trust).stdout
    result = run(*words)
    assert (2, True) == (result.exit_code, "are signed: pass --key too" in result.stderr)
    assert before == run("verify", *ALL, *trust).stdout
    assert 0 == run(*words, *signed).exit_code
    assert 0 == run("verify", *ALL, *trust).exit_code


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_private_key_that_cannot_be_read_is_misuse(
    run: Command, tmp_path: Path, encrypted: bool
) -> None:
    """The command was called wrongly, and shows no traceback."""
    with_password, pkcs8 = BestAvailableEncryption(b"secret"), PrivateFormat.PKCS8
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, pkcs8, with_password)
    (file := tmp_path / "key.pem").write_bytes(key if encrypted else b"no key")
    result = run("export", *ALL, "--to", tmp_path / "out", "--key", file)
    assert (2, True) == (result.exit_code, "is not a readable private key: " in result.stderr)
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_an_export_says_which_extra_brings_it(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command was called wrongly, and shows no traceback."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", *ALL, "--to", tmp_path / "out", "--format", "parquet")
    assert (2, True) == (result.exit_code, "sigra[parquet]" in result.stderr)


def test_export_warns_of_an_organization_without_events(run: Command, tmp_path: Path) -> None:
    """It may be misspelt: whoever asked for the events would be sent none."""
    result = run("export", "-o", "acmee", "--to", tmp_path / "out")
    warning = "Warning: organization acmee has no events; is that its id?\n"
    assert (0, warning) == (result.exit_code, result.stderr)


def test_an_export_of_a_whole_store_without_events_names_no_organization(
    run: Command, tmp_path: Path
) -> None:
    """None of them is misspelt."""
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    SqlAuditSink(empty).prepare()
    result = run("export", *ALL, "--store", empty, "--to", tmp_path / "out")
    assert (0, "") == (result.exit_code, result.stderr)


def test_a_chain_that_cannot_be_used_keeps_no_other_person_from_being_erased(
    run: Command, database: Path
) -> None:
    """Of all of them, the events of the other chains are erased, and their text leaves the disk."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for person in ("cecily", "dorothea"):
            log("invoice.close", None, organization_id="acme", actor_id=person)
    sink.close()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM sigra_audit_chains WHERE tag = 'org:globex'")
    asked = ("--person", "cecily", "--person", "dorothea", "--reason", "asked for")
    for option, told in (("--no-vacuum", True), ("--json", False)):
        result = run("erase", *ALL, *asked, option)
        assert (1, told) == (result.exit_code, "What is left to do: run" in result.stderr)
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "is gone: 4 entries and 0 marks of it are left" in result.stderr
    left = database.read_bytes()
    assert (False, False) == (b"cecily" in left, b"dorothea" in left)


def test_erase_takes_all_persons_or_none(run: Command) -> None:
    """An id that is none is found before anybody is erased."""
    result = run("erase", *ALL, "--person", "ann", "--person", " ", "--reason", "asked for")
    assert (2, True) == (result.exit_code, "not blank" in result.stderr)
    assert 0 == json.loads(run("verify", *ALL, "--json").stdout)["erased"]


def test_erase_wants_to_be_told_why(run: Command) -> None:
    """A blank reason, as of a variable that was not set, would stand in the marks for ever."""
    result = run("erase", *ALL, "--person", "ann", "--reason", " ")
    assert (2, True) == (result.exit_code, "reason" in result.stderr)
    assert 0 == json.loads(run("verify", *ALL, "--json").stdout)["erased"]


def test_an_erasure_that_cannot_clear_the_disk_says_so(run: Command, database: Path) -> None:
    """In one line, with what is left to do, whoever's error it was."""
    store = f"sqlite:///file:{database}?immutable=1&uri=true"
    result = run("erase", *ALL, "--person", "nobody", "--reason", "asked for", "--store", store)
    assert (1, 1) == (result.exit_code, result.stderr.count("\n")), result.output
    assert "readonly database; the rows are erased, but their text may remain" in result.stderr
    assert result.stderr.endswith("; the same command, run again, does that\n")


def test_the_writing_of_the_file_anew_can_be_put_off(run: Command, database: Path) -> None:
    """Of a large file it keeps writers out for a minute; it is said what is left to do, and how."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE large (pad)")
        connection.executemany("INSERT INTO large VALUES (?)", [("x" * 4_000,)] * 100)
        connection.execute("DELETE FROM large")

    def free() -> int:
        with closing(sqlite3.connect(database)) as connection:
            found: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
            return found

    before, asked = free(), ("erase", *ALL, "--person", "ann", "--reason", "asked for")
    assert before > 90
    result = run(*asked, "--no-vacuum")
    assert (0, "6 events erased\n", before) == (result.exit_code, result.stdout, free())
    assert "copies of the text may be in the file and in its -wal" in result.stderr
    assert (0, "", 0) == (run(*asked).exit_code, run(*asked, "--no-vacuum").stderr, free())


def test_each_flag_is_one_that_every_version_of_click_reads_alike() -> None:
    """One whose default is true and that is not given is false with click 8.3.0 to 8.3.2."""
    flags = [
        option
        for command in audit.commands.values()
        for option in command.params
        if isinstance(option, Option) and option.is_flag
    ]
    assert "--no-vacuum" in {name for flag in flags for name in flag.opts}
    assert [] == [flag.name for flag in flags if flag.default is True]


VACUUMED = """
import signal
from sqlalchemy import event
from sqlalchemy.pool import Pool
from sigra.cli import main
def look(said):
    if said == "VACUUM":
        signal.setitimer(signal.ITIMER_REAL, .01, .01)
def stop(_, frame):
    if frame.f_code is not look.__code__:  # whose errors SQLite's driver passes over
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
@event.listens_for(Pool, "connect")
def connect(connection, _):
    connection.set_trace_callback(look)
main()
"""


@pytest.mark.programs
def test_ctrl_c_stops_the_writing_of_the_file_anew_and_says_what_is_left(database: Path) -> None:
    """It takes a minute for 2 GB, and keeps all writers out."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE large (pad)")
        connection.executemany("INSERT INTO large VALUES (?)", [("x" * 900,)] * 80_000)
        connection.execute("DELETE FROM large WHERE rowid <= 20000")
        connection.commit()
    words = [sys.executable, "-c", VACUUMED, "audit", "erase", *ALL, "--person", "ann"]
    environment = {**os.environ, "SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
    words += ["--reason", "asked for"]
    done = subprocess.run(words, capture_output=True, env=environment, timeout=240, check=False)
    assert (130, b"") == (done.returncode, done.stdout), done.stderr
    assert done.stderr.startswith(b"Stopped: the rows are erased, but their text may remain in ")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 3_000


def test_one_is_not_told_as_many(run: Command) -> None:
    """``1 event``: a person reads it."""
    assert run("cleanup", "--retention-days", 11).stdout.startswith("1 event older than")


@pytest.mark.parametrize("url", ["sqlite:///nowhere.db", "postgresql+psycopg://u@127.0.0.1:1/x"])
def test_a_store_that_is_not_there_is_misuse(url: str) -> None:
    """A typing error makes no empty store."""
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
    assert 2 == result.exit_code
    assert "store" in result.stderr
    assert not Path("nowhere.db").exists()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("no/audit.db", "no such file"),
        ("file/audit.db", "no such file"),
        (
            "loop/audit.db",
            f"cannot be opened: [Errno {errno.ELOOP}] Too many levels of symbolic links",
        ),
    ],
)
@pytest.mark.parametrize("command", [("list", *ALL), ("upgrade", "--dry-run")])
def test_where_no_store_can_be_the_reason_is_told(
    command: tuple[str, ...], place: str, why: str, tmp_path: Path
) -> None:
    """In one line, whether the path leads nowhere, through a file, or in a circle."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    words = ["audit", *command, "--store", f"sqlite:///{tmp_path}/{place}"]
    result = CliRunner().invoke(sigra, words)
    assert (2, True) == (result.exit_code, why in result.stderr), result.stderr


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:/audit.db", "is given as a URL, as sqlite:///audit.db or postgresql"),
        ("sqlite://", "in memory keeps nothing: name a file, as in sqlite:///audit.db"),
        ("postgresql+pg8000://u@h/x", "the package pg8000, which the driver in its URL needs, is"),
        ("postgresql+psycopg://u@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_a_url_that_cannot_be_opened_is_told_in_one_line_that_says_what_would_do(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that there is no such file, or no such module."""
    monkeypatch.setitem(sys.modules, "pg8000", None)
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
    assert (2, 1, True) == (result.exit_code, result.stderr.count("\n"), why in result.stderr)


@pytest.mark.programs
@pytest.mark.parametrize("words", ["list", "verify", "cleanup --retention-days 9", "upgrade"])
def test_where_the_store_is_not_installed_a_command_says_what_to_install(words: str) -> None:
    """It is ``sigra[sql]``: SQLAlchemy was called the driver in the URL."""
    missing = "import sys; sys.modules['sqlalchemy'] = None; from sigra.cli import main; main()"
    which = ALL if words in ("list", "verify") else ()
    command = ["audit", *words.split(), *which, "--store", "sqlite:///audit.db"]
    done = subprocess.run(
        [sys.executable, "-c", missing, *command], capture_output=True, timeout=240, check=False
    )
    told = b"Error: 'sqlalchemy' is not installed; run pip install 'sigra[sql]'\n"
    assert (2, told) == (done.returncode, done.stderr)


def make_foreign(folder: Path, kind: str) -> Path:
    """Make an application's own database, or what else may lie under a name."""
    path = folder / "app.db"
    if kind in ("empty", "text"):
        path.write_text("x" * 10_000 if kind == "text" else "")
        return path
    with closing(sqlite3.connect(folder / "used.db")) as connection:
        connection.execute(f"PRAGMA journal_mode = {'DELETE' if kind == 'plain' else 'WAL'}")
        connection.execute("CREATE TABLE users (id INTEGER)")
        if kind == "crashed":  # what was written is in the log alone
            for end in ("", "-wal"):
                shutil.copyfile(folder / f"used.db{end}", folder / f"app.db{end}")
    return path if kind == "crashed" else (folder / "used.db").rename(path)


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
@pytest.mark.parametrize("kind", ["plain", "wal", "crashed", "empty", "text"])
def test_a_file_that_is_no_store_is_misuse_and_left_as_it_was(
    tmp_path: Path, kind: str, form: str
) -> None:
    """A wrong name changes nothing in an application's own database, and puts nothing beside it."""

    def contents() -> dict[str, bytes]:
        # The index of a log that was left is SQLite's own to make.
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "app.db-shm"}

    path = make_foreign(tmp_path, kind)
    before = contents()
    url = form.format(path)
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
    assert (2, 1) == (result.exit_code, result.stderr.count("\n")), result.output
    assert before == contents()


@pytest.mark.parametrize("words", [
    ("list", *ALL), ("tail", *ALL), ("stats", *ALL), ("verify", *ALL), ("serve",),
    ("export", *ALL, "--to", "out"), ("cleanup", "--retention-days", "1"),
    ("erase", *ALL, "--person", "ann", "--reason", "asked for"),
    ("checkpoint", "--to", "kept", "--key", "private.pem"),
])  # fmt: skip
def test_no_command_changes_what_is_no_store(
    tmp_path: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Neither one that reads nor one that would write."""
    monkeypatch.chdir(tmp_path)
    path = make_foreign(tmp_path, "plain")
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    result = CliRunner().invoke(sigra, ["audit", *words, "--store", f"sqlite:///{path}"])
    assert (2, True) == (result.exit_code, "no audit store" in result.stderr)
    assert before == (path.read_bytes(), sorted(tmp_path.iterdir()))


@contextmanager
def only_readable(database: Path) -> Iterator[Path]:
    """Yield a copy that this process may not write, nor anything beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(database, folder))
        path.chmod(0o444)
        path.parent.chmod(0o555)
        try:
            with unprivileged():
                yield path
        finally:
            path.parent.chmod(0o700)


def test_a_store_that_may_only_be_read_is_told_by_which_name_it_can_be(database: Path) -> None:
    """The name in the message is one that works."""
    words = ["audit", "list", *ALL, "--json", "--store"]
    CliRunner().invoke(sigra, [*words, f"sqlite:///{database}"])  # who reads below loads no module
    with only_readable(database) as path:
        refused = CliRunner().invoke(sigra, [*words, f"sqlite:///{path}"])
        assert 2 == refused.exit_code
        (name,) = re.findall(r"meanwhile, pass (\S+)$", refused.stderr)
        assert 12 == len(objects(CliRunner().invoke(sigra, [*words, name])))


def test_a_store_in_a_folder_that_is_not_for_all_is_told_in_one_line() -> None:
    """Whoever may not look for the file is told that, and not that there is none."""
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "closed")
        closed.mkdir(0)
        Path(folder).chmod(0o755)
        url = f"sqlite:///{closed / 'audit.db'}"
        with unprivileged():
            result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
        closed.chmod(0o700)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "cannot be opened: [Errno 13] Permission denied" in result.stderr


@pytest.mark.filterwarnings(
    # SQLAlchemy 2.0 leaves a connection to the garbage collector that fails in its first use.
    *["ignore:unclosed:ResourceWarning"] * sqlalchemy.__version__.startswith("2.0.")
)
def test_a_server_that_does_not_answer_in_time_is_told_in_words() -> None:
    """The error of asyncpg's limit has no text, and its type takes the place of that."""

    fact = b"server_version\x0016.0\x00"
    greeting = b"R\0\0\0\x08\0\0\0\0S" + (len(fact) + 4).to_bytes(4, "big") + fact
    clients: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):  # it is closed
            while True:
                clients.append(server.accept()[0])
                clients[-1].recv(8)
                clients[-1].sendall(b"N")  # no TLS
                clients[-1].recv(4096)
                clients[-1].sendall(greeting + b"Z\0\0\0\x05I")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        place = f"u@127.0.0.1:{server.getsockname()[1]}/x?command_timeout=0.5"
        words = ["audit", "list", *ALL, "--store", f"postgresql+asyncpg://{place}"]
        result = CliRunner().invoke(sigra, words)
    for client in clients:
        client.close()
    told = "Error: the audit store cannot be opened: TimeoutError\n"
    assert (2, True) == (result.exit_code, told in result.stderr)
    for thread in threading.enumerate():
        if thread.name == "sigra-audit-store":  # its loop has the connection until it is closed
            thread.join(240)
    del result  # its traceback has it too
    gc.collect()


@pytest.mark.parametrize(
    ("error", "why"),
    [(TimeoutError(), "TimeoutError"), (ConnectionError("it is gone"), "it is gone")],
)
@pytest.mark.parametrize("name", ["export", "checkpoint"])
def test_a_server_that_is_lost_meanwhile_is_not_told_of_what_is_written(
    run: Command, keys: dict[str, Path], tmp_path: Path, name: str, error: Exception, why: str
) -> None:
    """Neither the folder nor the file is at fault, and the command was called rightly."""

    def lose(*call: Any) -> None:
        if "ORDER BY sigra_audit_chains.tag" in call[2]:
            raise error

    event.listen(Engine, "before_cursor_execute", lose)
    try:
        where = ALL if name == "export" else ("--key", keys["private"])
        result = run(name, *where, "--to", tmp_path / "out")
    finally:
        event.remove(Engine, "before_cursor_execute", lose)
    told = f"Error: the audit store cannot be used: {why}\n"
    assert (1, told) == (result.exit_code, result.stderr)


@pytest.mark.parametrize("name", ["export", "checkpoint"])
def test_a_chain_that_cannot_be_used_is_not_told_of_what_is_written(
    run: Command, database: Path, keys: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """The folder and the file are as they should be, and the command was called rightly."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE sigra_audit_chains SET tag = x'00', head = 0 WHERE id = 1")
    where = ALL if name == "export" else ("--key", keys["private"])
    result = run(name, *where, "--to", tmp_path / "out")
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith("Error: the audit store's tables hold, in the row of a chain,")


def test_a_name_with_a_space_is_found_by_its_url(database: Path) -> None:
    """Also where the space is escaped, if that is how SQLAlchemy reads a URL."""
    spaced = database.rename(database.with_name("the audit.db"))
    escaped = str(spaced).replace(" ", "%20")
    plain = make_url(f"sqlite:///{escaped}").database == str(spaced)  # since SQLAlchemy 2.1
    for name in (f"{spaced}", f"file:{escaped}?uri=true", *([escaped] if plain else [])):
        words = ["audit", "list", *ALL, "--json", "--store", f"sqlite:///{name}"]
        assert 12 == len(objects(CliRunner().invoke(sigra, words)))


def test_a_url_may_have_options(database: Path) -> None:
    """What stands behind the question mark is no part of the file's name."""
    url = f"sqlite:///{database}?timeout=5"
    assert 12 == len(
        objects(CliRunner().invoke(sigra, ["audit", "list", *ALL, "--json", "--store", url]))
    )


@pytest.mark.parametrize(
    "host", ["u:hunter2@127.0.0.1:1/x", "u:hun/ter2@h/x", "u:hun@ter2:hun@h/x"]
)
@pytest.mark.parametrize("driver", ["+psycopg", "+no"])
def test_no_password_is_printed(driver: str, host: str) -> None:
    """Not of a store that does not answer, and not of a URL that is none."""
    url = f"postgresql{driver}://{host}"
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
    assert (2, False) == (result.exit_code, "hun" in result.output)


def test_no_password_among_the_options_of_a_url_is_printed(tmp_path: Path) -> None:
    """PostgreSQL's drivers take one there too."""
    url = f"sqlite:///file:{tmp_path / 'none.db'}?password=hunter2&uri=true"
    result = CliRunner().invoke(sigra, ["audit", "list", *ALL, "--store", url])
    assert (2, True) == (result.exit_code, "none.db" in result.stderr)
    assert "hunter2" not in result.output


@pytest.mark.parametrize("name", ["list", "tail", "stats", "verify"])
def test_an_organization_without_a_name_is_misuse(run: Command, name: str) -> None:
    """One line, and no traceback."""
    result = run(name, "-o", " ")
    assert (2, True) == (result.exit_code, result.stderr.startswith("Error: "))


def test_a_moment_may_be_what_the_command_printed(run: Command) -> None:
    """With its zone, or with another one, or as in a table; without a zone it is in UTC."""
    moment = objects(run("list", *ALL, "--limit", 1, "--json"))[0]["occurred_at"]
    other = datetime.fromisoformat(moment).astimezone(timezone(timedelta(hours=5))).isoformat()
    table = moment[:19].replace("T", " ")
    for since in (moment, other, moment[:19], moment[:19] + "Z", moment[:16] + "+00:00", table):
        assert 1 == len(objects(run("list", *ALL, "--since", since, "--json")))
    assert 11 == len(objects(run("list", *ALL, "--until", moment, "--json")))


def test_what_is_no_moment_is_shown_what_is_one(run: Command) -> None:
    """And not the directives of a format."""
    result = run("list", *ALL, "--since", "yesterday")
    assert (2, True) == (
        result.exit_code,
        "'yesterday' is not a time: write 2026-11-25" in result.stderr,
    )
    assert "%" not in result.stderr


def test_a_port_that_is_taken_is_misuse(run: Command) -> None:
    """One line, which says how to come by a free one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--port", taken.getsockname()[1])
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "cannot be served: Address already in use" in result.stderr
    assert "choose another --port" in result.stderr


def test_an_export_that_is_not_there_is_misuse(run: Command, tmp_path: Path) -> None:
    """It was not looked at, and so is not broken."""
    assert 2 == run("verify", "--export", tmp_path / "nowhere").exit_code


@pytest.mark.parametrize("name", ["*.jsonl", "manifest.json"])
def test_an_export_that_may_not_be_read_is_not_called_broken(run: Command, name: str) -> None:
    """Nobody knows what is in it: the status is 2, and one line says why."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run("export", *ALL, "--to", out)
        for path in (out, *out.iterdir()):
            path.chmod(0o755)
        next(out.glob(name)).chmod(0)
        with unprivileged():
            result = run("verify", "--export", out)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "the export cannot be checked: " in result.stderr
    assert "[Errno 13] Permission denied" in result.stderr


def test_a_public_key_of_another_kind_is_misuse(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """And so is a private one, of which the message says how to come by the public one."""
    public = Ed448PrivateKey.generate().public_key()
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    result = run("verify", *ALL, "--public-key", wrong)
    assert (2, True) == (result.exit_code, "Ed25519" in result.stderr)
    result = run("verify", *ALL, "--public-key", keys["private"])
    assert (2, True) == (result.exit_code, f"openssl pkey -in {keys['private']}" in result.stderr)


def test_what_keeps_the_store_has_json_for_machines(
    run: Command, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Export, checkpoint, erase and cleanup say the same as to a person."""
    out, kept = tmp_path / "out", tmp_path / "kept"
    exported = objects(run("export", *ALL, "--to", out, "--json"))
    assert [{"folder": str(out), "format": "jsonl", "events": 12, "files": 3}] == exported
    taken = objects(run("checkpoint", "--key", keys["private"], "--to", kept, "--json"))
    assert [{"file": str(kept), "number": 1, "chains": 3}] == taken
    erasing = ("--person", "ann", "--reason", "asked for", "--json")
    assert [{"erased": 6, "findings": []}] == objects(run("erase", *ALL, *erasing))
    (cleaned,) = objects(run("cleanup", "--retention-days", 5, "--json"))
    assert (7, True) == (cleaned["removed"], cleaned["before"].endswith("+00:00"))


def test_an_export_is_verified_without_the_store(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was given the folder need not have the database."""
    out = tmp_path / "out"
    run("export", *ALL, "--to", out)
    monkeypatch.delenv("SIGRA_AUDIT_STORE", raising=False)
    arguments = ["audit", "verify", "--export", str(out)]
    result = CliRunner().invoke(sigra, arguments)
    assert (0, f"export {out}: as its manifest says\n") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("Warning: nothing shows that nobody rewrote the manifest too")
    next(out.glob("*.jsonl")).write_bytes(b"")
    result = CliRunner().invoke(sigra, [*arguments, "--json"])
    assert (1, True) == (result.exit_code, "was changed" in json.loads(result.stdout)["export"][0])


def test_a_store_that_may_only_be_read_is_opened_as_such(database: Path) -> None:
    """SQLite's own form of a file's name tells it that nobody writes there."""
    url = f"sqlite:///file:{database}?immutable=1&uri=true"
    before = sorted(database.parent.iterdir())
    assert 12 == len(
        objects(CliRunner().invoke(sigra, ["audit", "list", *ALL, "--json", "--store", url]))
    )
    assert 0 == CliRunner().invoke(sigra, ["audit", "verify", *ALL, "--store", url]).exit_code
    assert before == sorted(database.parent.iterdir())


def test_an_old_store_that_may_only_be_read_is_to_be_copied(database: Path, tmp_path: Path) -> None:
    """Its tables cannot be upgraded where it is, however it is opened."""
    sink = SqlAuditSink(f"sqlite:///{database}")
    downgrade(sink.database, "0001")
    sink.close()
    url = f"sqlite:///file:{database}?immutable=1&uri=true"
    result = CliRunner().invoke(sigra, ["audit", "upgrade", "--store", url])
    assert (1, True) == (result.exit_code, "upgrade the copy, or make it" in result.stderr)


def test_a_file_system_on_which_no_store_can_be_is_told() -> None:
    """SQLite says only "disk I/O error"."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_SHMMAP"
    assert "SQLite needs a disk of this machine" in words_of(error)


def test_a_file_that_this_user_may_not_read_is_named() -> None:
    """SQLite says only that it cannot open the file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "audit.db")
        fill(file, 1)
        words = ["audit", "list", *ALL, "--store", f"sqlite:///{file}"]
        assert 0 == CliRunner().invoke(sigra, words).exit_code  # and all modules are imported
        file.chmod(0)
        with unprivileged():
            result = CliRunner().invoke(sigra, words)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert f"may this user read {file}, and write to its folder?" in result.stderr
    assert "immutable" not in result.stderr


@pytest.mark.parametrize("is_logged", [False, True])
def test_of_a_file_in_a_folder_that_may_not_be_written_what_reads_it_is_told(
    is_logged: bool,
) -> None:
    """SQLite says only that it cannot open it: on a disk that is mounted to be read, say.

    A URL that leaves out its log is told only where there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        file = Path(folder, "audit.db")
        fill(file, 1)
        file.chmod(0o644)
        words = ["audit", "list", *ALL, "--store"]
        if is_logged:
            Path(f"{file}-wal").touch()
            with unprivileged():
                told = CliRunner().invoke(sigra, [*words, f"sqlite:///{file}"]).stderr
            assert "Copy it and audit.db-wal, its latest events, to another one" in told
            assert "immutable" not in told
        else:
            with (
                unprivileged(),
                pytest.raises(MisuseError) as caught,
                _opening(f"sqlite:///{file}"),
            ):
                raise sqlite3.OperationalError("unable to open database file")
            with unprivileged():
                told = str(caught.value).split()[-1]
                assert 0 == CliRunner().invoke(sigra, [*words, told]).exit_code
            assert f"sqlite:///file:{file}?immutable=1&uri=true" == told


def test_a_lock_that_somebody_keeps_is_told_with_how_to_find_him(
    run: Command, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says only that the database is locked."""
    monkeypatch.setattr("sigra.store.database._BUSY_MILLISECONDS", 1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = run("erase", *ALL, "--person", "ann", "--reason", "asked for")
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "is locked; another transaction kept its lock: find who has the file" in result.stderr
