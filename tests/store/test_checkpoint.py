"""Checkpoints and the keys that sign them."""

from __future__ import annotations

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from amounts import MANY
from attacks import alter
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from events import event

from sigra.store import (
    Checkpoint,
    CheckpointOrderError,
    Signer,
    SqlAuditSink,
    append_checkpoint,
    read_checkpoints,
    take_checkpoint,
    verify,
)
from sigra.store.anchors import Anchors
from sigra.store.append import lock_chain
from sigra.store.canonical import canonical
from sigra.store.errors import AuditChainError
from sigra.store.keys import by_id, is_signed
from sigra.store.statements import ConnectionRunner
from sigra.store.tables import chains, entries

PRIVATE = Ed25519PrivateKey.generate()
KEY = Signer(PRIVATE)


def pem(key: Any, password: bytes | None = None) -> bytes:
    form = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form)


@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_key_can_be_read_from_pem(password: bytes | None) -> None:
    """As openssl writes it, with or without a password."""
    assert Signer.from_pem(pem(PRIVATE, password), password).key_id == KEY.key_id


def test_a_key_of_another_kind_is_refused() -> None:
    """One algorithm, so that nobody can choose a weaker one."""
    with pytest.raises(TypeError, match="^the key must be an Ed25519 key, not "):
        Signer.from_pem(pem(Ed448PrivateKey.generate()))


def test_a_key_keeps_its_name_and_signs_the_same() -> None:
    """Marks and checkpoints of an earlier release have both."""
    signer = Signer(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    assert "34750f98bd59fcfc" == signer.key_id
    signature = signer.sign("checkpoint", "{}").hex()
    assert signature.startswith("0ef9dccf29d3bc29") and signature.endswith("43de3ddd84d7902")


def test_a_signature_is_good_for_its_key_purpose_and_text() -> None:
    """A mark's signature makes no checkpoint, and no other key's makes either."""
    signature = KEY.sign("mark", "text")
    keys = by_id([KEY.public_key])
    other = Signer(Ed25519PrivateKey.generate())
    assert is_signed(keys, KEY.key_id, signature, "mark", "text")
    assert not is_signed(keys, KEY.key_id, signature, "checkpoint", "text")
    assert not is_signed(keys, KEY.key_id, signature, "mark", "other")
    assert not is_signed(keys, other.key_id, other.sign("mark", "text"), "mark", "text")
    assert not is_signed(keys, KEY.key_id, other.sign("mark", "text"), "mark", "text")
    assert not is_signed(keys, None, signature, "mark", "text")
    assert not is_signed(keys, KEY.key_id, None, "mark", "text")


def test_a_checkpoint_says_where_all_chains_stand(sink: SqlAuditSink) -> None:
    """Each organization's last entry, in the order of their names, and the checkpoint before."""
    for organization in ("acme", "other", None, "acme"):
        sink.write(event(1, organization))
    first = take_checkpoint(sink, KEY)
    second = take_checkpoint(sink, KEY, first)
    heads = [(tag, sequence) for tag, sequence, _ in first.heads]
    assert heads == [("none", 1), ("org:acme", 2), ("org:other", 1)]
    assert (first.previous, second.previous) == (None, first.digest)
    assert first.at < second.at


@pytest.mark.parametrize("change", ["tag = x'ff'", "sequence = 'x'", "head = 'x'"])
def test_no_checkpoint_is_signed_of_a_row_that_cannot_be_read(
    new_url: Any, open_sink: Any, change: str
) -> None:
    """SQLite keeps any value in any column, and none that is never written is signed."""
    sink = open_sink(new_url("sqlite"))
    sink.write(event(1))
    alter(sink, lambda c: c.exec_driver_sql(f"UPDATE sigra_audit_chains SET {change}"))
    with pytest.raises(AuditChainError):
        take_checkpoint(sink, KEY)


def test_checkpoints_survive_their_file(sink: SqlAuditSink, tmp_path: Path) -> None:
    """One a line; the start of a line, of a writer that was killed, is no line."""
    path = tmp_path / "checkpoints"
    first = take_checkpoint(sink, KEY)
    append_checkpoint(path, first)
    with path.open("ab") as file:
        file.write(str(first).encode()[:40])
    assert read_checkpoints(path) == [first]
    second = take_checkpoint(sink, KEY, first)
    append_checkpoint(path, second)
    assert read_checkpoints(path) == [first, second]


@pytest.mark.parametrize("kept", [b"precious", b'{"precious": 1}', b'{"body": "text"}'])
@pytest.mark.parametrize("before", ["", "checkpoint\n"])
def test_a_file_of_another_kind_is_left_as_it_was(
    sink: SqlAuditSink, tmp_path: Path, before: str, kept: bytes
) -> None:
    """Where a rest without a line end is no beginning of a checkpoint, nothing is cut off."""
    path = tmp_path / "mine"
    first = take_checkpoint(sink, KEY)
    data = before.replace("checkpoint", str(first)).encode() + kept
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=f"mine, line {1 + before.count(chr(10))}: not a checkpoint"
    ):
        append_checkpoint(path, take_checkpoint(sink, KEY, first if before else None))
    assert path.read_bytes() == data


