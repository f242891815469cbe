"""The part of the conformance suite for queues whose jobs run in consumer processes.

Subclass ``ConsumerContract`` instead of ``BackendContract``, which it contains, and let
the ``harness`` fixture start a consumer by the queue's own command, and stop it: see
``sigra.testing.harness.ConsumerHarness``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from sigra.decorators import tenant_worker
from sigra.proxy import TenantWorker
from sigra.scope import AuditScope
from sigra.testing import contract_workers as workers
from sigra.testing.contract import BackendContract
from sigra.testing.contract_case import DELIVERIES, IDS, SHOWN
from sigra.testing.contract_routes import RouteContract
from sigra.testing.contract_threads import ThreadContract
from sigra.testing.contract_transactions import TransactionContract
from sigra.testing.contract_waiting import WaitingContract
from sigra.testing.harness import ConsumerHarness, Journal


def _undeployed() -> TenantWorker[..., None]:
    """Make a worker that this process has and no consumer can import."""

    def body(scope: AuditScope) -> None:  # noqa: ARG001 - a tenant worker has one
        raise AssertionError("no consumer has this worker")

    body.__module__ = "not_deployed"
    return tenant_worker(name="sigra.contract.undeployed")(body)


undeployed = _undeployed()


class ConsumerContract(
    BackendContract, TransactionContract, RouteContract, ThreadContract, WaitingContract
):
    """The whole suite: also what holds when consumers are killed, stopped and deployed.

    ``repeats_at_stop``: True where the queue itself, Sigra or not, may deliver a job once more
    that ended during a graceful stop.
    """

    virtual_clock = False

    def test_a_hand_built_job_without_keys_is_shown_as_failed(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Its error names the key, it is not retried, and its body never runs."""
        self._require(harness, "native")
        sent = harness.send(workers.recovers.name, {"organization_id": "acme", "failures": 1})
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert "actor_id" in (harness.failed(sent) or ""), SHOWN
        assert journal.runs() == []

    @pytest.mark.parametrize("how", ["failure", "raise"])
    def test_a_job_without_attempts_left_is_shown_as_failed(
        self, harness: ConsumerHarness, journal: Journal, how: str
    ) -> None:
        """Its error is what the body raised, or its reason; each job of a batch has its own."""
        batch = [{**IDS, "how": how}, {**IDS, "how": "value"}]
        jobs = workers.ends.new_many(batch) + asyncio.run(workers.ends.anew_many(batch))
        failed, done = ([self._native_id(job) for job in jobs[n::2]] for n in (0, 1))
        what = "a failed job of a batch, by the native id that the batch's enqueue gave it"
        for shown in failed:
            journal.wait(harness, lambda: bool(harness.failed(shown)), what)  # noqa: B023
            assert "said so" in (harness.failed(shown) or ""), SHOWN
        assert [harness.failed(other) for other in done] == [None, None]

    def test_a_cancelled_job_is_not_shown_as_done(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """The queue shows an error, or still has it: one that succeeded it would have let go."""
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "cancel"})
        done, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "value"})
        shown, other = self._native_id(job), self._native_id(done)
        journal.wait(harness, lambda: not harness.kept(other), "the end of one that is completed")
        # Where it ran beside the other, the queue may hear of it a moment later.
        journal.wait(
            harness,
            lambda: harness.kept(shown) or bool(harness.failed(shown)),
            "the cancelled job, which the queue must not let go as if it were completed",
        )

    def test_a_job_of_an_unknown_worker_is_kept(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """It waits, or is among the dead jobs, and the consumer goes on."""
        job = undeployed.new(IDS)
        self._run(harness, journal, workers.agnostic, {})
        journal.wait(
            harness,
            lambda: harness.kept(self._native_id(job)),
            "the job of an unknown worker to be kept",
        )

    def test_a_larger_priority_runs_sooner(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Of what waits when the consumer starts; as many may overtake as it runs at once."""
        self._require(harness, "priority")
        harness.stop()
        half = [IDS] * (2 + harness.concurrency)

        def both_ways(**options: Any) -> set[str]:
            jobs = workers.echo.new_many(half, **options)
            return {job.id for job in jobs + asyncio.run(workers.echo.anew_many(half, **options))}

        beside: list[dict[str, Any]] = [{}]
        if "delay" in harness.backend.capabilities:
            beside.append({"delay": self.delay})
        pairs = [(both_ways(priority=-1, **more), both_ways(**more)) for more in beside]
        time.sleep(self.delay)
        harness.start()
        count = sum(len(late | soon) for late, soon in pairs)
        journal.wait(harness, lambda: len(journal.runs()) >= count, "all of both")
        for late, soon in pairs:
            order = [id for run in journal.runs() if (id := run["job_id"]) in late | soon]
            overtook = late.intersection(order[: len(soon)])
            told = "what is enqueued has the priority that job.options.priority names, awaited or"
            assert len(overtook) <= harness.concurrency, f"{told} not, beside a delay too"

    def test_a_job_that_kills_its_process_each_time_ends(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """After max_attempts deliveries it is discarded, and the next job runs."""
        attempts = self._attempts_of(harness, journal, workers.kills, 2)
        expected = [1] if "at_most_once" in harness.backend.capabilities else [1, 1]
        assert attempts == expected, DELIVERIES

    def test_a_death_stays_an_attempt_when_the_next_one_fails(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Of three attempts one died with its consumer and two failed: the job is at its end."""
        attempts = self._attempts_of(harness, journal, workers.kills_once, 3)
        expected = [1] if "at_most_once" in harness.backend.capabilities else [1, 1, 2]
        assert attempts == expected, f"{DELIVERIES}; then go on with consumed.following()"

    def _attempts_of(
        self,
        harness: ConsumerHarness,
        journal: Journal,
        killer: TenantWorker[..., None],
        max_attempts: int,
    ) -> list[int]:
        """Have a job that kills its consumer come to its end; return which attempts were begun."""
        self._require(harness, "max_attempts", "backoff")
        at_most_once = "at_most_once" in harness.backend.capabilities
        # Not 0: the next run could end before the queue has noted that this one is retried.
        job = killer.new(IDS, max_attempts=max_attempts, backoff=1)

        def over() -> bool:
            died = not harness.alive
            if died:
                harness.start()  # as its supervisor would
            return died if at_most_once else bool(harness.failed(self._native_id(job)))

        journal.wait(harness, over, f"the end of a job that kills its consumer ({DELIVERIES})")
        self._run(harness, journal, workers.agnostic, {})
        return [run["attempt"] for run in journal.runs(killer.name)]

    def test_kill_9_in_the_middle_of_200_jobs(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """Each runs at least once, a second run of an attempt writing the same event ids.

        With ``at_most_once`` those that were running are lost, and no others.
        """
        self._require(harness, "max_attempts")
        may_be_lost = harness.concurrency * ("at_most_once" in harness.backend.capabilities)
        workers.waits.new_many([{**IDS, "seconds": 0.05}] * 200, max_attempts=3)
        journal.wait(harness, lambda: len(journal.audited("contract.ended")) >= 40, "40 jobs")
        harness.kill()
        running = journal.audited("contract.begun") - journal.audited("contract.ended")
        harness.start()
        least = 200 - may_be_lost
        journal.wait(harness, lambda: len(journal.audited("contract.ended")) >= least, "all jobs")
        if may_be_lost:
            assert running & journal.audited("contract.ended") == set()
        for action in ("contract.begun", "contract.ended"):
            events = journal.events(action)
            ids = {(event["event_id"], event["job_id"]) for event in events}
            assert len(ids) == len({job_id for _, job_id in ids})
            assert {event["attempt"] for event in events} == {1}

    def test_kill_9_again_and_again_while_jobs_are_taken(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """In whatever instant consumers die, each job comes to its end."""
        self._require(harness, "at_least_once", "max_attempts")
        workers.waits.new_many([{**IDS, "seconds": 0.02}] * 200, max_attempts=20)
        for seconds in (0.0, 0.03, 0.1, 0.3):
            harness.kill()
            harness.start()
            time.sleep(seconds)
        harness.kill()
        harness.start()
        journal.wait(harness, lambda: len(journal.audited("contract.ended")) == 200, "all jobs")

    def test_a_stop_lets_running_jobs_finish_and_loses_none(
        self, harness: ConsumerHarness, journal: Journal
    ) -> None:
        """What was begun ends; what waited runs after the next start, and nothing runs twice.

        With ``repeats_at_stop`` what ended before may do so again, writing the same events.
        """
        ours, finished = set[str](), list[str]()

        def audited(action: str) -> list[str]:
            # Jobs of the test before may run only now.
            return sorted(e["job_id"] for e in journal.events(action) if e["job_id"] in ours)

        def midway() -> bool:
            begun = audited("contract.begun")
            if len(begun) > len(ours) - 8:  # none was sent yet, or the consumer was faster
                more = workers.waits.new_many([{**IDS, "seconds": 0.5}] * 16)
                ours.update(job.id for job in more)
                return False
            return bool(begun)

        for _ in range(5):  # again where this machine was so slow that none waited any more
            journal.wait(harness, midway, "a running job, and some that wait")
            harness.stop()
            finished = audited("contract.ended")
            assert finished == audited("contract.begun")
            harness.start()
            if len(finished) < len(ours):
                break
        assert len(finished) < len(ours)
        journal.wait(harness, lambda: set(audited("contract.ended")) == ours, "the rest")
        again = (Counter(audited("contract.begun")) - Counter(ours)).elements()
        assert set(again) <= (set(finished) if self.repeats_at_stop else set())
        events = {event["event_id"] for event in journal.events("contract.begun")}
        assert len(events) == len(journal.audited("contract.begun"))
