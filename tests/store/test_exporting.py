"""An export is complete, by organization, and shows what was done to it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import event
from sqlalchemy import create_engine

from sigra.audit.event import EVENT_FIELDS
from sigra.errors import SigraError
from sigra.store import AuditChainError, Signer, SqlAuditSink, erase, export, verify_export
from sigra.store.tables import chains, entries

HOSTILE = ("../../etc/passwd", "a/b", "CON", ".", "", "x" * 300, "ü\u202e\n", "none", "org:none")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "  =1", "＝1", '=cmd|"/c calc"!A1', '"=1')
HIDDEN = ("\t=1", "\r=1", "a\n=1", "\x0b=1", "\u200b=1", "\u3000=1", "\x1b]0;=1\x07", "\u202e=1")
FORMULA = re.compile('^[\\s"]*[=+@-]')


@pytest.fixture
def sink(new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]) -> SqlAuditSink:
    """Return a store with three organizations' events, and one of none."""
    sink = open_sink(new_url("sqlite"))
    for number in range(30):
        organization = ("acme", "globex", None)[number % 3]
        sink.write(event(number, organization, metadata={"number": number}))
    return sink


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_organization_has_a_file_in_the_order_of_its_chain(
    sink: SqlAuditSink, tmp_path: Path
) -> None:
    """Every event is in one file, with its sequence and hash."""
    manifest = export(sink, tmp_path / "out", all_organizations=True)
    assert {("acme", 10), ("globex", 10), (None, 10)} == {
        (file.organization_id, file.events) for file in manifest.files
    }
    for file in manifest.files:
        found = lines(tmp_path / "out" / file.file)
        assert {file.organization_id} == {line["organization_id"] for line in found}
        assert [*range(1, 11)] == [line["sequence"] for line in found]
        assert {*EVENT_FIELDS, "sequence", "hash"} == set(found[0])


def test_one_organization_is_exported_alone(sink: SqlAuditSink, tmp_path: Path) -> None:
    """Nobody else's events go along."""
    manifest = export(sink, tmp_path / "out", organization_id="acme")
    assert ["acme"] == [file.organization_id for file in manifest.files]
    assert {"manifest.json", manifest.files[0].file} == {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_an_event_is_exported_whatever_sequence_it_was_given(
    sink: SqlAuditSink, tmp_path: Path
) -> None:
    """Somebody who moves it before the first does not keep it out."""
    moved = entries.update().where(entries.c.chain == 1, entries.c.sequence == 3)
    values = {"sequence": -(1 << 63), "previous": b"-" * 32}
    sink.database.write(lambda c: c.execute(moved.values(values)))
    manifest = export(sink, tmp_path / "out", organization_id="acme")
    assert (10, 10) == (manifest.events, manifest.files[0].sequence)


def test_an_export_does_not_pass_over_a_chain_whose_row_is_gone(
    sink: SqlAuditSink, tmp_path: Path
) -> None:
    """What it would lack is said, and other organizations can be exported."""
    sink.database.write(lambda c: c.execute(chains.delete().where(chains.c.tag == "org:acme")))
    for which in ({"all_organizations": True}, {"organization_id": "acme"}):
        with pytest.raises(AuditChainError, match="the row of chain 1 is gone: 10 entries"):
            export(sink, tmp_path / "out", **which)
    assert 10 == export(sink, tmp_path / "out", organization_id="globex").events


@pytest.mark.parametrize("organization", HOSTILE)
def test_no_organizations_name_leaves_the_folder(
    new_url: Callable[[str], str],
    open_sink: Callable[..., SqlAuditSink],
    tmp_path: Path,
    organization: str,
) -> None:
    """Whatever a tenant is called, its file lies in the folder, beside that of None."""
    sink = open_sink(new_url("sqlite"))
    for id in (organization, None):
        sink.write(event(1, id))
    manifest = export(sink, tmp_path / "in" / "out", all_organizations=True)
    names = {path.name for path in (tmp_path / "in" / "out").iterdir()}
    assert names == {"manifest.json", *(file.file for file in manifest.files)}
    assert 3 == len(names)
    assert ["in"] == [path.name for path in tmp_path.iterdir()]
    assert [] == verify_export(tmp_path / "in" / "out")


def test_names_that_differ_by_case_alone_have_files_that_differ_otherwise(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], tmp_path: Path
) -> None:
    """On a system to which A and a are one no organization's events are lost."""
    sink = open_sink(new_url("sqlite"))
    ids = [
        "acme",
        "Acme",
        "ACME",
        "%41cme",
        "\u00e9",
        "e\u0301",
        "\u212a",
        "K",
        "k",
        "x" * 300,
        "X" * 300,
    ]
    for id in ids:
        sink.write(event(1, id))
    manifest = export(sink, tmp_path / "out", all_organizations=True)
    assert len(ids) == len({file.file.casefold() for file in manifest.files})
    short = {
        f.organization_id: f.file for f in manifest.files if len(f.organization_id or "") < 300
    }
    assert {f"org:{id}.jsonl" for id in ids[:-2]} == {unquote(name) for name in short.values()}
    assert all(name == name.casefold() for name in short.values())
    assert [] == verify_export(tmp_path / "out")


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_csv_runs_nothing_in_a_spreadsheet(
    new_url: Callable[[str], str],
    open_sink: Callable[..., SqlAuditSink],
    tmp_path: Path,
    formula: str,
) -> None:
    """A cell that would be a formula begins with an apostrophe; the text behind it is whole."""
    sink = open_sink(new_url("sqlite"))
    sink.write(event(1, target_id=formula, metadata={"n": 1}))
    manifest = export(sink, tmp_path / "out", format="csv", organization_id="acme")
    with (tmp_path / "out" / manifest.files[0].file).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "'" + formula == row["target_id"]
    assert {"n": 1} == json.loads(row["metadata"])