def test_a_file_of_another_kind_holds_no_checkpoints(tmp_path: Path) -> None:
    """It is not taken for one that has none yet."""
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ValueError, match="mine, line 1: not a checkpoint"):
        read_checkpoints(tmp_path / "mine")


@pytest.mark.parametrize("length", [1, 16, 40, -1])
def test_what_a_killed_writer_left_goes_with_the_next(
    sink: SqlAuditSink, tmp_path: Path, length: int
) -> None:
    """Wherever its line was cut."""
    path = tmp_path / "checkpoints"
    first = take_checkpoint(sink, KEY)
    path.write_bytes(str(first).encode()[:length])
    assert read_checkpoints(path) == []
    append_checkpoint(path, first)
    assert read_checkpoints(path) == [first]


def test_many_who_add_at_once_add_one_after_the_other(sink: SqlAuditSink, tmp_path: Path) -> None:
    """Each is there once and whole, after the one before: none is lost, and all verify."""
    path = tmp_path / "checkpoints"
    sink.write(event(1))
    path.touch()

    def add(_: int) -> str:
        while True:
            before = read_checkpoints(path) or [None]
            taken = take_checkpoint(sink, KEY, before[-1])
            with suppress(CheckpointOrderError):
                append_checkpoint(path, taken)
                return taken.digest

    with ThreadPoolExecutor(4) as pool:
        added = sorted(pool.map(add, range(60 if MANY else 20)))
    kept = read_checkpoints(path)
    assert sorted(each.digest for each in kept) == added
    keys = [KEY.public_key]
    report = verify(sink, all_organizations=True, public_keys=keys, checkpoints=kept)
    assert report.findings == ()


def test_a_checkpoint_out_of_order_is_refused(sink: SqlAuditSink, tmp_path: Path) -> None:
    """In the file it would look forged for ever; a new file may go on from an older one."""
    path = tmp_path / "checkpoints"
    first = take_checkpoint(sink, KEY)
    second, other = take_checkpoint(sink, KEY, first), take_checkpoint(sink, KEY, first)
    append_checkpoint(path, first)
    append_checkpoint(path, second)
    for late in (first, other, take_checkpoint(sink, KEY)):
        with pytest.raises(CheckpointOrderError, match="does not follow the last") as caught:
            append_checkpoint(path, late)
        assert caught.value.path == str(path)
    assert read_checkpoints(path) == [first, second]
    append_checkpoint(tmp_path / "new", second)
    assert read_checkpoints(tmp_path / "new") == [second]


def test_a_checkpoint_whose_line_end_was_lost_counts(sink: SqlAuditSink, tmp_path: Path) -> None:
    """As an editor or a copy leaves a file: what is signed is whole, and stays."""
    path = tmp_path / "checkpoints"
    first = take_checkpoint(sink, KEY)
    path.write_text(str(first))
    assert read_checkpoints(path) == [first]
    second = take_checkpoint(sink, KEY, first)
    append_checkpoint(path, second)
    assert read_checkpoints(path) == [first, second]


