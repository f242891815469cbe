"""The conformance suite: what every backend, ours and others', must pass.

Subclass ``BackendContract`` in a test file and give it two fixtures: ``harness`` (see
``sigra.testing.harness.Harness``) and ``journal`` (a ``Journal`` on a folder of its
own). Consumers import ``sigra.testing.contract_workers`` and call its
``record_events()``. A case is skipped only where the backend's own capabilities lack
what it needs.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from sigra.errors import InvalidArgsError, InvalidOptionError, MissingTenantKeysError
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS
from sigra.testing.contract_due import DueContract
from sigra.testing.contract_outcomes import OutcomeContract
from sigra.testing.contract_results import ResultContract
from sigra.testing.contract_unique import UniqueContract
from sigra.testing.harness import Harness, Journal


class BackendContract(OutcomeContract, ResultContract, DueContract, UniqueContract):
    """The suite that a backend must pass: subclass it, beside fixtures ``harness`` and ``journal``.

    Each test is one promise; one is skipped where a capability is not declared. ``delay``: the
    seconds by which tests delay a job (1); a queue that supports fractions may use less.
    """

    def test_absent_keys_fail_at_enqueue_and_reach_no_consumer(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job without its tenant keys is refused by name and nothing is sent."""
        with pytest.raises(MissingTenantKeysError) as caught:
            workers.echo.new({"organization_id": "acme"})
        assert caught.value.missing == ("actor_id",)
        self._run(harness, journal, workers.echo, IDS)
        assert len(journal.runs()) == 1

    def test_a_bad_item_stops_the_whole_batch(self, harness: Harness, journal: Journal) -> None:
        """Of a batch with one bad item no job is enqueued."""
        with pytest.raises(InvalidArgsError) as caught:
            workers.echo.new_many([IDS, {**IDS, "x": float("nan")}])
        assert caught.value.index == 1
        self._run(harness, journal, workers.agnostic, {})
        assert journal.runs("sigra.contract.echo") == []

    def test_a_batch_arrives_whole(self, harness: Harness, journal: Journal) -> None:
        """Each item of a batch runs once, with its own args."""
        jobs = workers.echo.new_many([{**IDS, "n": n} for n in range(20)])
        journal.wait(harness, lambda: len(journal.runs()) >= 20, "20 jobs")
        self._run(harness, journal, workers.agnostic, {})
        arrived = [(run["job_id"], run["args"]["n"]) for run in journal.runs(workers.echo.name)]
        assert sorted(arrived) == sorted((job.id, n) for n, job in enumerate(jobs))

    def test_an_asynchronous_batch_arrives_whole(self, harness: Harness, journal: Journal) -> None:
        """What ``await .anew_many()`` enqueues arrives as what ``.new_many()`` does."""
        jobs = asyncio.run(workers.echo.anew_many([{**IDS, "n": n} for n in range(3)]))
        journal.wait(harness, lambda: len(journal.runs()) >= 3, "3 jobs")
        arrived = {run["job_id"]: run["args"]["n"] for run in journal.runs()}
        assert arrived == {job.id: n for n, job in enumerate(jobs)}

    def test_scope_args_and_job_are_injected(self, harness: Harness, journal: Journal) -> None:
        """The body receives its scope, its read-only args and its own job's facts."""
        args = {**IDS, "impersonating_from": "eve", "value": 1}
        job, (run,) = self._run(harness, journal, workers.echo, args)
        assert run["organization_id"] == "acme"
        assert run["actor_id"] == "ann"
        assert run["impersonating_from"] == "eve"
        assert run["args"] == args
        assert (run["frozen"], run["same_job"]) == (True, True)
        assert (run["attempt"], run["max_attempts"], run["snoozes"]) == (1, 1, 0)
        assert run["enqueued_at"] == job.enqueued_at.isoformat()
        assert run["backend"] == job.backend == harness.backend.name

    def test_args_are_bound_by_name(self, harness: Harness, journal: Journal) -> None:
        """Parameters receive the args of their name, defaults and the rest."""
        _, (run,) = self._run(harness, journal, workers.named, {**IDS, "number": 3, "more": [1]})
        assert run["args"] == {"number": 3, "flag": False, "rest": {"more": [1]}}

    def test_null_ids_arrive_as_none(self, harness: Harness, journal: Journal) -> None:
        """A system job has a scope whose members are None."""
        _, (run,) = self._run(
            harness, journal, workers.echo, {"organization_id": None, "actor_id": None}
        )
        assert (run["organization_id"], run["actor_id"]) == (None, None)

    def test_an_agnostic_worker_runs_without_a_scope(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A tenant-agnostic worker needs no keys and gets its args."""
        _, (run,) = self._run(harness, journal, workers.agnostic, {"n": 1})
        assert run["args"] == {"n": 1}

    def test_args_arrive_as_a_json_round_trip_gives_them(
        self, harness: Harness, journal: Journal
    ) -> None:
        """Tuples are lists, numbers keep type and value, any text arrives, nothing is left out."""
        args: dict[str, Any] = {
            **IDS,
            "t": (1, 2.0, True, None),
            "text": "ü€𝄞\u2028\x00",
            "deep": json.loads('{"a":[' * 31 + "[]" + "]}" * 31),  # all the 64 levels
            "marked": {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},  # as by kombu
            "whole": [0, 2**53 + 1, 2**63 - 1, -(2**63)],
            "parts": [0.1, 1 / 3, -0.0, 1e16, 1e300, 5e-324],
            "empty": ["", [], {}],
            "null": None,
            "": {},
        }
        _, (run,) = self._run(harness, journal, workers.echo, args)
        assert run["args"] == {**args, "t": [1, 2.0, True, None]}

        def text(args: dict[str, Any]) -> str:
            return json.dumps([args[name] for name in ("t", "whole", "parts")])

        assert text(run["args"]) == text(args)  # 2.0 equals 2, and -0.0 equals 0.0

    def test_a_large_payload_arrives_whole(self, harness: Harness, journal: Journal) -> None:
        """200 KB of args arrive whole."""
        _, (run,) = self._run(harness, journal, workers.echo, {**IDS, "value": "x" * 200_000})
        assert len(run["args"]["value"]) == 200_000

    def test_an_async_worker_runs(self, harness: Harness, journal: Journal) -> None:
        """An async function is awaited, with its scope."""
        _, (run,) = self._run(harness, journal, workers.echo_async, {**IDS, "value": 1})
        assert run["organization_id"] == "acme"

    def test_nothing_that_a_job_sets_outlives_it(self, harness: Harness, journal: Journal) -> None:
        """However a job ends, no other finds in its context what that one has set."""
        hows = ("value", "failure", "cancel", "raise", "exit")
        jobs = workers.ends.new_many([{**IDS, "how": how} for how in hows * 3])
        jobs += asyncio.run(workers.echo_async.anew_many([IDS] * 5))
        journal.wait(harness, lambda: len(journal.runs_of(*jobs)) >= 20, "20 jobs")
        runs = journal.runs_of(*jobs)
        assert [run["found"] for run in runs] == [None] * 20
        assert [run["kept"] for run in runs if "kept" in run] == [True] * 5
        assert workers.mark.get() is None

    def test_events_carry_the_ids_of_their_job(self, harness: Harness, journal: Journal) -> None:
        """Each event names organization, actor, effective user, worker, job and attempt."""
        args = {**IDS, "impersonating_from": "eve", "target": "t-1"}
        job, _ = self._run(harness, journal, workers.echo, args)

        def mine() -> list[dict[str, Any]]:
            return [event for event in journal.events() if event["job_id"] == job.id]

        journal.wait(harness, lambda: len(mine()) >= 2, "two events")
        event = mine()[0]
        assert event["organization_id"] == "acme"
        assert (event["actor_id"], event["effective_user_id"]) == ("eve", "ann")
        assert (event["worker"], event["attempt"]) == (job.worker, 1)
        assert event["target_id"] == "t-1"
        assert len({event["event_id"] for event in mine()}) == 2

    def test_what_is_not_declared_is_refused(self, harness: Harness, journal: Journal) -> None:
        """An option beyond the backend's capabilities is refused at .new()."""
        values: dict[Any, Any] = {
            "queue": "q",
            "priority": 1,
            "delay": 1,
            "run_at": datetime.now(timezone.utc),
            "unique": "k",
            "conn": object(),
            "max_attempts": 2,
            "backoff": 1,
        }
        missing = {
            name: value
            for name, value in values.items()
            if name not in harness.backend.capabilities
        }
        for name, value in missing.items():
            with pytest.raises(InvalidOptionError) as caught:
                workers.echo.new(IDS, **{name: value})
            assert caught.value.option == name
        assert journal.runs() == []

    def test_a_function_that_would_not_travel_is_refused(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A backoff that only the call has is, for no consumer would have it; nothing is sent."""
        self._require(harness, "native", "backoff")
        with pytest.raises(InvalidOptionError) as caught:
            workers.echo.new_many([IDS] * 2, backoff=float)
        assert caught.value.option == "backoff"
        self._run(harness, journal, workers.agnostic, {})
        assert journal.runs(workers.echo.name) == []

    def test_a_hand_built_job_without_keys_never_runs(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job sent past .new() without its keys ends for good, and the next one runs."""
        self._require(harness, "native")
        harness.send(workers.echo.name, {"organization_id": "acme"})
        self._run(harness, journal, workers.agnostic, {})
        assert journal.runs("sigra.contract.echo") == []

    def test_a_hand_built_job_with_its_keys_runs(self, harness: Harness, journal: Journal) -> None:
        """Plain args sent by the queue's own API run with their scope, as the job of that id."""
        self._require(harness, "native")
        sent = harness.send(workers.echo.name, {**IDS, "value": 1})
        journal.wait(harness, lambda: bool(journal.runs()), "the hand-built job")
        run = journal.runs()[0]
        assert run["organization_id"] == "acme"
        assert run["job_id"] == sent, "give consume the queue's own id of the job as native_id="

    def test_the_previous_envelope_version_is_read(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job that the release before enqueued runs as it would have there."""
        self._require(harness, "native")
        envelope = {
            "sigra": 1,
            "id": "old-1",
            "worker": workers.echo.name,
            "args": {**IDS, "value": 1},
            "queue": None,
            "priority": 0,
            "max_attempts": 3,
            "backoff": None,
            "enqueued_at": 1_700_000_000_000_000_000,
            "attempt": 2,
            "snoozes": 1,
        }
        harness.send(workers.echo.name, envelope)
        journal.wait(harness, lambda: bool(journal.runs()), "the older job")
        run = journal.runs()[0]
        assert (run["job_id"], run["attempt"], run["snoozes"]) == ("old-1", 2, 1)
