"""What an erased person leaves behind: on the disk, in an export, and after a server's VACUUM."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amounts import LONG, MANY
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import event
from sqlalchemy import create_engine, make_url, text

from sigra.store import (
    Signer,
    SqlAuditSink,
    database,
    erase,
    export,
    take_checkpoint,
    vacuum,
    verify,
)

KEY = Signer(Ed25519PrivateKey.generate())
ROWS, ORGANIZATIONS = (100_000, 1_000) if LONG else (3_000, 100) if MANY else (300, 10)
PERSON = "canary-7f3a"

OpenSink = Callable[..., SqlAuditSink]


def fill(sink: SqlAuditSink, rows: int, organizations: int) -> int:
    """Write events of many organizations in no order, and return how many are the person's."""
    share, names = random.Random(7), [f"org {number}" for number in range(organizations)]
    mine = 0
    for start in range(0, rows, 100):
        items = []
        for number in range(start, start + 100):
            who = PERSON if share.random() < 0.1 else f"user {share.randrange(1000)}"
            note = f"{who} was here " * share.choice([0, 1, 1, 5, 40])
            items.append((event(number, share.choice(names), actor_id=who, metadata={"note": note}),
                          None))  # fmt: skip
            mine += who == PERSON
        sink._write(items)
    return mine


