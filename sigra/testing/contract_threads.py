"""The part of the conformance suite for producers with threads, as most web servers are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

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
        items = [{**IDS, "n": n} for n in range(40)]
        jobs = _in_threads(harness, workers.echo.new, items)
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
        for number in range(5):
            since = time.monotonic()
            new = partial(workers.echo.new, unique=f"threads {number}", delay=later)
            jobs = _in_threads(harness, new, [IDS] * _THREADS)
            begun += (taken := [job for job in jobs if not job.duplicate])
            # On a busy machine the first one's job may have run before the last one looks.
            one = len(taken) == 1 or time.monotonic() - since > later
            assert one, f"{DUPLICATE}, in one step: by a unique index, say"
        journal.wait(harness, lambda: len(journal.runs()) >= len(begun), "a job of each key")
        assert {run["job_id"] for run in journal.runs()} == {job.id for job in begun}


def _in_threads(
    harness: ConsumerHarness, new: Callable[[Any], Job], items: Sequence[dict[str, Any]]
) -> list[Job]:
    """Make a job of each item, in threads that nobody waits for if they block each other."""
    made = [Future[Job]() for _ in items]

    def make(some: slice) -> None:
        for future, item in zip(made[some], items[some], strict=True):
            try:
                future.set_result(new(item))
            except BaseException as error:
                future.set_exception(error)

    for n in range(_THREADS):
        threading.Thread(target=make, args=(slice(n, None, _THREADS),), daemon=True).start()
    late = wait(made, harness.patience).not_done
    what = f"waited {harness.patience} s for {len(late)} of {len(made)} calls of .new()"
    assert not late, f"{what} in {_THREADS} threads, which block each other"
    return [future.result() for future in made]
