"""The part of the conformance suite about ``unique``: one unfinished job of a worker has a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from sigra.job import Job
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import DUPLICATE, IDS, ContractCase
from sigra.testing.harness import Harness, Journal
from sigra.workers import for_each_organization


class UniqueContract(ContractCase):
    """A key is held while its job is unfinished, and no longer."""

    def test_a_unique_key_holds_while_the_job_is_unfinished(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A second job under the key is not enqueued, and says so; a later one is."""
        self._require(harness, "unique", "delay")

        def twice(key: str, delay: float) -> list[Job]:
            job = workers.echo.new(IDS, unique=key, delay=delay)
            return [job, asyncio.run(workers.echo.anew(IDS, unique=key, delay=delay))]

        first, second = self._in_time(twice)
        assert (first.duplicate, second.duplicate) == (False, True), DUPLICATE
        told = "a duplicate has the native id of the job that holds its key, or None"
        assert second.native_id in (first.native_id or first.id, None), told
        jobs = [first, second]

        def runs() -> int:
            return len(journal.runs_of(*jobs))

        def taken() -> bool:
            # The body has run, but the queue may not have heard of it yet.
            jobs.append(workers.echo.new(IDS, unique=first.options.unique or ""))
            return not jobs[-1].duplicate

        journal.wait(harness, lambda: runs() >= 1, "the first job")
        journal.wait(harness, taken, "the key to be free")
        journal.wait(harness, lambda: runs() >= 2, "the later job")
        self._run(harness, journal, workers.agnostic, {})
        assert runs() == 2

    def _in_time(self, make: Callable[[str, float], list[Job]]) -> list[Job]:
        """Make jobs by a key and a delay, and again where a busy machine took as long as that."""
        later = max(4 * self.delay, 3)
        number, begun, jobs = 0, 0.0, list[Job]()
        while not jobs or time.monotonic() - begun > later:
            number, begun = number + 1, time.monotonic()
            jobs = make(f"k{number}", later)
        return jobs

    def test_a_unique_key_is_one_worker_s(self, harness: Harness, journal: Journal) -> None:
        """A job of another worker under the same key is enqueued."""
        self._require(harness, "unique", "delay")
        first = workers.echo.new(IDS, unique="k", delay=self.delay)
        other = workers.echo_async.new(IDS, unique="k", delay=self.delay)
        assert (first.duplicate, other.duplicate) == (False, False), (
            "the key is that of one worker: keep unique_key(job), not job.options.unique"
        )
        journal.wait(harness, lambda: len(journal.runs()) >= 2, "both jobs")

    def test_unique_keys_that_look_alike_are_different(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A database may take upper case for lower, leave spaces out, or cut off a long text."""
        self._require(harness, "unique", "delay")
        keys = ["Mail", "mail", "mail ", " mail", "ma\u00efl", "mai\u0308l"]
        keys += ["mail" * 100 + end for end in ("1", "2")]
        jobs = [workers.echo.new(IDS, unique=key, delay=self.delay) for key in keys]
        alike = [key for key, job in zip(keys, jobs, strict=True) if job.duplicate]
        assert not alike, f"unique_key(job) has to be compared, and kept, to its last byte: {alike}"
        journal.wait(harness, lambda: len(journal.runs()) >= len(keys), "a job of each key")

    def test_of_a_batch_under_one_unique_key_one_job_is_enqueued(
        self, harness: Harness, journal: Journal
    ) -> None:
        """The others are duplicates of the first, as in calls one after the other."""
        self._require(harness, "unique", "delay")
        jobs = workers.echo.new_many([IDS] * 3, unique="batch", delay=self.delay)
        assert [job.duplicate for job in jobs] == [False, True, True], DUPLICATE
        journal.wait(harness, lambda: bool(journal.runs()), "the first")
        self._run(harness, journal, workers.agnostic, {})
        assert [run["job_id"] for run in journal.runs(workers.echo.name)] == [jobs[0].id]

    def test_of_a_batch_each_job_has_its_own_unique_key(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job for each organization, of a round that two schedulers made, runs once."""
        self._require(harness, "unique", "delay")

        def round_twice(tick: str, delay: float) -> list[Job]:
            ours = ["acme", "globex"]
            first = for_each_organization(workers.echo, ours, tick=tick, delay=delay)
            return first + for_each_organization(workers.echo, ours, tick=tick, delay=delay)

        jobs = self._in_time(round_twice)
        assert [job.duplicate for job in jobs] == [False, False, True, True], DUPLICATE
        for job in jobs[:2]:
            journal.wait(harness, lambda: len(journal.runs_of(job)) == 1, "each organization's job")  # noqa: B023

    def test_a_unique_key_holds_while_a_retry_waits(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job that failed and has attempts left is unfinished."""
        self._require(harness, "unique", "max_attempts", "backoff")
        options: dict[str, Any] = {"max_attempts": 2, "backoff": max(2 * self.delay, 1)}
        job = workers.recovers.new({**IDS, "failures": 1}, unique="k", **options)
        self._holds_till_it_runs_again(
            harness, journal, job, lambda: workers.recovers.new({**IDS, "failures": 0}, unique="k")
        )

    def test_a_unique_key_holds_while_a_snooze_lasts(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job that snoozes is unfinished."""
        self._require(harness, "unique")
        job = workers.snoozes.new({**IDS, "times": 1}, unique="k")
        self._holds_till_it_runs_again(
            harness, journal, job, lambda: workers.snoozes.new({**IDS, "times": 0}, unique="k")
        )

    @staticmethod
    def _holds_till_it_runs_again(
        harness: Harness, journal: Journal, job: Job, new: Callable[[], Job]
    ) -> None:
        refused = list[bool]()

        def over() -> bool:
            begun = len(journal.runs_of(job))
            if begun == 1:
                again = new()
                if len(journal.runs_of(job)) == 1:  # the second run has not ended meanwhile
                    refused.append(again.duplicate)
            return begun >= 2

        journal.wait(harness, over, "its second run")
        assert set(refused) <= {True}, DUPLICATE

    @pytest.mark.parametrize("how", ["failure", "cancel", "raise"])
    def test_a_job_that_failed_for_good_gives_its_unique_key_up(
        self, harness: Harness, journal: Journal, how: str
    ) -> None:
        """Though the queue may keep it among the dead ones."""
        self._require(harness, "unique")
        args = {**IDS, "how": how}
        job, _ = self._run(harness, journal, workers.ends, args, unique=how)
        later = list[Job]()

        def taken() -> bool:
            later.append(workers.ends.new(args, unique=how))
            return not later[-1].duplicate

        journal.wait(harness, taken, "the key to be free")
        journal.wait(harness, lambda: len(journal.runs_of(later[-1])) == 1, "the later job")
        assert len(journal.runs_of(job)) == 1