def traces_in(folder: Path) -> dict[str, int]:
    """Return how often the person's id stands in which files of a folder."""
    counts = {
        path.name: path.read_bytes().count(PERSON.encode())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize(
    ("driver", "last"), [("sqlite", ROWS), ("sqlite+aiosqlite", min(ROWS // 3, 300))]
)
def test_nothing_of_the_person_stays_on_the_disk(
    new_url: Callable[[str], str], open_sink: OpenSink, tmp_path: Path, driver: str, last: int
) -> None:
    """No file of the database, and no export, holds a byte of the text, and the chains verify."""
    url = new_url("sqlite")
    before = open_sink(url)  # what is there when the slower driver writes the last rows
    mine = fill(before, ROWS - last, ORGANIZATIONS)
    before.close()
    sink = open_sink(url := url.replace("sqlite", driver, 1))
    mine += fill(sink, last, ORGANIZATIONS)
    checkpoint = take_checkpoint(sink, KEY)
    folder = Path(str(make_url(url).database)).parent
    assert traces_in(folder)
    assert erase(sink, PERSON, reason="asked", signer=KEY, all_organizations=True) == mine
    assert traces_in(folder) == {}
    report = verify(
        sink, all_organizations=True, public_keys=[KEY.public_key], checkpoints=[checkpoint]
    )
    assert (report.verdict, report.rows, report.erased) == ("intact", ROWS, mine)
    for format in ("jsonl", "csv"):
        export(sink, tmp_path / format, format=format, all_organizations=True)
    assert len(list(tmp_path.rglob("*.*"))) > ORGANIZATIONS
    assert traces_in(tmp_path) == {}


def test_many_are_erased_and_the_disk_is_seen_to_once(
    new_url: Callable[[str], str], open_sink: OpenSink
) -> None:
    """Who erases in the day leaves the file to a quiet hour; until then the log has the text."""
    url = new_url("sqlite")
    sink = open_sink(url)
    mine = fill(sink, 600, 10)
    erased = erase(sink, PERSON, reason="asked", vacuum=False, all_organizations=True)
    folder = Path(str(make_url(url).database)).parent
    assert (erased, bool(traces_in(folder))) == (mine, True)
    vacuum(sink)
    assert traces_in(folder) == {}
    assert verify(sink, all_organizations=True).verdict == "intact"


def test_a_log_that_others_keep_in_use_is_told_of(
    new_url: Callable[[str], str], open_sink: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears that a person was erased may rely on it; else it says what is to be done."""
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 10)
    url = new_url("sqlite")
    sink = open_sink(url)
    fill(sink, 100, 1)
    engine = create_engine(url)
    with engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.execute(text("SELECT count(*) FROM sigra_audit_entries")).all()
        with pytest.raises(TimeoutError, match=r"rows are erased, .* sigra\.store\.vacuum"):
            erase(sink, PERSON, reason="asked", all_organizations=True)
    engine.dispose()
    vacuum(sink)
    assert traces_in(Path(str(make_url(url).database)).parent) == {}


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_disk_without_room_is_not_filled(
    new_url: Callable[[str], str], open_sink: OpenSink, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """A log that had filled it would stay so, and soon nobody could write an event any more."""
    url = new_url("sqlite")
    sink = open_sink(url.replace("sqlite", driver, 1))
    fill(sink, 600, 10)
    vacuum(sink)  # so that the file has it all
    file = Path(str(make_url(url).database))
    size = file.stat().st_size
    free = SimpleNamespace(total=size * 2, free=size // 2)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: free)
        with pytest.raises(OSError, match="cannot be written anew: that takes .* MB") as caught:
            vacuum(sink)
    assert caught.value.__notes__[0].startswith("the rows are erased, but their text may remain")
    assert erase(sink, PERSON, reason="asked", all_organizations=True) > 0
    assert traces_in(file.parent) == {}


def test_the_room_of_a_log_counts_unless_others_keep_it_in_use(
    new_url: Callable[[str], str], open_sink: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite then goes on at its end, and would fill the disk."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 10)
    url = new_url("sqlite")
    sink = open_sink(url)
    fill(sink, 600, 10)
    log, size = Path(f"{make_url(url).database}-wal"), 1 << 30

    def disk_usage(_: str) -> SimpleNamespace:
        return SimpleNamespace(total=size, free=0 if log.stat().st_size else size)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    engine = create_engine(url)
    with engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.execute(text("SELECT count(*) FROM sigra_audit_entries")).all()
        with pytest.raises(OSError, match="cannot be written anew"):
            vacuum(sink)
    engine.dispose()
    assert erase(sink, PERSON, reason="asked", all_organizations=True) > 0
    assert traces_in(log.parent) == {}


def test_a_disk_that_does_not_say_its_size_is_written(
    new_url: Callable[[str], str], open_sink: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a FUSE file system that does not count its room: it has 0 of 0 bytes."""
    url = new_url("sqlite")
    sink = open_sink(url)
    fill(sink, 100, 10)
    erase(sink, PERSON, reason="asked", all_organizations=True)  # now there is no log
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=0, free=0))
    vacuum(sink)
    assert traces_in(Path(str(make_url(url).database)).parent) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_file_in_a_folder_whose_name_is_not_utf8_is_rewritten(
    new_url: Callable[[str], str], open_sink: OpenSink, driver: str
) -> None:
    """SQLite gives such a name as text, which Python does not read."""
    file = Path(str(make_url(new_url("sqlite")).database))
    folder = file.parent / os.fsdecode(b"latin-\xff")
    folder.mkdir()
    file.rename(folder / file.name)
    sink = open_sink(f"{driver}:///{folder / file.name}")
    fill(sink, 100, 10)
    assert erase(sink, PERSON, reason="asked", all_organizations=True) > 0
    assert traces_in(file.parent) == {}


def test_parquet_has_nothing_of_the_person(
    new_url: Callable[[str], str], open_sink: OpenSink, tmp_path: Path
) -> None:
    """Parquet is compressed, so that its values are looked at, and not its bytes."""
    from pyarrow import parquet

    sink = open_sink(new_url("sqlite"))
    fill(sink, 300, 1)
    path = tmp_path / "{}" / "org%3aorg%200.parquet"
    export(sink, tmp_path / "before", format="parquet", all_organizations=True)
    assert PERSON in str(parquet.read_table(str(path).format("before")).to_pylist())
    erase(sink, PERSON, reason="asked", all_organizations=True)
    export(sink, tmp_path / "after", format="parquet", all_organizations=True)
    assert PERSON not in str(parquet.read_table(str(path).format("after")).to_pylist())


@pytest.mark.servers
def test_postgresql_keeps_the_text_until_a_full_vacuum(
    new_url: Callable[[str], str], open_sink: OpenSink
) -> None:
    """No row has it at once; the tables' files have until they are written anew."""
    url = new_url("postgresql")
    sink = open_sink(url)
    mine = fill(sink, 3_000, 100)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as pooled:
        connection = pooled.connection.driver_connection
        assert erase(sink, PERSON, reason="asked", all_organizations=True) == mine
        assert _rows_with_traces(connection) == 0
        connection.execute("VACUUM sigra_audit_entries")
        assert _bytes_with_traces(connection) > 0
        connection.execute("VACUUM FULL sigra_audit_entries")
        assert _bytes_with_traces(connection) == 0
    engine.dispose()
    assert verify(sink, all_organizations=True).verdict == "intact"


def _rows_with_traces(connection: Any) -> int:
    query = "SELECT count(*) FROM sigra_audit_entries AS each WHERE each::text LIKE %s"
    return int(connection.execute(query, [f"%{PERSON}%"]).fetchone()[0])


def _bytes_with_traces(connection: Any) -> int:
    """Count the text in the table's files, those of long values and the indexes included."""
    connection.execute("CHECKPOINT")
    names = connection.execute(
        "SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid IN ("
        " SELECT indexrelid FROM pg_index WHERE indrelid = 'sigra_audit_entries'::regclass UNION"
        " SELECT reltoastrelid FROM pg_class WHERE oid = 'sigra_audit_entries'::regclass UNION"
        " SELECT 'sigra_audit_entries'::regclass)"
    ).fetchall()
    assert len(names) >= 7
    read = "SELECT pg_read_binary_file(%s)"
    return sum(connection.execute(read, name).fetchone()[0].count(PERSON.encode())
               for name in names)  # fmt: skip
