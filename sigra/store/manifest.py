"""The manifest of an export: which files belong to it, and what is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from sigra.store.canonical import canonical
from sigra.store.keys import Signer, by_id, is_signed
from sigra.store.private import private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST = "manifest.json"
_PURPOSE = "export"


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of an export: whose events, how many, and the sequence of the last in the chain."""

    organization_id: str | None
    file: str
    events: int
    sequence: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export consists of. ``at`` is when it was complete (ISO 8601, UTC)."""

    format: str
    at: str
    files: tuple[Exported, ...]

    @property
    def events(self) -> int:
        """Return how many events there are in all files."""
        return sum(file.events for file in self.files)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file (hexadecimal), with little of it in memory at a time."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def write_manifest(path: Path, manifest: Manifest, signer: Signer | None) -> None:
    """Write the manifest, signed if there is a signer, and have it on the disk."""
    body = canonical(asdict(manifest) | {"files": [asdict(file) for file in manifest.files]})
    fields = {"body": body}
    if signer is not None:
        fields |= {"key_id": signer.key_id, "signature": signer.sign(_PURPOSE, body).hex()}
    with open(path, "x", encoding="ascii", opener=private) as file:
        json.dump(fields, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def verify_export(folder: str | Path, public_keys: Iterable[Ed25519PublicKey] = ()) -> list[str]:
    """Check an export's files against its manifest; return what is wrong, [] if nothing is.

    Without ``public_keys`` only the files are checked, and whoever changed them may have
    changed the manifest too. Raises ``ValueError`` where there is no manifest to read.
    """
    place, keys = Path(folder), by_id(public_keys)
    try:
        fields = json.loads((place / MANIFEST).read_bytes())
        body, signature = fields["body"], bytes.fromhex(fields.get("signature", ""))
        files = [Exported(**file) for file in json.loads(body)["files"]]
        paths = [place / Path(file.file).name for file in files]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{place} has no manifest that can be read: {error}") from error
    wrong = []
    if keys and not is_signed(keys, fields.get("key_id"), signature, _PURPOSE, body):
        wrong.append(f"{MANIFEST} is not signed by one of the keys")
    for file, path in zip(files, paths, strict=True):
        if not os.path.isfile(path):  # unlike Path's, False also for what cannot be a path
            wrong.append(f"{file.file} is missing")
        elif digest_of(path) != file.sha256:
            wrong.append(f"{file.file} was changed: its SHA-256 is another")
    known = {MANIFEST, *(file.file for file in files)}
    strays = sorted(path.name for path in place.iterdir() if path.name not in known)
    return wrong + [f"{name} does not belong to the export" for name in strays]
