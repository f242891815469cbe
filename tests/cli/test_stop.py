"""What ends a run before its time, and what a run counts, where threads come at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from sigra import EnqueueError, Job, SyncBackend, worker
from sigra.cli.run import stop
from sigra.cli.run.follow import FollowingBackend
from sigra.cli.run.run import Run
from sigra.cli.run.stop import Stop
from sigra.enqueue import Enqueuer

PATIENCE = 60.0


@worker(name="stop.job")
def job() -> None: ...


def test_a_reason_to_stop_is_never_without_its_status() -> None:
    """A handler and a thread note it at once, and others read it meanwhile."""
    asked = Stop(bool)
    seen = set[tuple[bool, bool]]()

    def trace(frame: Any, *_: Any) -> Any:
        if frame.f_code is Stop._note.__code__:
            frame.f_trace_opcodes = True
            sys.settrace(None)
            seen.add((asked.reason is None, asked.status == 0))
            sys.settrace(trace)
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        asked.ask("Ctrl-C", 130)
        asked.ask("broken", 1)
    finally:
        sys.settrace(before)
    assert ({(True, True), (False, False)}, "Ctrl-C", 130) == (seen, asked.reason, asked.status)


def test_a_process_ends_in_time_whatever_its_report_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that still run may change what is reported, or nobody reads it."""
    ended = threading.Event()
    monkeypatch.setattr(stop, "GRACE", -1.0)

    def end_at_once(_: int) -> None:
        ended.set()
        threading.Event().wait()  # it never returns

    monkeypatch.setattr(stop, "end_at_once", end_at_once)

    def report() -> None:
        raise RuntimeError("dictionary changed size during iteration")

    with Stop(report) as asked:
        asked.ask("Ctrl-C", 130, hurried=True)
        assert ended.wait(PATIENCE)


def test_a_report_does_not_change_while_jobs_go_on() -> None:
    """They log further kinds of failure as its table is laid out."""
    backend = SimpleNamespace(
        name="sync", follows=True, counts={}, unfinished=0, unfinished_lines=list
    )
    run = Run(
        SimpleNamespace(backend=backend, file=None),  # type: ignore[arg-type]
        SimpleNamespace(), "rejects", SimpleNamespace(say=print), 1, Stop(bool),  # type: ignore[arg-type]
    )  # fmt: skip
    report = run.report("m:w", "-")
    run.log.kinds["ValueError"] += 1
    assert not report.kinds


def test_a_job_that_was_refused_is_let_go_of_while_it_is_looked_at() -> None:
    """A job's own thread enqueues in vain while the command counts which jobs have ended."""

    class Refusing(SyncBackend):
        def enqueue(self, jobs: Sequence[Job]) -> None:
            begun.set()
            assert looked_at.wait(PATIENCE)
            raise EnqueueError("sync", "it is down")

    class Looking(FollowingBackend):
        def _conclude(self, job: Job) -> bool:
            looked_at.set()
            enqueuing.join()
            return super()._conclude(job)

    def enqueue() -> None:
        with pytest.raises(EnqueueError):
            following.enqueue([Enqueuer(job.definition).prepare({}, {})[0]])

    begun, looked_at = threading.Event(), threading.Event()
    following = Looking(Refusing())
    enqueuing = threading.Thread(target=enqueue)
    enqueuing.start()
    assert begun.wait(PATIENCE)
    assert 0 == following.settle(all_of_them=True)
