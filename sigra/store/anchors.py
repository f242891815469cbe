"""What checkpoints, kept outside the database, say of each chain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from sigra.store.check import Anchored
from sigra.store.checkpoint import Checkpoint
from sigra.store.keys import PublicKeys
from sigra.store.report import Finding


class Anchors:
    """The heads in the checkpoints that are signed, and findings about the checkpoints.

    ``last`` is the last one that is signed and whole, None where there is none.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], keys: PublicKeys) -> None:
        self.findings: list[Finding] = []
        self.last: Checkpoint | None = None
        self._hashes: dict[str, dict[int, str]] = defaultdict(dict)
        for number, kept in enumerate(checkpoints, 1):
            checkpoint = replace(kept)  # what is parsed of it then goes with it
            if not checkpoint.is_signed(keys):
                self._find(number, f"none of the keys signed it: {_whose(checkpoint, keys)}")
                continue
            if not checkpoint.is_whole():
                self._find(number, "it is signed, but its body is none that is ever written")
                continue
            if self.last is not None and checkpoint.previous != self.last.digest:
                self._find(number, "it does not follow the one before")
            self.last = checkpoint
            for tag, sequence, digest in checkpoint.heads:
                if self._hashes[tag].setdefault(sequence, digest) != digest:
                    self._find(number, f"an earlier one has another hash for {tag} at {sequence}")

    def _find(self, number: int, reason: str) -> None:
        self.findings.append(Finding(None, 0, None, "forged", f"checkpoint {number}: {reason}"))

    @property
    def tags(self) -> set[str]:
        """Return the tags of chains that have entries in a checkpoint."""
        return {tag for tag, hashes in self._hashes.items() if max(hashes, default=0) > 0}

    def of_chain(self, tag: str) -> Anchored:
        """Return the hashes that checkpoints have of a chain."""
        hashes = {number: digest for number, digest in self._hashes[tag].items() if number}
        return Anchored(hashes, max(hashes, default=0))


def _whose(checkpoint: Checkpoint, keys: PublicKeys) -> str:
    """Tell a key that was not given from a text that its key did not sign."""
    named = str(checkpoint.key_id)[:16]
    if checkpoint.key_id in keys:
        return f"it names the key {named}, whose signature this is not"
    return f"it names the key {named}, and not one of those given ({', '.join(sorted(keys))})"
