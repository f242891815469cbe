"""Exporting events: one file an organization, and a manifest by which they are checked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Unpack

from sqlalchemy import select

from sigra.audit.event import EVENT_FIELDS
from sigra.store.access import read_tables
from sigra.store.chain import organization_of, time_text
from sigra.store.database import Database
from sigra.store.errors import AuditChainError
from sigra.store.formats import FORMATS, Format
from sigra.store.keys import Signer
from sigra.store.manifest import MANIFEST, Exported, Manifest, digest_of, write_manifest
from sigra.store.private import make_folder
from sigra.store.query import is_place, of_tenancy, read_chain
from sigra.store.reading import EventFilter, Tenancy, tenancy
from sigra.store.ready import make_ready
from sigra.store.sink import SqlAuditSink
from sigra.store.stored import event_of, hex_shown, is_text, shown
from sigra.store.strays import check_rows
from sigra.store.tables import chains

_LONGEST_NAME = 120
_PLAIN = frozenset(f"{ascii_lowercase}{digits}-._")

Progress = Callable[[int], object]
"""Called with the number of events that are written so far."""


def export(
    sink: SqlAuditSink,
    folder: str | Path,
    *,
    format: Format = "jsonl",
    signer: Signer | None = None,
    progress: Progress | None = None,
    **which: Unpack[Tenancy],
) -> Manifest:
    """Write the events of one organization, or of all, into a new folder; return its manifest.

    Each organization's events go into a file of their own, in the order of its chain, a few in
    memory at a time. ``manifest.json`` is written last; it has the count and the SHA-256 of each
    file, signed if there is a signer. ``format`` is "jsonl", "csv" (for spreadsheets: formulas
    and invisible characters become plain text) or "parquet" (needs ``sigra[parquet]``). Raises
    ``FileExistsError`` if the folder is not empty, and ``AuditChainError``.
    """
    make = FORMATS.get(format)
    if make is None:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    place, found = Path(folder), tenancy(**which)
    make_ready(sink, signer)
    writer = make()  # before the folder: its package may be missing
    _claim(place)
    files, before = list[Exported](), 0
    for chain in _chains(sink.database, found):
        path, last = place / f"{_file_name(chain.tag)}.{format}", 0
        with writer.open(path) as write:
            for rows in read_chain(sink.database, chain.id, found):
                write([_fields(row) for row in rows])
                last = max((row.sequence for row in rows if is_place(row)), default=last)
                if progress is not None:
                    progress(before + writer.written)
        before += writer.written
        digest = digest_of(path)
        files.append(Exported(organization_of(chain.tag), path.name, writer.written, last, digest))
    manifest = Manifest(format, time_text(datetime.now(timezone.utc)), tuple(files))
    write_manifest(place / MANIFEST, manifest, signer)
    return manifest


def _claim(folder: Path) -> None:
    make_folder(folder)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: export into a new or an empty folder")


def _chains(database: Database, which: EventFilter) -> list[Any]:
    query = of_tenancy(select(chains.c.id, chains.c.tag).order_by(chains.c.tag), which)
    found = read_tables(database, lambda connection: list(connection.execute(query)))
    check_rows(database, which)
    before = None
    for chain in found:
        if not is_text(chain.tag) or chain.tag == before:
            raise AuditChainError.odd(chain.tag)
        before = chain.tag
    return found


def _fields(row: Any) -> dict[str, Any]:
    event = event_of(row)
    fields = {name: getattr(event, name) for name in EVENT_FIELDS}
    fields["occurred_at"] = shown(row.occurred_at)
    sequence = row.sequence if type(row.sequence) is int else None
    return {**fields, "sequence": sequence, "hash": hex_shown(row.hash)}


def _file_name(tag: str) -> str:
    """Return the name of a chain's file: in the folder, and no other chain's name.

    All but lower-case letters, digits and ``-._`` is escaped: some file systems take A for a.
    """
    signs = (chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in tag.encode())
    name = "".join(signs)
    return name if len(name) <= _LONGEST_NAME else f"sha256-{sha256(tag.encode()).hexdigest()}"
