"""The common part of the conformance suite: use the backend under test, and wait for a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta, timezone
from typing import Any, ClassVar

import pytest

from sigra import config
from sigra.backend import Capability
from sigra.job import Job
from sigra.proxy import Worker
from sigra.testing.harness import Harness, Journal

AWAY = timezone(timedelta(hours=-5, minutes=-30))
"""A time zone in which few machines are: a moment is the same in each."""

IDS: dict[str, Any] = {"organization_id": "acme", "actor_id": "ann"}


class ContractCase:
    """A backend under test, and what its consumers wrote down.

    ``delay``: the seconds by which tests delay a job; a queue that supports fractions may use less.
    """

    delay: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def _on_this_backend(self, harness: Harness, journal: Journal) -> Iterator[None]:
        with config.configure(backend=harness.backend, backends={}):
            yield
            journal.clear()

    def _run(
        self,
        harness: Harness,
        journal: Journal,
        worker: Worker[..., Any],
        args: Mapping[str, Any],
        runs: int = 1,
        **options: Any,
    ) -> tuple[Job, list[dict[str, Any]]]:
        """Enqueue one job, wait until its body ran ``runs`` times, and return it and these runs."""
        name = worker.name
        job = worker.new(args, **options)

        def mine() -> list[dict[str, Any]]:
            return [run for run in journal.runs(name) if run["job_id"] == job.id]

        journal.wait(harness, lambda: len(mine()) >= runs, f"{runs} runs of {name}")
        return job, mine()

    @staticmethod
    def _require(harness: Harness, *capabilities: Capability) -> None:
        for capability in capabilities:
            if capability not in harness.backend.capabilities:
                pytest.skip(f"backend {harness.backend.name!r} does not declare {capability!r}")