@pytest.mark.parametrize(
    "text", [*FORMULAS, *HIDDEN, "x;=cmd|'/C calc'!A1", 'x; "=1";+1', "x\t=1", 'x";"=1', "x\n=1;-1"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_of_a_csv_is_a_formula_whatever_separates_them(
    new_url: Callable[[str], str],
    open_sink: Callable[..., SqlAuditSink],
    tmp_path: Path,
    separator: str,
    text: str,
) -> None:
    """A semicolon does in half of Europe, and in metadata there may be one too."""
    sink = open_sink(new_url("sqlite"))
    sink.write(event(1, target_id=text, user_agent=text, metadata={"a": text, text: "b"}))
    manifest = export(sink, tmp_path / "out", format="csv", organization_id="acme")
    with (tmp_path / "out" / manifest.files[0].file).open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
    assert [] == [cell for cell in cells if FORMULA.match(cell)]
    assert [] == verify_export(tmp_path / "out")


@pytest.mark.parametrize("text", [*HIDDEN, "a\x00b", "x\x9b31m", "a\u2028b", "acme\u3164\ufe0f"])
def test_a_csv_shows_what_cannot_be_seen(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], tmp_path: Path, text: str
) -> None:
    """Nothing in a cell steers a terminal, turns the text around or ends a line."""
    sink = open_sink(new_url("sqlite"))
    sink.write(event(1, target_id=text, metadata={text: text}))
    manifest = export(sink, tmp_path / "out", format="csv", organization_id="acme")
    data = (tmp_path / "out" / manifest.files[0].file).read_bytes().decode()
    assert all(line.isprintable() for line in data.split("\r\n"))
    assert not {"\u3164", "\ufe0f"} & {*data}
    assert [2, ""] == [data.count("\r\n"), data.split("\r\n")[-1]]


def test_metadata_of_a_csv_is_the_same_json(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], tmp_path: Path
) -> None:
    """Whatever it holds that is escaped."""
    sink = open_sink(new_url("sqlite"))
    metadata = {"a;=1": ["x;=1", "\u202e\t", "=1", "\\;"]}
    sink.write(event(1, metadata=metadata))
    manifest = export(sink, tmp_path / "out", format="csv", organization_id="acme")
    with (tmp_path / "out" / manifest.files[0].file).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert metadata == json.loads(row["metadata"])


def test_parquet_holds_the_same(sink: SqlAuditSink, tmp_path: Path) -> None:
    """Row by row what JSON Lines hold."""
    import pyarrow.parquet

    export(sink, tmp_path / "json", organization_id="acme")
    (name,) = (path for path in (tmp_path / "json").iterdir() if path.suffix == ".jsonl")
    manifest = export(sink, tmp_path / "parquet", format="parquet", organization_id="acme")
    table = pyarrow.parquet.read_table(tmp_path / "parquet" / manifest.files[0].file).to_pylist()
    assert lines(name) == [{**row, "metadata": json.loads(row["metadata"])} for row in table]


def test_more_than_a_batch_is_streamed(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], tmp_path: Path
) -> None:
    """4,500 events are three batches of one file, and progress tells of each."""
    engine = create_engine(new_url("sqlite"))
    sink = open_sink(engine)
    sink.prepare()
    pairs = [(event(number), None) for number in range(4_500)]
    with engine.begin() as conn:
        sink.write_in(conn, pairs, savepoint=False)
    told: list[int] = []
    manifest = export(sink, tmp_path / "out", organization_id="acme", progress=told.append)
    engine.dispose()
    assert [2_000, 4_000, 4_500] == told
    assert [*range(1, 4_501)] == [
        line["sequence"] for line in lines(tmp_path / "out" / manifest.files[0].file)
    ]


