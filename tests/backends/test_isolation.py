"""No job ever sees, or is audited with, anything of another: on threads and on one loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from amounts import MANY

from sigra import (
    AsyncioBackend,
    AuditEvent,
    AuditScope,
    Cancel,
    Failure,
    Job,
    JobInfo,
    MissingArgError,
    Snooze,
    SyncBackend,
    ThreadBackend,
    configure,
    current_job,
    log_safe,
    tenant_worker,
    worker,
)
from sigra.context import running
from sigra.json import freeze
from sigra.testing import AuditLog

ORGANIZATIONS = 50
JOBS = 10_000 if MANY else 500
PATIENCE = 240.0


class Odd(BaseException):
    """Nothing that anyone expects."""


FATES = {
    "ok": "completed",
    "retried": "completed",
    "exhausted": "discarded",
    "failed": "discarded",
    "cancelled": "cancelled",
    "exits": "completed",
    "odd": "discarded",
    "snoozed": "completed",
}
"""What a body does, and the state in which its job ends."""

mark = contextvars.ContextVar("mark", default="clean")
held: contextvars.ContextVar[object] = contextvars.ContextVar("held")
faults: list[str] = []


@pytest.fixture(autouse=True)
def events() -> Iterator[AuditLog]:
    """Capture audit events, with structlog and the log of failed jobs kept quiet."""
    faults.clear()
    before, log = structlog.get_config(), AuditLog()
    structlog.configure(
        processors=[lambda logger, method, event: ""],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    level, logger = logging.getLogger("sigra.job").level, logging.getLogger("sigra.job")
    logger.setLevel(logging.CRITICAL + 1)
    with configure(sinks=[log]):
        yield log
    logger.setLevel(level)
    structlog.configure(**before)


def expect(what: str, expected: object, actual: object) -> None:
    """Note a breach; an assertion in a body would count as one more failed attempt."""
    if expected != actual:
        faults.append(f"{what}: {expected!r} is not {actual!r}")


def enter(scope: AuditScope, job: JobInfo, args: Any) -> None:
    """Check what a body finds, then leave as much behind as a body can."""
    expect("another job's variable", "clean", mark.get())
    expect("the producer's variable", None, held.get(None))
    mark.set(job.id)
    held.set(job)
    log_safe("isolation.entered", scope, target_id=args["n"])


def leave(scope: AuditScope, job: JobInfo, args: Any) -> Any:
    """Check that others changed nothing meanwhile, then end as the args say."""
    expect("own variable", (job.id, job), (mark.get(), held.get(None)))
    expect("current_job()", job, current_job())
    ids = (scope.user, scope.active_organization, scope.impersonating_from)
    keys = ("actor_id", "organization_id", "impersonating_from")
    expect("scope", [args.get(key) for key in keys], [each and each.id for each in ids])
    log_safe("isolation.left", scope, target_id=args["n"])
    match args["fate"]:
        case "retried" if job.attempt < 2:
            raise ValueError(args["n"])
        case "exhausted":
            raise ValueError(args["n"])
        case "exits" if job.attempt < 2:
            raise SystemExit(args["n"])
        case "odd" if job.attempt < 2:
            raise GeneratorExit
        case "odd":
            raise Odd
        case "failed":
            return Failure(args["n"])
        case "cancelled":
            return Cancel(args["n"])
        case "snoozed" if not job.snoozes:
            return Snooze(args.get("sleep", 1))
    return job.id


@tenant_worker(audit_schema=AuditEvent, action="isolation.ended", max_attempts=2, backoff=0)
def body(scope: AuditScope, args: Any, job: JobInfo) -> Any:
    enter(scope, job, args)
    if args["n"] % 4 == 0:
        time.sleep(0)
    return leave(scope, job, args)


@tenant_worker(audit_schema=AuditEvent, action="isolation.ended", max_attempts=2, backoff=0)
async def abody(scope: AuditScope, args: Any, job: JobInfo) -> Any:
    enter(scope, job, args)
    for _ in range(args["n"] % 3):
        await asyncio.sleep(0)
    return leave(scope, job, args)


def plan(count: int, sleep: int = 1) -> Iterator[dict[str, Any]]:
    """Args for ``count`` jobs: many organizations, actors and fates, well mixed."""
    fates = [*FATES][:-1]
    for n in range(count):
        # Only a few snooze: it takes a second.
        fate = "snoozed" if n < 20 else fates[n * 7919 % 101 % len(fates)]
        args = {"n": n, "fate": fate, "sleep": sleep, "actor_id": f"actor-{n}"}
        args["organization_id"] = f"org-{n % ORGANIZATIONS}"
        if n % 3 == 0:
            args["impersonating_from"] = f"admin-{n}"
        yield args


@dataclass
class Caller:
    """What the code that enqueues has in its own context, to be found there afterwards."""

    thing: object = field(default_factory=object)
    before: dict[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        mark.set("the caller's")
        held.set(self.thing)
        self.before = dict(contextvars.copy_context())

    def check(self) -> None:
        """Assert that every variable still is the same object, and no job runs here."""
        after = dict(contextvars.copy_context())
        assert self.before.keys() == after.keys()
        assert all(after[variable] is value for variable, value in self.before.items())
        assert held.get() is self.thing
        assert (None, None) == (running.get(), current_job())


def check(jobs: list[Job], events: list[AuditEvent], asleep: int = 0) -> None:
    """Assert that each job ended as planned, and each event carries its own job's ids.

    The first ``asleep`` jobs were snoozed and not run again.
    """
    assert [] == faults
    ends = ["scheduled"] * asleep + [FATES[job.args["fate"]] for job in jobs[asleep:]]
    assert ends == [job.state for job in jobs]
    by_id = {job.id: job for job in jobs}
    for event in events:
        args = by_id[event.job_id or ""].args
        actor = args.get("impersonating_from", args["actor_id"])
        expected = (args["organization_id"], actor, args["actor_id"])
        assert expected == (event.organization_id, event.actor_id, event.effective_user_id)
        if event.action != "isolation.ended":
            assert str(args["n"]) == event.target_id
    runs = Counter(event.job_id for event in events if event.action == "isolation.entered")
    attempts = {"retried": 2, "exhausted": 2, "failed": 2, "exits": 2, "odd": 2}
    attempts["snoozed"] = 1 if asleep else 2
    assert {job.id: attempts.get(job.args["fate"], 1) for job in jobs} == dict(runs)
    assert len({event.event_id for event in events}) == len(events)


def isolated(caller_and_test: Any, *args: Any) -> None:
    """Run in a context of its own, so that the test's variables end with it."""
    contextvars.copy_context().run(caller_and_test, *args)


