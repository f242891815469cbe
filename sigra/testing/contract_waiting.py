"""The part of the conformance suite about consumers that come and go while jobs wait."""

from __future__ import annotations

import time
from typing import ClassVar

import pytest

from sigra.job import Job
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS, ContractCase
from sigra.testing.harness import ConsumerHarness, Journal


class WaitingContract(ContractCase):
    """No consumer keeps what is due later in its memory alone."""

    repeats_at_stop: ClassVar[bool] = False

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
            return [run["attempt"] for run in journal.runs_of(job)]

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
