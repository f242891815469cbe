"""One who keeps a store, in a process of its own: ``python keeper.py URL FOLDER TASK``.

It logs events and does its task, again and again until it is killed, and prints a line for each
thing that begins and each that is done. The folder has the keys, the newest of which signs, and
the file of checkpoints.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sigra import AuditEvent, AuditScope, configure, log_safe
from sigra.store import (
    Signer,
    SqlAuditSink,
    append_checkpoint,
    erase,
    prune,
    read_checkpoints,
    take_checkpoint,
)

KEPT = ("kept 0", "kept 1", None)
SHORT = ("short 0", "short 1")
"""Organizations whose events are pruned soon."""


class Keeper:
    """A store, and what whoever keeps it does."""

    def __init__(self, url: str, folder: Path) -> None:
        self.sink, self.folder = SqlAuditSink(url), folder
        self.checkpoints = folder / "checkpoints"
        if not any(folder.glob("*.pem")):
            self.new_key()

    def signer(self) -> Signer:
        return signers(self.folder)[-1]

    def new_key(self) -> None:
        pem = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        name = f"{len(list(self.folder.glob('*.pem'))):06}.pem"
        half = self.folder / f"{name}.half"
        half.write_bytes(pem)
        os.replace(half, self.folder / name)

    def append(self) -> None:
        for organization in (*KEPT, *SHORT):
            self.log(organization, "ann")

    def checkpoint(self) -> None:
        there = self.checkpoints.exists()
        previous = (read_checkpoints(self.checkpoints) if there else None) or [None]
        taken = take_checkpoint(self.sink, self.signer(), previous[-1])
        append_checkpoint(self.checkpoints, taken)
        say("checkpoint", taken.digest)

    def prune(self) -> None:
        before = datetime.now(timezone.utc)
        say("pruning", before.isoformat())
        for organization in SHORT:
            for _ in prune(self.sink, before, reason="old", signer=self.signer(), batch=2,
                           organization_id=organization):  # fmt: skip
                pass

    def erase(self) -> None:
        person = uuid.uuid4().hex
        for organization in (*KEPT, *SHORT):
            self.log(organization, person)
        say("erasing", person)
        erase(self.sink, person, reason="asked", signer=self.signer(), all_organizations=True)
        say("erased", person)

    def rotate(self) -> None:
        self.new_key()
        self.checkpoint()

    def log(self, organization: str | None, actor: str) -> None:
        scope = AuditScope.build(actor_id=actor, organization_id=organization)
        result = log_safe("invoice.close", scope)
        if result.status != "emitted" or result.event is None:
            sys.exit(f"{result.status}: {result.reason}")
        event = result.event
        say("event", event.event_id, event.occurred_at.isoformat(), organization or "none")


TASKS = ("append", "checkpoint", "prune", "erase", "rotate")


def signers(folder: Path) -> list[Signer]:
    """Return the keys that there ever were, the oldest first."""
    return [Signer.from_pem(path.read_bytes()) for path in sorted(folder.glob("*.pem"))]


def say(*words: str) -> None:
    os.write(1, ("\t".join(words) + "\n").encode())


def main(url: str, folder: str, task: str) -> None:
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    keeper = Keeper(url, Path(folder))
    with configure(sinks=[keeper.sink], audit_schema=AuditEvent):
        for _ in itertools.count():
            keeper.append()
            say("begin", task)
            getattr(keeper, task)()
            say("done", task)


if __name__ == "__main__":
    main(*sys.argv[1:])
