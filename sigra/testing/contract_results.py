"""The part of the conformance suite about ``result``: what a job answers to its producer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sigra.errors import JobCancelledError, JobFailedError
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS, ContractCase
from sigra.testing.harness import Harness, Journal


class ResultContract(ContractCase):
    """A job tells where it stands, and gives or raises what it ended with."""

    @pytest.mark.parametrize(("how", "value"), [("value", {"done": True}), ("nothing", None)])
    def test_a_result_can_be_asked_for(
        self, harness: Harness, journal: Journal, how: str, value: Any
    ) -> None:
        """The job tells its state and its value once it is done."""
        self._require(harness, "result")
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": how})
        assert job.result(timeout=harness.patience) == value
        assert asyncio.run(job.aresult(timeout=harness.patience)) == value
        assert job.state == "completed"

    def test_a_result_that_is_false_is_no_none(self, harness: Harness, journal: Journal) -> None:
        """Zero, nothing at all and "no" are results as others are."""
        self._require(harness, "result")
        values = [0, "", [], {}, False]
        jobs = workers.echo.new_many([{**IDS, "value": value} for value in values])
        journal.wait(harness, lambda: len(journal.runs()) >= len(jobs), "a job of each value")
        results = [job.result(timeout=harness.patience) for job in jobs]
        assert repr(results) == repr(values)

    @pytest.mark.parametrize(
        ("how", "error", "state"),
        [
            ("failure", JobFailedError, "discarded"),
            ("cancel", JobCancelledError, "cancelled"),
            ("raise", ValueError, "discarded"),
        ],
    )
    def test_the_result_of_a_job_that_failed_is_raised(
        self, harness: Harness, journal: Journal, how: str, error: type[Exception], state: str
    ) -> None:
        """It is the function's own exception, or the error that stands for its outcome."""
        self._require(harness, "result")
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": how})
        with pytest.raises(error, match="said so"):
            job.result(timeout=harness.patience)
        with pytest.raises(error, match="said so"):
            asyncio.run(job.aresult(timeout=harness.patience))
        assert job.state == state

    def test_a_job_that_is_to_be_retried_has_no_result(
        self, harness: Harness, journal: Journal
    ) -> None:
        """Its first attempt's error is not its end, for which somebody may wait."""
        self._require(harness, "result", "max_attempts", "backoff")
        options: dict[str, Any] = {"max_attempts": 2, "backoff": 1}
        args = {**IDS, "failures": 1}
        job, _ = self._run(harness, journal, workers.recovers, args, **options)
        seen, answers = set[str](), set[str]()

        def answer() -> str:
            try:
                return str(job.result(timeout=0))
            except TimeoutError:
                return "none yet"

        def over() -> bool:
            seen.add(job.state)
            answers.add(answer())
            return job.state == "completed"

        journal.wait(harness, over, "its second attempt")
        assert seen <= {"executing", "retryable", "available", "completed"}
        told = "result(timeout) has to raise TimeoutError while the job has not ended"
        assert answers <= {"none yet", "recovered"}, told
        assert job.result(timeout=harness.patience) == "recovered"
