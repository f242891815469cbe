"""The part of the conformance suite about ``conn``: a job in its producer's transaction."""

from __future__ import annotations

from typing import Any

import pytest

from sigra.job import Job
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS, ContractCase
from sigra.testing.harness import Journal, TransactingHarness

by_both = pytest.mark.parametrize("awaited", [False, True], ids=["new", "anew"])


class _Batch:
    """What a harness takes for a worker: its new job is the first of a batch."""

    jobs: tuple[Job, ...] = ()

    def new(self, args: Any, **options: Any) -> Job:
        self.jobs = (*workers.echo.new_many([args] * 2, **options),)
        return self.jobs[0]

    async def anew(self, args: Any, **options: Any) -> Job:
        self.jobs = (*await workers.echo.anew_many([args] * 2, **options),)
        return self.jobs[0]


class TransactionContract(ContractCase):
    """A job enqueued with ``conn`` shares the fate of what else was written there."""

    @by_both
    def test_a_transaction_that_rolls_back_leaves_no_job(
        self, harness: TransactingHarness, journal: Journal, awaited: bool
    ) -> None:
        """It never runs, and the queue holds nothing of it, nor of a batch."""
        self._require(harness, "conn")
        batch: Any = _Batch()
        alone = harness.transact(workers.echo, IDS, commit=False, awaited=awaited)
        harness.transact(batch, IDS, commit=False, awaited=awaited)
        self._run(harness, journal, workers.agnostic, {})
        kept = [harness.kept(self._native_id(job)) for job in (alone, *batch.jobs)]
        found = journal.runs(workers.echo.name) or any(kept)
        assert not found, "the job has to be written by job.options.conn, and not to be committed"

    @by_both
    def test_a_transaction_that_commits_leaves_one_job(
        self, harness: TransactingHarness, journal: Journal, awaited: bool
    ) -> None:
        """It runs once."""
        self._require(harness, "conn")
        job = harness.transact(workers.echo, IDS, commit=True, awaited=awaited)
        journal.wait(harness, lambda: bool(journal.runs(workers.echo.name)), "the job")
        self._run(harness, journal, workers.agnostic, {})
        assert [run["job_id"] for run in journal.runs(workers.echo.name)] == [job.id]

    @by_both
    def test_a_job_of_a_transaction_has_its_options(
        self, harness: TransactingHarness, journal: Journal, awaited: bool
    ) -> None:
        """It waits for its moment, as one that is enqueued without a transaction."""
        self._require(harness, "conn", "delay")
        job = harness.transact(workers.postponed, IDS, commit=True, awaited=awaited)
        journal.wait(harness, lambda: bool(journal.runs(job.worker)), "the delayed job")
        waited = journal.runs(job.worker)[0]["at"] - job.enqueued_at.timestamp()
        assert waited >= workers.POSTPONED, "job.options count beside a conn too"
