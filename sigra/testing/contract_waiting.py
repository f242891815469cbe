"""The part of the conformance suite about jobs that wait for their moment, in a consumer or not."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, ClassVar

import pytest

from sigra.job import Job
from sigra.proxy import Worker
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import AWAY, IDS, ContractCase
from sigra.testing.harness import ConsumerHarness, Journal


class WaitingContract(ContractCase):
    """No consumer runs a job too soon, or keeps what is due later in its memory alone."""

    repeats_at_stop: ClassVar[bool] = False

    def test_nothing_runs_before_it_is_due(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Delays, moments, snoozes and backoffs are waited for, by this machine's clock."""
        self._require(harness, "delay", "run_at", "max_attempts", "backoff")
        begun = time.time()
        later = datetime.fromtimestamp(begun + self.delay, AWAY)
        workers.echo.new(IDS, delay=self.delay)
        workers.echo.new(IDS, run_at=later)
        workers.snoozes.new({**IDS, "times": 1})
        workers.recovers.new({**IDS, "failures": 1}, max_attempts=2, backoff=1)
        journal.wait(harness, lambda: len(journal.runs()) >= 6, "six runs")

        def waits(worker: Worker[..., Any]) -> list[float]:
            return [run["at"] - begun for run in journal.runs(worker.name)]

        assert min(waits(workers.echo)) >= self.delay
        for worker in (workers.snoozes, workers.recovers):
            first, second = waits(worker)
            assert second - first >= 1

    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_what_is_due_later_outlives_its_consumer(
        self, harness: ConsumerHarness, journal: Journal, end: str
    ) -> None:
        """A delayed job and a retry run after the next start; a stop costs no attempt."""
        self._require(harness, "delay", "max_attempts", "backoff")
        later = max(4 * self.delay, 3)
        args = {**IDS, "failures": 1}
        retried = workers.recovers.new(args, max_attempts=3, backoff=later)
        journal.wait(harness, lambda: bool(journal.events("contract.recovers")), "its failure")
        delayed = workers.echo.new(IDS, delay=later)
        time.sleep(later / 4)  # the queue hears of the failure, and a consumer may look ahead
        harness.stop() if end == "stop" else harness.kill()
        harness.start()

        def attempts(job: Job) -> list[int]:
            return [run["attempt"] for run in journal.runs() if run["job_id"] == job.id]

        def over() -> bool:
            return len(attempts(retried)) >= 2 and bool(attempts(delayed))

        what = f"a delayed job and a retry that waited at the consumer's {end}: the queue itself "
        what += "has to keep them, for a timer in the consumer's memory goes with it"
        journal.wait(harness, over, what)
        if end == "stop":
            runs = [attempts(retried), attempts(delayed)]
            if self.repeats_at_stop:  # and the stop took as long as they waited
                runs = [sorted(set(each)) for each in runs]
            assert runs == [[1, 2], [1]], what