def test_jobs_on_sixteen_threads(events: AuditLog) -> None:
    """On sixteen threads every event carries its own job's ids, whatever the jobs do."""

    def main() -> None:
        caller, backend = Caller(), ThreadBackend(16)
        with configure(backend=backend):
            jobs = [body.new(args) for args in plan(JOBS)]
            for job in jobs[:20]:
                job.result(PATIENCE)
            assert [] == backend.close(PATIENCE)
        caller.check()
        check(jobs, events)

    isolated(main)


def test_jobs_on_one_loop(events: AuditLog) -> None:
    """Interleaved on one loop, jobs are as separate, sync ones in their threads included."""

    async def main() -> None:
        caller, backend = Caller(), AsyncioBackend(concurrency=64)
        with configure(backend=backend):
            jobs = [
                (body if n % 8 == 0 else abody).new(a)
                for n, a in enumerate(plan(JOBS // 5, sleep=86_400))
            ]
            assert set(jobs[:20]) == set(await backend.aclose(PATIENCE))
        caller.check()
        check(jobs, events, asleep=20)

    asyncio.run(main())


@pytest.mark.parametrize("fate", [fate for fate in FATES if fate != "snoozed"])
def test_an_inline_job_leaves_its_callers_context_alone(events: AuditLog, fate: str) -> None:
    """On the sync backend the caller's variables are the same objects before and after."""

    @tenant_worker(name=f"isolation.inline.{fate}", audit_schema=AuditEvent)
    def inline(scope: AuditScope, args: Any, job: JobInfo) -> Any:
        expect("the caller's variable", "the caller's", mark.get())
        mark.set(job.id)
        held.set(job)
        return leave(scope, job, args)

    def main() -> None:
        caller, backend = Caller(), SyncBackend()
        args = {"n": 1, "fate": fate, "organization_id": "o", "actor_id": "a"}
        with configure(backend=backend):
            inline.new(args)
        caller.check()

    isolated(main)
    assert [] == faults


@worker(audit_schema=AuditEvent)
def keyless(job: JobInfo) -> None:
    expect("another job's variable", "clean", mark.get())
    expect("current_job()", job, current_job())
    log_safe("isolation.keyless", None)


@worker(audit_schema=AuditEvent)
async def akeyless(job: JobInfo) -> None:
    expect("another job's variable", "clean", mark.get())
    log_safe("isolation.keyless", None)


def handmade(definition: Any, backend: Any, args: dict[str, Any]) -> Job:
    """Enqueue past ``.new()``, as a job built by hand is."""
    job = Job(definition, freeze(args, 10_000), definition.defaults, backend.name)
    backend.enqueue((job,))
    return job


FAILING = ("exhausted", "odd", "failed", "cancelled")


def check_keyless(refused: list[Job], agnostic: list[Job], events: list[AuditEvent]) -> None:
    assert [] == faults
    assert {"discarded"} == {job.state for job in refused}
    # A refused job's body never ran.
    entered = {event.job_id for event in events if event.action == "isolation.entered"}
    assert not entered & {job.id for job in refused}
    found = [event for event in events if event.action == "isolation.keyless"]
    assert [(job.id, None, None, "system") for job in agnostic] == [
        (event.job_id, event.organization_id, event.actor_id, event.actor_type) for event in found
    ]


def test_a_job_without_keys_after_a_failed_one_on_its_thread(events: AuditLog) -> None:
    """On the thread where a tenant's job has just failed, a job without keys gets none."""
    backend = ThreadBackend(1)
    refused, agnostic = [], []
    with configure(backend=backend):
        for fate in FAILING:
            body.new({"n": 1, "fate": fate, "organization_id": "leak", "actor_id": "leak"})
            refused.append(handmade(body.definition, backend, {"n": 1, "fate": "ok"}))
            agnostic.append(keyless.new({}))
        assert [] == backend.close(PATIENCE)
    for job in refused:
        with pytest.raises(MissingArgError):
            job.result()
    check_keyless(refused, agnostic, events)


def test_a_job_without_keys_after_a_failed_one_on_its_loop(events: AuditLog) -> None:
    """The same holds on an event loop."""
    refused, agnostic = [], []

    async def main() -> None:
        backend = AsyncioBackend(concurrency=1)
        with configure(backend=backend):
            for fate in FAILING:
                abody.new({"n": 1, "fate": fate, "organization_id": "leak", "actor_id": "leak"})
                refused.append(handmade(abody.definition, backend, {"n": 1, "fate": "ok"}))
                agnostic.append(akeyless.new({}))
            assert [] == await backend.aclose(PATIENCE)

    asyncio.run(main())
    check_keyless(refused, agnostic, events)
