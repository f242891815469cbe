"""How the conformance suite talks to the backend under test."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sigra.backend import Backend
from sigra.testing.contract_workers import EVENTS, RECORD


class Harness(Protocol):
    """What a test file offers of its queue, for the whole suite.

    ``backend``: what jobs are enqueued on. ``patience``: seconds after which a job
    that did not arrive counts as lost.
    """

    backend: Backend
    patience: float

    def advance(self) -> None:
        """Do what lets due and future jobs run: drain a virtual clock, or wait a moment."""

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        """Send a payload to the task ``name`` by the queue's own API.

        Called only where the backend declares the capability ``native``.
        """


class Journal:
    """What the suite's workers wrote down, in whatever process they ran."""

    def __init__(self, folder: Path) -> None:
        self._record, self._events = folder / "record.jsonl", folder / "events.jsonl"
        for path in (self._record, self._events):
            path.touch()
        os.environ[RECORD], os.environ[EVENTS] = str(self._record), str(self._events)

    def runs(self, worker: str | None = None) -> list[dict[str, Any]]:
        """Return what the bodies recorded, of one worker or of all."""
        return [line for line in _lines(self._record) if worker in (None, line["worker"])]

    def events(self, action: str | None = None) -> list[dict[str, Any]]:
        """Return the audit events, of one action or of all."""
        return [line for line in _lines(self._events) if action in (None, line["action"])]

    def clear(self) -> None:
        """Forget what was recorded."""
        for path in (self._record, self._events):
            os.truncate(path, 0)

    def wait(self, harness: Harness, done: Callable[[], bool], what: str) -> None:
        """Advance the queue until ``done()``; fail after the harness's patience."""
        deadline = time.monotonic() + harness.patience
        while not done():
            harness.advance()
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {harness.patience} s for {what}; runs: {self.runs()}")


def _lines(path: Path) -> list[dict[str, Any]]:
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in complete.split(b"\n") if line]
