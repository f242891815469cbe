"""The part of the conformance suite about how jobs end, and when they run again."""

from __future__ import annotations

import pytest

from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import FOLLOWING, IDS, ContractCase
from sigra.testing.harness import Harness, Journal


class OutcomeContract(ContractCase):
    """Each outcome means the same on every backend."""

    @pytest.mark.parametrize(
        ("how", "outcome"),
        [
            ("value", "success"),
            ("nothing", "success"),
            ("failure", "failure"),
            ("cancel", "failure"),
            ("raise", "error"),
            ("mute", "error"),
            ("unwritable", "error"),
            ("exit", "error"),
            ("interrupt", "error"),
        ],
    )
    def test_an_outcome_ends_the_job(
        self, harness: Harness, journal: Journal, how: str, outcome: str
    ) -> None:
        """A job without attempts left runs once, is audited so, and the consumer goes on."""
        try:
            job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": how})
        except KeyboardInterrupt:  # it would end the whole run of pytest
            assert how != "interrupt", "a body's own KeyboardInterrupt came to its producer"
            raise
        self._run(harness, journal, workers.agnostic, {})
        journal.wait(harness, lambda: bool(journal.events("contract.ends")), "the event")
        assert len(journal.runs("sigra.contract.ends")) == 1
        (event,) = journal.events("contract.ends")
        assert (event["outcome"], event["job_id"]) == (outcome, job.id)

    def test_cancel_uses_no_attempt_that_is_left(self, harness: Harness, journal: Journal) -> None:
        """A cancelled job is over, whatever attempts are left."""
        self._require(harness, "max_attempts", "backoff")
        self._run(
            harness, journal, workers.ends, {**IDS, "how": "cancel"}, max_attempts=3, backoff=0
        )
        self._run(harness, journal, workers.agnostic, {})
        assert len(journal.runs("sigra.contract.ends")) == 1

    @pytest.mark.parametrize(("failures", "mute"), [(1, False), (2, False), (2, True)])
    def test_a_failed_attempt_is_retried_with_the_same_scope(
        self, harness: Harness, journal: Journal, failures: int, mute: bool
    ) -> None:
        """Attempts count from 1, each with the same ids and the same job, whatever was raised."""
        self._require(harness, "max_attempts", "backoff")
        args = {**IDS, "impersonating_from": "eve", "failures": failures, "mute": mute}
        _, runs = self._run(
            harness, journal, workers.recovers, args, failures + 1, max_attempts=3, backoff=0
        )
        assert [run["attempt"] for run in runs] == list(range(1, failures + 2)), FOLLOWING
        assert {(run["organization_id"], run["impersonating_from"]) for run in runs} == {
            ("acme", "eve")
        }

    def test_attempts_end(self, harness: Harness, journal: Journal) -> None:
        """A job that always fails runs max_attempts times and no more."""
        self._require(harness, "max_attempts", "backoff")
        args = {**IDS, "failures": 9}
        self._run(harness, journal, workers.recovers, args, 2, max_attempts=2, backoff=0)
        self._run(harness, journal, workers.snoozes, {**IDS, "times": 1}, 2)
        assert len(journal.runs("sigra.contract.recovers")) == 2

    def test_a_snooze_uses_no_attempt(self, harness: Harness, journal: Journal) -> None:
        """A snoozed job comes again with the same attempt and one snooze more."""
        _, runs = self._run(harness, journal, workers.snoozes, {**IDS, "times": 2}, 3)
        assert [(run["attempt"], run["snoozes"]) for run in runs] == [(1, 0), (1, 1), (1, 2)], (
            FOLLOWING
        )

    def test_snoozes_and_failures_are_counted_apart(
        self, harness: Harness, journal: Journal
    ) -> None:
        """A job that does both by turns has used up an attempt for each failure alone."""
        self._require(harness, "max_attempts", "backoff")
        _, runs = self._run(harness, journal, workers.wavers, IDS, 4, max_attempts=2, backoff=0)
        counted = [(run["attempt"], run["snoozes"]) for run in runs]
        assert counted == [(1, 0), (1, 1), (2, 1), (2, 2)], FOLLOWING
