"""The store against a model of it: whatever is done in whatever order, both agree."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import hypothesis.strategies as st
from amounts import LONG, MANY
from attacks import ATTACKS, EMPTY, State, attack_store, read_state, write_state
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import NOON, event
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine

from sigra.audit import EventFilter
from sigra.store import Signer, SqlAuditSink, erase, prune, take_checkpoint, verify

KEY = Signer(Ed25519PrivateKey.generate())
SETTINGS = settings(
    max_examples=500 if LONG else 3 if MANY else 1,
    stateful_step_count=200 if LONG else 15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

ORGANIZATIONS = st.sampled_from(["acme", "other", None])
PEOPLE = st.sampled_from(["ann", "bob"])
MINUTES = st.integers(0, 30)


class Store(RuleBasedStateMachine):
    """Write, roll back, redeliver, prune, erase, tamper and verify, in any order."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.engine = create_engine(url)
        self.sink = SqlAuditSink(url)
        self.sink.prepare()
        write_state(self.sink, EMPTY)
        self.kept: dict[str | None, list[Any]] = {"acme": [], "other": [], None: []}
        self.pruned: dict[str | None, int] = dict.fromkeys(self.kept, 0)
        self.erased: set[str] = set()
        self.checkpoints: list[Any] = []

    def teardown(self) -> None:
        self.sink.close()
        self.engine.dispose()

    def keep(self, *events: Any) -> None:
        for each in events:
            if all(each.event_id != kept.event_id for kept in self.kept[each.organization_id]):
                self.kept[each.organization_id].append(each)

    @initialize(count=st.sampled_from([0, 10]))
    def begin(self, count: int) -> None:
        for number in range(count):
            self.write(number, "acme", "ann")
            self.write(number, "other", "bob")

    @rule(minute=MINUTES, organization=ORGANIZATIONS, person=PEOPLE)
    def write(self, minute: int, organization: Any, person: str) -> None:
        each = event(minute, organization, actor_id=person)
        self.sink.write(each)
        self.keep(each)

    @rule(minutes=st.lists(st.tuples(MINUTES, ORGANIZATIONS, PEOPLE), max_size=20))
    def write_many(self, minutes: Any) -> None:
        events = [event(minute, who, actor_id=person) for minute, who, person in minutes]
        self.sink._write([(each, None) for each in events])
        self.keep(*events)

    @rule(organization=ORGANIZATIONS, data=st.data())
    def redeliver(self, organization: Any, data: st.DataObject) -> None:
        if self.kept[organization]:
            self.sink.write(data.draw(st.sampled_from(self.kept[organization])))

    @rule(minute=MINUTES, organization=ORGANIZATIONS, person=PEOPLE, committed=st.booleans(),
          savepoint=st.booleans())  # fmt: skip
    def write_in_a_transaction(
        self, minute: int, organization: Any, person: str, committed: bool, savepoint: bool
    ) -> None:
        each = event(minute, organization, actor_id=person)
        with self.engine.connect() as connection:
            self.sink.write_in(connection, [(each, None)], savepoint=savepoint)
            if committed:
                connection.commit()
                self.keep(each)
            else:
                connection.rollback()

    @rule(minute=MINUTES, organization=ORGANIZATIONS, batch=st.integers(1, 5))
    def prune(self, minute: int, organization: Any, batch: int) -> None:
        before = NOON + timedelta(minutes=minute)
        steps = prune(
            self.sink, before, reason="old", signer=KEY, batch=batch, organization_id=organization
        )
        gone = sum(step.events for step in steps)
        events = self.kept[organization]
        expected = next((n for n, e in enumerate(events) if e.occurred_at >= before), len(events))
        assert gone == expected
        self.pruned[organization] += gone
        del events[:gone]

    @rule(organization=ORGANIZATIONS, person=PEOPLE)
    def erase(self, organization: Any, person: str) -> None:
        erase(self.sink, person, reason="asked", signer=KEY, organization_id=organization)
        for each in self.kept[organization]:
            if each.actor_id == person:
                self.erased.add(each.event_id)

    @rule()
    def checkpoint(self) -> None:
        previous = self.checkpoints[-1] if self.checkpoints else None
        self.checkpoints.append(take_checkpoint(self.sink, KEY, previous))

    @rule()
    def restart(self) -> None:
        self.sink.close()
        self.sink = SqlAuditSink(self.url)

    @rule(attack=st.sampled_from(list(ATTACKS)[:10]), random=st.randoms(use_true_random=False))
    def tamper(self, attack: str, random: Random) -> None:
        """What an editor does is found, and put back."""
        if len(self.kept["acme"]) < 8 or not self.kept["other"] or self.erased:
            return
        if attack == "remove the newest entries":
            self.checkpoint()  # it alone shows that they are gone
        before = read_state(self.sink)
        state = State(read_state(self.sink), "org:acme", "org:other", random)
        attack_store(self.sink, ATTACKS[attack], "editor", KEY, state)
        assert self.verified().verdict == "broken"
        write_state(self.sink, before)

    def verified(self) -> Any:
        return verify(
            self.sink,
            all_organizations=True,
            public_keys=[KEY.public_key],
            checkpoints=self.checkpoints,
        )

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        for organization, events in self.kept.items():
            found = {each.event_id: each for each in self.sink.stream(EventFilter(organization))}
            assert set(found) == {each.event_id for each in events}
            for each in events:
                if each.event_id in self.erased:
                    assert found[each.event_id].metadata == {"erased": True}
                else:
                    assert found[each.event_id] == each

    @invariant()
    def it_verifies(self) -> None:
        report = self.verified()
        kept = sum(map(len, self.kept.values()))
        pruned = sum(self.pruned.values())
        assert report.findings == ()
        assert (report.rows, report.pruned) == (kept, pruned)
        assert report.verdict == ("intact" if kept or pruned else "empty")


def test_the_store_agrees_with_its_model(url: str) -> None:
    """No order of operations loses, repeats or breaks anything."""
    run_state_machine_as_test(lambda: Store(url), settings=SETTINGS)
