"""Ctrl-C stops the program that runs jobs inline; a body's own KeyboardInterrupt does not."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys

import pytest

from sigra import SyncBackend, config, configure, current_job, tenant_worker

ARGS = {"organization_id": "acme", "actor_id": None}


@tenant_worker(name="tests.interrupt.raises")
def raises(scope):
    raise KeyboardInterrupt


@tenant_worker(name="tests.interrupt.is_pressed")
def is_pressed(scope):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10_000):
        pass


@tenant_worker(name="tests.interrupt.is_pressed_async")
async def is_pressed_async(scope):
    import asyncio

    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(5)


def test_a_body_that_raises_keyboard_interrupt_is_a_failed_job() -> None:
    """.new() never raises what the function raised."""
    with configure(backend=SyncBackend()):
        job = raises.new(ARGS)
    assert job.state == "discarded"
    with pytest.raises(KeyboardInterrupt):
        job.result()


class EvasiveError(Exception):
    @property
    def __class__(self):
        raise LookupError


class EvasiveGroup(ExceptionGroup):
    @property
    def exceptions(self):
        raise LookupError


class Evasive(type):
    @property
    def __mro__(cls):
        raise LookupError


class EvasivelyTypedError(Exception, metaclass=Evasive):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvasiveError(),
        lambda: EvasiveGroup("", [ValueError()]),
        lambda: EvasivelyTypedError(),
    ],
    ids=["class", "group", "metaclass"],
)
def test_an_error_that_cannot_be_asked_what_it_is_stays_in_the_job(make, monkeypatch) -> None:
    """Whether it interrupts is told without its code: what that raises left .new()."""

    @tenant_worker
    def evades(scope):
        raise make()

    monkeypatch.setattr(logging.getLogger("sigra.job"), "disabled", True)  # it cannot be logged
    with configure(backend=SyncBackend()):
        assert "discarded" == evades.new(ARGS).state


@pytest.mark.parametrize("worker", [is_pressed, is_pressed_async])
def test_ctrl_c_reaches_the_caller_and_leaves_no_context(worker) -> None:
    """A real interrupt is not swallowed, and nothing of the job stays behind."""
    with configure(backend=SyncBackend()), pytest.raises(KeyboardInterrupt):
        worker.new(ARGS)
    assert current_job() is None


@tenant_worker(name="tests.interrupt.enqueues")
def enqueues(scope):
    raises.new(ARGS, unique="once")
    is_pressed(scope)


def test_what_an_interrupted_job_enqueued_waits_for_drain() -> None:
    """It was not begun, and is not lost with the job around it."""
    with configure(backend=SyncBackend()) as settings:
        with pytest.raises(KeyboardInterrupt):
            enqueues.new(ARGS)
        assert raises.new(ARGS, unique="once").duplicate
        assert [raises.name] == [job.worker for job in settings.backend.drain()]
        assert not raises.new(ARGS, unique="once").duplicate


def press(record: logging.LogRecord) -> bool:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10_000):
        pass
    return True


@pytest.mark.parametrize("how", ["new", "drain"])
def test_ctrl_c_while_a_job_is_concluded_leaves_none_half_done(how: str) -> None:
    """Pressed while the end of a body is logged, it reaches the caller; the job has ended, its key is free."""
    log = logging.getLogger("sigra.job")
    with configure(backend=(backend := SyncBackend())):
        waiting = raises.new(ARGS, unique="once", delay=5) if how == "drain" else None
        log.addFilter(press)
        try:
            with pytest.raises(KeyboardInterrupt):
                backend.drain(until=5) if how == "drain" else raises.new(ARGS, unique="once")
        finally:
            log.removeFilter(press)
        assert waiting is None or waiting.state == "discarded"
        assert not raises.new(ARGS, unique="once").duplicate
        assert current_job() is None


@tenant_worker(name="tests.interrupt.ends")
def ends(scope):
    pass


@tenant_worker(name="tests.interrupt.fails", max_attempts=2, backoff=5)
def fails(scope):
    raise OSError


@pytest.mark.parametrize("worker", [ends, fails])
def test_ctrl_c_while_a_job_s_end_is_noted_leaves_no_key_held(worker) -> None:
    """Pressed at any line of what notes it, and as the job is put where its next run waits."""
    left, before = 0, sys.gettrace()

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_name not in ("_settle", "settle", "_schedule"):
            return None
        left -= event == ("call" if frame.f_code.co_name == "_schedule" else "line")
        if left == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    for line in itertools.count(1):
        left = line
        with configure(backend=SyncBackend()):
            sys.settrace(trace)
            try:
                worker.new(ARGS, unique="once")
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            config.current.backend.drain(until=60)
            assert not worker.new(ARGS, unique="once").duplicate, line
        if left > 0:
            break
    assert line > 5