@pytest.mark.parametrize("text", [
    "", "{}", "[]", '{"body": 1, "key_id": 2, "signature": "x"}', "[" * 100_000,
    '{"body": 1, "key_id": "k", "signature": "00"}',
    '{"body": "b", "key_id": [], "signature": "00"}',
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str, tmp_path: Path) -> None:
    """A file that was damaged is not taken for a shorter one."""
    with pytest.raises(ValueError, match="not a checkpoint"):
        Checkpoint.parse(text)
    (tmp_path / "file").write_text(f"{text}\n")
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_checkpoints(tmp_path / "file")


@pytest.mark.parametrize("body", [
    "", "[]", "{}", "[" * 100_000, '{"at": 1, "heads": [], "previous": null}',
    '{"at": "2026-01-01", "heads": [], "previous": null}',
    '{"at": "2026-01-01T00:00:00Z", "heads": [], "previous": 1}',
    '{"at": "2026-01-01T00:00:00Z", "heads": 1, "previous": null}',
    '{"at": "2026-01-01T00:00:00Z", "heads": [1], "previous": null}',
    '{"at": "2026-01-01T00:00:00Z", "heads": [["organization:acme", 1]], "previous": null}',
    '{"at": "2026-01-01T00:00:00Z", "heads": [["a", "1", "00"]], "previous": null}',
    '{"at": "2026-01-01T00:00:00Z", "heads": [[{}, 1, "00"]], "previous": null}',
])  # fmt: skip
def test_an_odd_body_that_is_signed_is_forged(sink: SqlAuditSink, body: str) -> None:
    """Who has stolen the key cannot keep verify from looking at what else there is."""
    odd = Checkpoint(body, KEY.key_id, KEY.sign("checkpoint", body))
    kept = [take_checkpoint(sink, KEY), odd]
    report = verify(sink, checkpoints=kept, public_keys=[KEY.public_key], all_organizations=True)
    assert [(found.kind, found.reason.partition(":")[0]) for found in report.findings] == [
        ("forged", "checkpoint 2")
    ]


def test_a_changed_checkpoint_is_forged(sink: SqlAuditSink) -> None:
    """The key did not sign what it says now: a longer chain, for one."""
    sink.write(event(1))
    good = take_checkpoint(sink, KEY)
    bad = Checkpoint(good.body.replace('"org:acme",1', '"org:acme",2'), good.key_id, good.signature)
    report = verify(
        sink, all_organizations=True, public_keys=[KEY.public_key], checkpoints=[good, bad]
    )
    assert (report.verdict, report.level, report.first.kind) == ("broken", "anchored", "forged")
    assert report.first.reason == (
        f"checkpoint 2: none of the keys signed it: it names the key {KEY.key_id}, whose signature "
        "this is not"
    )


def signed(body: str) -> Checkpoint:
    return Checkpoint(body, KEY.key_id, KEY.sign("checkpoint", body))


@pytest.mark.parametrize("bad", ["{}", "unsigned"])
def test_a_forged_checkpoint_hides_no_later_one(sink: SqlAuditSink, bad: str) -> None:
    """What the next one has is missed all the same."""
    sink.write(event(1))
    good = take_checkpoint(sink, KEY)
    forged = signed(bad) if bad == "{}" else Checkpoint(bad, KEY.key_id, b"")
    sink.database.write(lambda c: c.execute(entries.delete()))
    sink.database.write(lambda c: c.execute(chains.delete()))
    report = verify(
        sink, all_organizations=True, public_keys=[KEY.public_key], checkpoints=[forged, good]
    )
    seen = [(one.organization_id, one.sequence, one.kind) for one in report.findings]
    assert seen == [(None, 0, "forged"), ("acme", 1, "truncated")]


@pytest.mark.parametrize("digest", ["00" * 40, "ff" * 40])
def test_two_checkpoints_that_contradict_are_forged(sink: SqlAuditSink, digest: str) -> None:
    """Who has stolen the key writes no second past, be its hashes larger or smaller."""
    sink.write(event(1))
    first = take_checkpoint(sink, KEY)
    second = take_checkpoint(sink, KEY, first)
    ((tag, sequence, true),) = second.heads
    other = signed(second.body.replace(true, digest))
    report = verify(
        sink, all_organizations=True, public_keys=[KEY.public_key], checkpoints=[first, other]
    )
    reason = f"checkpoint 2: an earlier one has another hash for {tag} at {sequence}"
    assert reason in [one.reason for one in report.findings]


def test_a_chain_without_entries_that_is_gone_is_not_missed(sink: SqlAuditSink) -> None:
    """It was begun by a call that then wrote nothing."""
    sink.prepare()
    sink.database.write(lambda c: lock_chain(ConnectionRunner(c), "org:acme"))
    kept = [take_checkpoint(sink, KEY)]
    sink.database.write(lambda c: c.execute(chains.delete()))
    keys = [KEY.public_key]
    report = verify(sink, all_organizations=True, public_keys=keys, checkpoints=kept)
    assert (report.verdict, [*kept[0].heads][0][:2]) == ("empty", ("org:acme", 0))


def test_a_checkpoint_of_a_key_that_was_not_given_names_it(sink: SqlAuditSink) -> None:
    """Who lost or changed a key reads which one to look for."""
    other = Signer(Ed25519PrivateKey.generate())
    sink.write(event(1))
    kept = [take_checkpoint(sink, other)]
    keys = [KEY.public_key]
    report = verify(sink, all_organizations=True, public_keys=keys, checkpoints=kept)
    assert report.first.reason == (
        f"checkpoint 1: none of the keys signed it: it names the key {other.key_id}, and not one "
        f"of those given ({KEY.key_id})"
    )


def test_an_old_key_is_good_while_it_is_given(sink: SqlAuditSink) -> None:
    """Keys change; what the old one signed is believed until it is taken away."""
    new = Signer(Ed25519PrivateKey.generate())
    sink.write(event(1))
    first = take_checkpoint(sink, KEY)
    second = take_checkpoint(sink, new, first)

    def verdict(*keys: Any) -> str:
        return verify(
            sink, all_organizations=True, public_keys=keys, checkpoints=[first, second]
        ).verdict

    assert verdict(KEY.public_key, new.public_key) == "intact"
    assert verdict(new.public_key) == "broken"


def test_checkpoints_are_not_kept_parsed() -> None:
    """A year of them, one an hour and of 200 chains, took half a gigabyte beside their text."""
    heads = [["org:acme", 1, "00" * 40]] * 1_000
    body = canonical({"at": "2026-01-01T00:00:00+00:00", "heads": heads, "previous": None})
    given, twice = [signed(body) for _ in range(6)], len(body) * 2
    gc.collect()
    tracemalloc.start()
    try:
        assert Anchors(given, by_id([KEY.public_key])).last == given[-1]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < twice
    finally:
        tracemalloc.stop()


def test_progress_is_told(sink: SqlAuditSink) -> None:
    """Long work says how far it is."""
    sink._write([(event(number), None) for number in range(4_001)])
    steps: list[int] = []
    verify(sink, all_organizations=True, progress=steps.append)
    assert steps == [2_000, 4_000]


def test_a_line_that_is_no_checkpoint_is_named(sink: SqlAuditSink, tmp_path: Path) -> None:
    """With its file and its number, so that it can be looked at."""
    append_checkpoint(tmp_path / "kept", take_checkpoint(sink, KEY))
    with (tmp_path / "kept").open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(ValueError, match=r"kept, line 2: not a checkpoint"):
        read_checkpoints(tmp_path / "kept")


def test_a_public_key_of_another_kind_is_refused(sink: SqlAuditSink) -> None:
    """The error says which kind is wanted."""
    with pytest.raises(TypeError, match="Ed25519"):
        verify(sink, all_organizations=True, public_keys=[Ed448PrivateKey.generate().public_key()])
