"""The part of the conformance suite for producers with threads, as most web servers are."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sigra.job import Job
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import DUPLICATE, IDS, ContractCase
from sigra.testing.harness import ConsumerHarness, Journal

_THREADS = 8


class ThreadContract(ContractCase):
    """What several threads enqueue at once arrives as what one thread does."""

    def test_jobs_of_several_threads_arrive(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Each runs once, with its own args."""
        with ThreadPoolExecutor(_THREADS) as threads:
            jobs = list(threads.map(workers.echo.new, [{**IDS, "n": n} for n in range(40)]))
        journal.wait(harness, lambda: len(journal.runs()) >= 40, "40 jobs of several threads")
        self._run(harness, journal, workers.agnostic, {})
        arrived = [(run["job_id"], run["args"]["n"]) for run in journal.runs(workers.echo.name)]
        assert sorted(arrived) == sorted((job.id, n) for n, job in enumerate(jobs))

    def test_of_several_threads_one_enqueues_a_job_under_a_key(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """The others' jobs are duplicates, though all threads look for the key at the same time."""
        self._require(harness, "unique", "delay")
        begun, later = list[Job](), max(4 * self.delay, 3)
        with ThreadPoolExecutor(_THREADS) as threads:
            for number in range(5):
                since = time.monotonic()
                new = partial(workers.echo.new, unique=f"threads {number}", delay=later)
                jobs = list(threads.map(new, [IDS] * _THREADS))
                begun += (taken := [job for job in jobs if not job.duplicate])
                # On a busy machine the first one's job may have run before the last one looks.
                one = len(taken) == 1 or time.monotonic() - since > later
                assert one, f"{DUPLICATE}, in one step: by a unique index, say"
        journal.wait(harness, lambda: len(journal.runs()) >= len(begun), "a job of each key")
        assert {run["job_id"] for run in journal.runs()} == {job.id for job in begun}
