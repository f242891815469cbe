"""Checkpoints: where all chains stood at a moment, signed, to be kept outside the database."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sigra.store.access import read_tables
from sigra.store.canonical import canonical
from sigra.store.chain import time_text
from sigra.store.errors import AuditChainError, CheckpointOrderError
from sigra.store.keys import PublicKeys, Signer, is_signed
from sigra.store.locking import lock_file
from sigra.store.private import private
from sigra.store.ready import make_ready
from sigra.store.sink import SqlAuditSink
from sigra.store.stored import is_text
from sigra.store.tables import chains

_PURPOSE = "checkpoint"
_BEGINS = b'{"body": "{\\"at\\":\\"'
"""How each line of a file of checkpoints begins, by which one that was cut short is known."""


@dataclass(frozen=True)
class Checkpoint:
    """The heads of all chains at a moment, and the digest of the checkpoint before.

    ``body`` is canonical JSON. ``str()`` gives one line of JSON, which ``parse`` reads.
    """

    body: str
    key_id: str
    signature: bytes

    @cached_property
    def _fields(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def at(self) -> datetime:
        """Return when it was taken."""
        return datetime.fromisoformat(self._fields["at"])

    @property
    def previous(self) -> str | None:
        """Return the digest of the checkpoint before, None for the first."""
        return self._fields["previous"]  # type: ignore[no-any-return]

    @property
    def heads(self) -> Iterator[tuple[str, int, str]]:
        """Return each chain's tag, last sequence and last hash (hexadecimal)."""
        return ((tag, sequence, digest) for tag, sequence, digest in self._fields["heads"])

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the body, by which the next one names it."""
        return sha256(self.body.encode()).hexdigest()

    def is_signed(self, keys: PublicKeys) -> bool:
        """Tell whether one of the keys signed it.

        ``keys``: public keys by their ids, as ``{signer.key_id: signer.public_key}``.
        """
        return is_signed(keys, self.key_id, self.signature, _PURPOSE, self.body)

    def is_whole(self) -> bool:
        """Tell whether the body is as ``take_checkpoint`` writes one: a key can sign any text."""
        try:
            whole = self.at.tzinfo is not None and type(self.previous) in (str, type(None))
            return whole and all([*map(type, head)] == [str, int, str] for head in self.heads)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False

    def __str__(self) -> str:
        fields = {"body": self.body, "key_id": self.key_id, "signature": self.signature.hex()}
        return json.dumps(fields)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a checkpoint's text; raise ``ValueError`` if it is none."""
        try:
            fields = json.loads(text)
            found = cls(fields["body"], fields["key_id"], bytes.fromhex(fields["signature"]))
            if not isinstance(found.body, str) or not isinstance(found.key_id, str):
                raise TypeError
            return found
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                "not a checkpoint: it must have a body, a key_id and a signature"
            ) from error


def take_checkpoint(
    sink: SqlAuditSink, signer: Signer, previous: Checkpoint | None = None
) -> Checkpoint:
    """Sign where all chains stand now. Keep it where nobody who can write the database can write.

    Raises ``AuditChainError`` if the row of a chain cannot be read.
    """
    make_ready(sink, signer)
    query = select(chains.c.tag, chains.c.sequence, chains.c.head).order_by(chains.c.tag)
    rows = read_tables(sink.database, lambda connection: connection.execute(query).all())
    for row in rows:
        if not (is_text(row.tag) and type(row.sequence) is int and type(row.head) is bytes):
            raise AuditChainError.odd(row.tag)
    body = canonical(
        {
            "at": time_text(datetime.now(timezone.utc)),
            "heads": [[row.tag, row.sequence, row.head.hex()] for row in rows],
            "previous": None if previous is None else previous.digest,
        }
    )
    return Checkpoint(body, signer.key_id, signer.sign(_PURPOSE, body))


def append_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Append a checkpoint to a file of them, one a line, and wait until it is on the disk.

    Others that append to the file wait meanwhile. Raises ``CheckpointOrderError`` if the
    checkpoint was not taken after the last one in the file, and ``ValueError`` if the file holds
    anything else; it then stays as it is.
    """
    with open(path, "a+b", opener=private) as file:
        lock_file(file)
        file.seek(0)
        data = file.read()
        lines, rest = _split(path, data)
        last = _parse(path, len(lines), lines[-1]) if lines else None
        if last is not None and checkpoint.previous != last.digest:
            raise CheckpointOrderError(os.fspath(path))
        file.truncate(len(data) - len(rest))
        missing = b"\n" if lines and not rest and not data.endswith(b"\n") else b""
        file.write(missing + f"{checkpoint}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_checkpoints(path: str | os.PathLike[str]) -> list[Checkpoint]:
    """Read a file of checkpoints; raise ``ValueError`` for a line that is none.

    A last line that is unfinished, because its writer was killed, is skipped.
    """
    lines, _ = _split(path, Path(path).read_bytes())
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _split(path: str | os.PathLike[str], data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole lines, and the start of a last one whose writer was killed.

    Raises ``ValueError`` where the last line is neither whole nor such a start.
    """
    *lines, rest = data.split(b"\n")
    try:
        _parse(path, len(lines) + 1, rest)
    except ValueError:
        if rest[: len(_BEGINS)] == _BEGINS[: len(rest)]:
            return lines, rest
        raise
    return [*lines, rest], b""  # it is whole without its newline, which an editor may remove


def _parse(path: str | os.PathLike[str], number: int, line: bytes) -> Checkpoint:
    try:
        return Checkpoint.parse(line.decode())
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error
