"""The part of the conformance suite about time: no job runs before it is due."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sigra.job import Job
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import AWAY, IDS, ContractCase
from sigra.testing.harness import Harness, Journal


class DueContract(ContractCase):
    """Nothing runs before it is due, by this machine's clock or by a virtual one."""

    # Whether advance() may move a clock of its own.
    virtual_clock: ClassVar[bool] = True

    def test_a_delayed_job_runs_later(self, harness: Harness, journal: Journal) -> None:
        """A delay, or a moment in the future, is honoured."""
        self._require(harness, "delay", "run_at")
        begun = time.time()
        later = datetime.fromtimestamp(begun + self.delay, AWAY)
        delayed = workers.echo.new(IDS, delay=self.delay)
        scheduled = workers.echo.new(IDS, run_at=later)
        awaited = asyncio.run(workers.echo.anew(IDS, delay=self.delay))
        workers.agnostic.new({})
        journal.wait(harness, lambda: len(journal.runs()) >= 4, "the delayed jobs")
        assert {run["job_id"] for run in journal.runs("sigra.contract.echo")} == {
            delayed.id,
            scheduled.id,
            awaited.id,
        }
        self._waited(journal, workers.echo.name, begun + self.delay)

    def test_a_job_whose_moment_is_past_runs(self, harness: Harness, journal: Journal) -> None:
        """It is due, however long that has been so."""
        self._require(harness, "run_at")
        past = datetime.now(AWAY) - timedelta(days=400)
        self._run(harness, journal, workers.echo, IDS, run_at=past)

    def test_a_snoozed_job_runs_later(self, harness: Harness, journal: Journal) -> None:
        """The seconds of a snooze are waited for."""
        job, runs = self._run(harness, journal, workers.snoozes, {**IDS, "times": 1})
        self._goes_on(harness, journal, job, runs[0]["at"] + 1)

    def test_a_failed_job_runs_again_later(self, harness: Harness, journal: Journal) -> None:
        """A backoff is waited for."""
        self._require(harness, "max_attempts", "backoff")
        options: dict[str, Any] = {"max_attempts": 2, "backoff": self.delay}
        args = {**IDS, "failures": 1}
        job, runs = self._run(harness, journal, workers.recovers, args, **options)
        self._goes_on(harness, journal, job, runs[0]["at"] + self.delay)

    def _goes_on(self, harness: Harness, journal: Journal, job: Job, due: float) -> None:
        workers.agnostic.new({})
        journal.wait(harness, lambda: len(journal.runs()) >= 3, "its second run")
        assert [run["job_id"] for run in journal.runs(job.worker)] == [job.id] * 2
        self._waited(journal, job.worker, due, earlier=1)

    def _waited(self, journal: Journal, worker: str, due: float, earlier: int = 0) -> None:
        """Assert that the runs of ``worker``, but for the ``earlier`` ones, were not too soon.

        A virtual clock moves ahead once what was due has run: after the run of the agnostic worker.
        """
        order = [run["worker"] for run in journal.runs()]
        since = order.index(workers.agnostic.name) if self.virtual_clock else len(order)
        runs = [(n, run) for n, run in enumerate(journal.runs()) if run["worker"] == worker]
        for place, run in runs[earlier:]:
            early = f"{worker} ran {due - run['at']:.3f} s before it was due"
            assert run["at"] >= due or place > since, early