def test_an_erased_event_is_exported_as_erased(sink: SqlAuditSink, tmp_path: Path) -> None:
    """What is gone from the store is not in an export."""
    sink.write(event(31, actor_id="mallory", target_id="secret-1"))
    erase(sink, "mallory", reason="asked for", organization_id="acme")
    manifest = export(sink, tmp_path / "out", organization_id="acme")
    text = (tmp_path / "out" / manifest.files[0].file).read_text()
    assert "mallory" not in text
    assert "secret-1" not in text
    assert {"erased": True} == json.loads(text.splitlines()[-1])["metadata"]


def test_an_export_goes_into_a_folder_of_its_own(sink: SqlAuditSink, tmp_path: Path) -> None:
    """Nothing is written over."""
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="is not empty"):
        export(sink, tmp_path, all_organizations=True)
    assert ["mine"] == [path.name for path in tmp_path.iterdir()]


def test_an_unknown_format_is_refused(sink: SqlAuditSink, tmp_path: Path) -> None:
    """Before there is a folder."""
    with pytest.raises(ValueError, match="one of jsonl, csv, parquet"):
        export(sink, tmp_path / "out", format="xml", all_organizations=True)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_which_organization_must_be_said(sink: SqlAuditSink, tmp_path: Path) -> None:
    """One that was forgotten would export every tenant's events."""
    with pytest.raises(SigraError, match="all_organizations=True"):
        export(sink, tmp_path / "out")


def test_a_good_export_verifies(sink: SqlAuditSink, tmp_path: Path) -> None:
    """With and without the key."""
    signer = Signer(Ed25519PrivateKey.generate())
    export(sink, tmp_path / "out", signer=signer, all_organizations=True)
    assert [] == verify_export(tmp_path / "out")
    assert [] == verify_export(tmp_path / "out", [signer.public_key])


def test_what_was_done_to_an_export_is_named(sink: SqlAuditSink, tmp_path: Path) -> None:
    """A changed, a missing and a strange file, and a manifest that another key signed."""
    signer, other = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
    out = tmp_path / "out"
    first, second, _ = export(sink, out, signer=signer, all_organizations=True).files
    changed = out / first.file
    changed.write_text(changed.read_text().replace("1", "2", 1))
    (out / second.file).unlink()
    (out / "more.jsonl").touch()
    wrong = verify_export(out, [signer.public_key])
    assert f"{first.file} was changed: its SHA-256 is another" in wrong
    assert f"{second.file} is missing" in wrong
    assert "more.jsonl does not belong to the export" in wrong
    assert 3 == len(wrong)
    assert "manifest.json is not signed by one of the keys" in verify_export(
        out, [other.public_key]
    )


def test_an_unsigned_manifest_is_not_taken_for_a_signed_one(
    sink: SqlAuditSink, tmp_path: Path
) -> None:
    """Stripping the signature is no way round."""
    signer = Signer(Ed25519PrivateKey.generate())
    export(sink, tmp_path / "out", organization_id="acme")
    (wrong,) = verify_export(tmp_path / "out", [signer.public_key])
    assert "not signed" in wrong


def test_without_a_manifest_there_is_nothing_to_verify(tmp_path: Path) -> None:
    """An export that was not finished has none."""
    with pytest.raises(ValueError, match="no manifest"):
        verify_export(tmp_path)


FILE = {"organization_id": "acme", "file": "a", "events": 1, "sequence": 1, "sha256": ""}


@pytest.mark.parametrize("text", [
    "[" * 100_000, "[]", '{"body": 1}', '{"body": "[]"}', '{"body": "{}"}',
    json.dumps({"body": json.dumps({"files": [{**FILE, "file": 1}]})}),
    json.dumps({"body": '{"files": []}', "signature": 5}),
    json.dumps({"body": '{"files": []}', "signature": "zz"}),
])  # fmt: skip
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever stands in it, the error is the same."""
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="no manifest"):
        verify_export(tmp_path, [Signer(Ed25519PrivateKey.generate()).public_key])


@pytest.mark.parametrize("name", ["a", "", "..", "a\0", "\ud800", "x" * 300])
def test_a_file_that_cannot_be_is_missing(tmp_path: Path, name: str) -> None:
    """No name in a manifest leads elsewhere, or to another error."""
    body = json.dumps({"files": [{**FILE, "file": name}]})
    (tmp_path / "manifest.json").write_text(json.dumps({"body": body}))
    assert verify_export(tmp_path) == [f"{name} is missing"]
