"""Whatever is enqueued in whatever order, no scope leaks: two backends beside a model."""

from __future__ import annotations

import contextvars
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import structlog
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from sigra import (
    AuditEvent,
    AuditScope,
    Cancel,
    Failure,
    Job,
    JobInfo,
    Snooze,
    SyncBackend,
    ThreadBackend,
    configure,
    current_job,
    log_safe,
    tenant_args,
    tenant_worker,
)
from sigra.testing import AuditLog

PATIENCE = 240.0
variable = contextvars.ContextVar("variable", default="clean")
faults: list[str] = []
jobs: list[Job] = []
inherited = ["clean"]
"""What a body is to find in the variable: the caller's value where it runs inline."""


class Odd(BaseException):
    """Nothing that anyone expects."""


@tenant_worker(audit_schema=AuditEvent, action="machine.ended", max_attempts=2, backoff=0)
def step(scope: AuditScope, args: Any, job: JobInfo) -> Any:
    """Do what the args say, and note whatever is not as it should be."""
    expected = [args.get(key) for key in ("organization_id", "actor_id", "impersonating_from")]
    found = (scope.active_organization, scope.user, scope.impersonating_from)
    if expected != [each and each.id for each in found]:
        faults.append(f"scope of {args}: {found}")
    if variable.get() != inherited[0]:
        faults.append(f"variable of {args}: {variable.get()}")
    variable.set(job.id)
    log_safe("machine.ran", scope, target_id=args["n"])
    jobs.extend(step.new({**child, **tenant_args(scope)}) for child in args["children"])
    if (current_job(), variable.get()) != (job, job.id):
        faults.append(f"after the children of {args}: {current_job()}, {variable.get()}")
    match args["fate"]:
        case "raises":
            raise ValueError
        case "exits":
            raise SystemExit
        case "odd":
            raise Odd
        case "fails":
            return Failure()
        case "recovers" if job.attempt == 1:
            raise KeyboardInterrupt
        case "cancels":
            return Cancel()
        case "snoozes" if not job.snoozes:
            return Snooze(3600)
    return None


FATES: dict[str, tuple[str, list[str]]] = {
    "returns": ("completed", ["success"]),
    "raises": ("discarded", ["error", "error"]),
    "exits": ("discarded", ["error", "error"]),
    "odd": ("discarded", ["error", "error"]),
    "fails": ("discarded", ["failure", "failure"]),
    "recovers": ("completed", ["error", "success"]),
    "cancels": ("cancelled", ["failure"]),
    "snoozes": ("scheduled", [""]),
}
"""The state in which a job is once all that is due has run, and its attempts' outcomes."""


class Model:
    """What is to have happened, worked out from the args alone."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.events: Counter[tuple[Any, ...]] = Counter()

    def add(self, args: dict[str, Any], who: dict[str, Any]) -> None:
        state, outcomes = FATES[args["fate"]]
        self.states[state] += 1
        user, impersonator = who["actor_id"], who.get("impersonating_from")
        ids = (who["organization_id"], user if impersonator is None else impersonator, user)
        for attempt, outcome in enumerate(outcomes, 1):
            self.events["machine.ran", "success", str(args["n"]), attempt, *ids] += 1
            if outcome:
                self.events["machine.ended", outcome, None, attempt, *ids] += 1
            for child in args["children"]:
                self.add(child, who)


Plan = tuple[str, list[Any]]
"""A job's fate, and the plans of its children."""

# Few choices out of many: it is choices that take time. Half of those here have the last part.
IDS = ["1", "2", "3", None]
WITHOUT: list[dict[str, Any]] = [{}] * len(IDS)
WHO = st.sampled_from(
    [
        {"organization_id": organization, "actor_id": actor, **rest}
        for organization in IDS
        for actor in IDS
        for rest in [*WITHOUT, *({"impersonating_from": id} for id in IDS)]
    ]
)
LEAVES: list[list[Plan]] = [[(fate, [])] for fate in FATES]
CHILD = st.sampled_from(
    [(fate, below) for fate in FATES for below in [*[[]] * len(LEAVES), *LEAVES]]
)
PLAN = st.tuples(st.sampled_from([*FATES]), st.lists(CHILD, max_size=2))


