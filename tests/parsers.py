"""What reads what somebody else may have written, and what each of these promises of any bytes."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sigra import SigraError, SyncBackend, tenant_worker
from sigra.backends.envelope import pack, unpack
from sigra.codec import Stdlib, choose_codec
from sigra.frozen import thaw
from sigra.job import Job
from sigra.json import dumps, freeze, loads
from sigra.store import Checkpoint, Signer, read_checkpoints, verify_export
from sigra.store.canonical import canonical
from sigra.store.cursor import decode_cursor, encode_cursor
from sigra.store.errors import InvalidQueryError

KEY = Signer(Ed25519PrivateKey.generate())
MOST = 1 << 20


class Parser(NamedTuple):
    """``check`` fails where a promise is broken; ``samples`` are good, or nearly so."""

    check: Callable[[bytes], None]
    samples: tuple[str, ...]


@tenant_worker(name="tests.parsers.any", backend=SyncBackend())
def any_worker(scope: Any, args: Any) -> None:
    """Do nothing."""


def an_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def envelope(data: bytes) -> None:
    """A payload is a job that can be packed again, or one of our errors tells what is wrong."""
    payload = an_object(data)
    if payload is None:
        return
    try:
        found = unpack(payload, any_worker.definition, "sync")
    except SigraError:
        return
    assert min(found.failures, found.snoozes, found.deliveries) >= 0
    pack(found.job, found.failures, found.snoozes, found.deliveries)


def codecs(data: bytes) -> None:
    """Both codecs read the same, or both refuse, and what they read is written and read again."""
    read = []
    for codec in (Stdlib(), choose_codec()):
        try:
            read.append([codec.loads(data)])
        except ValueError:
            read.append([])
    assert read[0] == read[1]
    if read[0] and isinstance(read[0][0], dict):
        try:
            frozen = freeze(read[0][0], MOST)
        except SigraError:
            return
        assert loads(dumps(thaw(frozen))) == read[0][0]


def cursor(data: bytes) -> None:
    """A cursor is a position that a database takes, or refused as no cursor."""
    for text in (
        data.decode(errors="surrogateescape"),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    ):
        for kinds in ((str, int, int), (datetime, str)):
            try:
                found = decode_cursor(text, *kinds)
            except InvalidQueryError as error:
                assert error.argument == "cursor"
            else:
                assert tuple(map(type, found)) == kinds
                assert all(abs(each) < 1 << 63 for each in found if type(each) is int)


def manifest(data: bytes) -> None:
    """A manifest that cannot be read is refused as such, and none is signed that we did not."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data)
        try:
            wrong = verify_export(folder, [KEY.public_key])
        except ValueError as error:
            assert "no manifest" in str(error)
        else:
            assert any("not signed" in each for each in wrong)


def checkpoints(data: bytes) -> None:
    """A file of checkpoints is read or refused, and none is signed that we did not sign."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoints"
        path.write_bytes(data)
        try:
            found = read_checkpoints(path)
        except ValueError:
            return
    for each in found:
        assert Checkpoint.parse(str(each)) == each
        assert not each.is_signed({KEY.key_id: KEY.public_key}) or each.body == BODY


def canonical_text(data: bytes) -> None:
    """The text is that of the library wherever the library has one."""
    value = an_object(data)
    if value is None:
        return
    text = canonical(value)
    json.loads(text)
    try:
        expected = rfc8785.dumps(value)
    except (ValueError, RecursionError):
        return
    assert text.encode() == expected


JOB = Job(
    any_worker.definition,
    freeze({"organization_id": "acme", "actor_id": None, "n": [1.5, {"x": True}]}, MOST),
    any_worker.definition.defaults,
    "sync",
)
BODY = canonical({"at": "2026-11-25T12:00:00.000000+00:00", "heads": [["org:acme", 1, "00"]],
                  "previous": None})  # fmt: skip
FILE = {"organization_id": "acme", "file": "a", "events": 1, "sequence": 1, "sha256": "00"}
EXPORT = {"format": "jsonl", "at": "2026-11-25", "files": [FILE]}

PARSERS = {
    "envelope": Parser(envelope, (json.dumps(pack(JOB)), json.dumps(thaw(JOB.args)))),
    "json": Parser(codecs, ('{"a":[1,2.5e10,-0.0,1e400,"\\ud83d\\ude00",null,true]}', '"\\ud800"')),
    "cursor": Parser(
        cursor, ('["2026-01-01T00:00:00+00:00",1,2]', '["2026-01-01", "id"]',
                 encode_cursor(("2026", 1, 2))),
    ),
    "manifest": Parser(
        manifest,
        (json.dumps({"body": json.dumps(EXPORT), "key_id": KEY.key_id, "signature": "00" * 64}),),
    ),
    "checkpoints": Parser(
        checkpoints, (f"{Checkpoint(BODY, KEY.key_id, KEY.sign('checkpoint', BODY))}\n",)
    ),
    "canonical": Parser(
        canonical_text,
        ('{"a":[1,2.5e10,-0.0,1e21,1e-7,9007199254740993],"\\u00e9":{"b":0.1},"\\ud83d\\ude00":2}',),
    ),
}  # fmt: skip
