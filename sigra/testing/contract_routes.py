"""The part of the conformance suite about ``queue``: a job runs where its queue is served."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS, ContractCase
from sigra.testing.harness import Journal, RoutingHarness


class RouteContract(ContractCase):
    """A job stays in the queue that its option names."""

    def test_each_run_of_a_job_is_in_its_queue(
        self, harness: RoutingHarness, journal: Journal
    ) -> None:
        """A consumer of that queue alone runs it, and runs it again after a snooze or a failure."""
        self._require(harness, "queue", "max_attempts", "backoff")
        queue = harness.other_queue
        harness.stop()
        try:
            elsewhere = workers.agnostic.new({})
            options: dict[str, Any] = {"queue": queue, "max_attempts": 2, "backoff": 0}
            jobs = [workers.wavers.new(IDS, **options)]
            if "delay" in harness.backend.capabilities:
                jobs.append(workers.echo.new(IDS, queue=queue, delay=self.delay))
            jobs += asyncio.run(workers.echo.anew_many([IDS], queue=queue))
            count = 3 + len(jobs)

            def queues() -> list[str]:
                return [run["queue"] for run in journal.runs_of(*jobs)]

            with harness.serving(queue):
                what = f"{count} runs in the queue {queue!r}, which alone is served: four of a job"
                what += " that snoozes and fails, one of each other, delayed or not. Each has to be"
                what += " in the queue that job.options.queue names"
                journal.wait(harness, lambda: len(queues()) >= count, what)
                assert not journal.runs_of(elsewhere), (
                    "the harness's serving(queue) has to serve that queue alone"
                )
        finally:
            harness.start()
        assert queues() == [queue] * count, "so the bodies read their queue's name, in job.queue"
        what = "the job that was sent to no queue by name"
        journal.wait(harness, lambda: bool(journal.runs_of(elsewhere)), what)

    def test_of_two_consumers_one_runs_a_job(
        self, harness: RoutingHarness, journal: Journal
    ) -> None:
        """Each job is begun once: those that both may take, and one that ran as the other came."""
        self._require(harness, "queue")
        queue = harness.other_queue
        options: dict[str, Any] = {"queue": queue}
        if "max_attempts" in harness.backend.capabilities:
            options["max_attempts"] = 2  # with one, a second delivery that is counted runs nothing
        since = time.monotonic()
        with harness.serving(queue):
            took = time.monotonic() - since
            # So long that it should still run when the other consumer has come.
            args = {**IDS, "seconds": min(2 * took, 3.0)}
            jobs = [workers.waits.new(args, **options)]
            first = {jobs[0].id}
            journal.wait(
                harness, lambda: first <= journal.audited("contract.begun"), "the first job"
            )
            with harness.serving(queue):
                jobs += workers.waits.new_many([{**IDS, "seconds": 0.05}] * 40, **options)

                def over() -> bool:
                    return journal.audited("contract.ended") >= {job.id for job in jobs}

                what = f"41 jobs in the queue {queue!r}, which two consumers serve"
                journal.wait(harness, over, what)
        ours = {job.id for job in jobs}
        events = journal.events("contract.begun")
        begun = Counter(event["job_id"] for event in events if event["job_id"] in ours)
        assert begun == Counter(ours), "a consumer has to take a job so that no other can"