class ScopeMachine(RuleBasedStateMachine):
    """Enqueue, nest, fail, snooze, cancel and drain, in any order."""

    def __init__(self) -> None:
        super().__init__()
        faults.clear()
        jobs.clear()
        inherited[0] = "clean"
        self.model, self.log, self.drained = Model(), AuditLog(), 0
        self.numbers = count()
        self.before = variable.set("clean")
        self.settings = configure(backend=self.backend(), sinks=[self.log])

    def backend(self) -> Any:
        raise NotImplementedError

    def run_all(self) -> None:
        raise NotImplementedError

    def args_of(self, plan: Plan, who: dict[str, Any]) -> dict[str, Any]:
        """Return a job's args, and expect what they bring about."""
        args = self.numbered(plan)
        self.model.add(args, who)
        return {**args, **who}

    def numbered(self, plan: Plan) -> dict[str, Any]:
        """Return a plan with a number for it, and for each of its children."""
        fate, children = plan
        own = {"n": next(self.numbers), "fate": fate}
        return {**own, "children": [self.numbered(child) for child in children]}

    @rule(who=WHO, plan=PLAN)
    def enqueue(self, who: dict[str, Any], plan: Plan) -> None:
        jobs.append(step.new(self.args_of(plan, who)))

    @rule(who=WHO, batch=st.lists(PLAN, max_size=3))
    def enqueue_many(self, who: dict[str, Any], batch: list[Plan]) -> None:
        jobs.extend(step.new_many([self.args_of(plan, who) for plan in batch]))

    @rule()
    def drain(self) -> None:
        self.run_all()
        assert self.model.states == Counter(job.state for job in jobs)
        assert self.model.events == Counter(
            (
                event.action,
                event.outcome,
                event.target_id,
                event.attempt,
                event.organization_id,
                event.actor_id,
                event.effective_user_id,
            )
            for event in self.log
        )
        by_id = {job.id: job.args for job in jobs[self.drained :]}
        for event in self.log:
            assert by_id[event.job_id or ""]["organization_id"] == event.organization_id
            assert by_id[event.job_id or ""]["actor_id"] == event.effective_user_id
        # The next time it is about what came since: all of it again would take its time.
        self.drained = len(jobs)
        self.model.events.clear()
        self.log.clear()

    @invariant()
    def nothing_leaks(self) -> None:
        assert [] == faults
        assert current_job() is None

    def teardown(self) -> None:
        try:
            self.drain()
            self.nothing_leaks()
        finally:
            self.settings.__exit__(None, None, None)
            variable.reset(self.before)


class OnSync(ScopeMachine):
    def backend(self) -> SyncBackend:
        self.sync = SyncBackend()
        return self.sync

    def run_all(self) -> None:
        self.sync.drain()

    @rule(value=st.text(max_size=3))
    def set_variable(self, value: str) -> None:
        variable.set(value)
        inherited[0] = value

    @invariant()
    def variable_is_the_callers(self) -> None:
        assert inherited[0] == variable.get()


class OnThreads(ScopeMachine):
    def backend(self) -> ThreadBackend:
        self.pool = ThreadBackend(2)
        return self.pool

    def run_all(self) -> None:
        left = self.pool.close(PATIENCE)
        assert {"snoozes"} >= {job.args["fate"] for job in left}
        configure(backend=self.backend())

    @rule(value=st.text(max_size=3))
    def set_variable(self, value: str) -> None:
        # Of no concern to a body: it inherits nothing from its caller.
        variable.set(value)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep structlog, and the log of jobs that fail as they should, from writing."""
    before, logger = structlog.get_config(), logging.getLogger("sigra.job")
    structlog.configure(
        processors=[lambda logger, method, event: ""],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)
    structlog.configure(**before)


# Each in a class of its own, for a class stays in one process, and these two take longest of all.
class TestOnSync:
    def test_scopes_never_leak(self) -> None:
        """Every body sees its own scope alone, every event its job's ids, every state the model's."""
        run_state_machine_as_test(OnSync)


class TestOnThreads:
    def test_scopes_never_leak(self) -> None:
        """As with the other backend."""
        run_state_machine_as_test(OnThreads)
