"""The event loop of our own, by which queues that only await are reached from elsewhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from sigra import EnqueueError
from sigra.backends.loop import Together, answered, outcome, own_loop, submit, wait_for, within


async def _double(number: int) -> int:
    return 2 * number


async def _never() -> Any:
    await asyncio.Event().wait()


_FORKED = """
import asyncio, os, threading, warnings
from test_loop import _double
from sigra.backends.loop import own_loop, submit

warnings.simplefilter("ignore")  # that this process has threads
made, parents = own_loop(), asyncio.new_event_loop()
threading.Thread(target=parents.run_forever, daemon=True).start()
while not parents.is_running():
    pass
assert submit(parents, _double(1)).result() == 2
if os.fork() == 0:
    for loop in (made, parents):
        try:
            submit(loop, _double(2))
        except RuntimeError as error:
            print(error, flush=True)
    print(submit(own_loop(), _double(21)).result(), flush=True)
else:
    _, status = os.wait()
    raise SystemExit(os.waitstatus_to_exitcode(status))
"""


_AT_ONCE = """
import threading
from test_loop import _double
from sigra.backends import loop as module
from sigra.backends.loop import own_loop, submit

together, loops, doubled = threading.Barrier(8, timeout=60), set(), []
make = module.new_event_loop
module.new_event_loop = lambda: (together.wait(), make())[1]

def first() -> None:
    loop = own_loop()
    loops.add(loop)
    doubled.append(submit(loop, _double(21)).result())

threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ours = [thread for thread in threading.enumerate() if thread.name == "sigra-loop"]
print(len(loops), len(ours), doubled == [42] * 8)
"""


@pytest.mark.programs
def test_threads_that_send_their_first_jobs_at_once_have_one_loop() -> None:
    """Each had its own, and shared with the others connections that a loop cannot share."""
    here = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    env, program = {**os.environ, "PYTHONPATH": here}, [sys.executable, "-c", _AT_ONCE]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout == "1 1 True\n"


_NO_THREAD = """
import threading
from test_loop import _double
from sigra import EnqueueError
from sigra.backends.loop import wait_for

threading.stack_size(1 << 46)  # more than there is: no thread can be started
try:
    wait_for("taskiq", None, _double(1))
except EnqueueError as error:
    print(error.reason)
threading.stack_size(0)
print(wait_for("taskiq", None, _double(21)))
"""


@pytest.mark.programs
def test_where_no_thread_can_be_started_a_job_is_refused_and_the_next_one_sent() -> None:
    """Each one after it waited for ever, for a loop that had no thread."""
    here = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    env, program = {**os.environ, "PYTHONPATH": here}, [sys.executable, "-c", _NO_THREAD]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=240, check=True)
    reason = "RuntimeError: can't start new thread. Once that is fixed, enqueue it again."
    assert done.stdout == f"{reason}\n42\n"


def test_who_finds_a_loop_that_then_cannot_start_is_told_so(monkeypatch: Any) -> None:
    """He was told of a number."""

    class Own(dict[int, Any]):
        def __contains__(self, process: object) -> bool:
            return self.get(process) is not None

        def get(self, process: Any, default: Any = None) -> Any:
            return self.pop(process, default)  # as whoever could not start it does by then

    made, runs = asyncio.new_event_loop(), threading.Event()
    made.close()
    runs.set()
    monkeypatch.setattr("sigra.backends.loop._own", Own({os.getpid(): (made, runs)}))
    with pytest.raises(EnqueueError, match="has ended"):
        wait_for("taskiq", None, _double(1))


def test_who_waits_for_a_loop_that_then_cannot_start_is_told_so(monkeypatch: Any) -> None:
    """He waited for ever."""
    begins, waits, told = threading.Event(), threading.Event(), Future[str]()

    class Runs(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    def no_thread(**_: Any) -> None:
        begins.set()
        waits.wait(60)
        raise RuntimeError("can't start new thread")

    def second() -> None:
        begins.wait(60)
        with pytest.raises(EnqueueError) as caught:
            wait_for("taskiq", None, _double(1))
        told.set_result(str(caught.value))

    threading.Thread(target=second, daemon=True).start()
    fakes = SimpleNamespace(Thread=no_thread, Event=Runs)
    monkeypatch.setattr("sigra.backends.loop.threading", fakes)
    monkeypatch.setattr("sigra.backends.loop._own", {})
    with pytest.raises(EnqueueError, match="can't start new thread"):
        wait_for("taskiq", None, _double(1))
    assert "has ended" in told.result(60)


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_loop_of_its_own_and_is_told_that_the_other_is_not() -> None:
    """A thread does not live on in a fork: to wait for its loop would be to wait for ever."""
    here = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _FORKED],
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *told, doubled = done.stdout.splitlines()
    assert len(told) == 2
    assert all("is in the process that this one was forked from" in each for each in told)
    assert doubled == "42"


_FORKED_BY_A_TASK = """
import asyncio, os, warnings
from asgiref.sync import sync_to_async
from sigra.backends.loop import of_plain_task

warnings.simplefilter("ignore")  # that this process has threads

def task() -> None:
    assert of_plain_task() is not None
    if os.fork() == 0:
        print(of_plain_task(), flush=True)
        os._exit(0)
    os.wait()

asyncio.run(sync_to_async(task)())
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_a_plain_task_forks_does_not_wait_for_the_tasks_loop() -> None:
    """It would wait for ever."""
    pytest.importorskip("asgiref")
    program = [sys.executable, "-c", _FORKED_BY_A_TASK]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout == "None\n"


def test_a_loop_that_has_ended_is_said_to_have() -> None:
    """Work for a loop that runs no more is refused, and the error says what to do."""
    ended = asyncio.new_event_loop()
    ended.close()
    with pytest.raises(
        RuntimeError, match="has ended: connect it in each process, in a loop that lasts"
    ):
        submit(ended, _double(1))


async def _until(begun: threading.Event, end: asyncio.Event) -> None:
    begun.set()
    await end.wait()


def _ending(how: str) -> tuple[asyncio.AbstractEventLoop, threading.Thread, threading.Event]:
    """Return a loop that ends, its thread, and what has it end: it cancels its work or forgets it."""
    loop, begun = asyncio.new_event_loop(), threading.Event()

    async def first() -> None:
        await asyncio.to_thread(begun.wait)
        if how == "cancels":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def run() -> None:
        loop.set_exception_handler(lambda *_: None)  # by which it says what it forgot
        loop.run_until_complete(first())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    while not loop.is_running():
        pass
    return loop, thread, begun


@pytest.mark.parametrize("how", ["cancels", "forgets"])
def test_who_waits_for_a_loop_that_ends_is_told_so(how: str) -> None:
    """He waited for ever, or was told that he was cancelled."""
    loop, thread, begun = _ending(how)
    with pytest.raises(
        EnqueueError, match="has ended: connect it in each process, in a loop that lasts"
    ):
        wait_for("taskiq", loop, _until(begun, asyncio.Event()))
    thread.join()


def test_what_went_on_in_a_loop_that_ended_begins_anew() -> None:
    """Whoever came later awaited what no loop does any more."""
    together, loop, begun = Together(), asyncio.new_event_loop(), list[str]()
    loop.set_exception_handler(lambda *_: None)  # by which it says what it forgot

    async def begins() -> None:
        begun.append("anew")

    going = loop.create_task(together(_never))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not going.done()
    asyncio.run(together(begins))
    assert begun == ["anew"]


def test_work_is_begun_once_for_all_who_come_and_anew_once_it_failed() -> None:
    """Who came later went on before it was done, or was told of an error of long ago."""
    together, begun, ends = Together(), list[int](), list[asyncio.Event]()

    async def fails() -> None:
        begun.append(len(begun))
        await ends[-1].wait()
        raise OSError(f"failed {begun[-1]}")

    async def main() -> None:
        for time in range(2):
            ends.append(asyncio.Event())
            await together(None)  # nothing goes on, and nothing is to begin
            coming = [asyncio.create_task(together(begin)) for begin in (fails, fails, None)]
            await asyncio.sleep(0)
            ends[-1].set()
            told = await asyncio.gather(*coming, return_exceptions=True)
            assert [f"failed {time}"] * 3 == list(map(str, told))

    asyncio.run(main())
    assert begun == [0, 1]


@pytest.mark.parametrize("how", ["cancels", "forgets"])
def test_who_awaits_a_loop_that_ends_is_told_so(how: str) -> None:
    """He waited for ever, or was taken for cancelled."""
    loop, thread, begun = _ending(how)
    with pytest.raises(
        EnqueueError, match="has ended: connect it in each process, in a loop that lasts"
    ):
        asyncio.run(within("taskiq", loop, _until(begun, asyncio.Event())))
    thread.join()


def test_who_is_cancelled_as_he_awaits_another_loop_is_so() -> None:
    """And so is what that loop does for him; he is not told that the loop has ended."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            await _until(begun, asyncio.Event())
        finally:
            ended.set()

    async def wait() -> None:
        waits = asyncio.create_task(within("taskiq", own_loop(), work()))
        await asyncio.to_thread(begun.wait)
        waits.cancel()
        await waits

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(wait())
    assert ended.wait(60)


class _Doing(Future[Any]):
    """Ends in the instant in which who waits for it stops to."""

    def result(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            self.set_result("done")
            raise TimeoutError
        return super().result()

    def done(self) -> bool:
        if self.running():
            self.set_result("done")
        return super().done()


def test_what_is_done_as_one_looks_for_its_loop_is_done(monkeypatch: Any) -> None:
    """It is not said to have taken too long, nor to be lost with the loop."""
    assert outcome(own_loop(), _Doing()) == "done"
    doing, ended = _Doing(), asyncio.new_event_loop()
    doing.set_running_or_notify_cancel()
    ended.close()
    monkeypatch.setattr("sigra.backends.loop._LOOK", 0.001)
    monkeypatch.setattr("sigra.backends.loop._submitted", lambda *_: (ended, doing))
    assert asyncio.run(within("taskiq", ended, None)) == "done"  # type: ignore[arg-type]


def test_what_takes_long_in_a_loop_that_lasts_is_waited_for(monkeypatch: Any) -> None:
    """It was sent: who was told that its loop had ended sent it again."""

    async def takes_long() -> str:
        await asyncio.sleep(0.05)
        return "done"

    monkeypatch.setattr("sigra.backends.loop._LOOK", 0.001)
    assert wait_for("taskiq", None, takes_long()) == "done"
    assert asyncio.run(within("taskiq", None, takes_long())) == "done"


def test_in_a_running_loop_one_is_told_to_await() -> None:
    """Waiting there would stop the loop: ``.new()`` names ``.anew()``."""

    async def blocks() -> None:
        wait_for("taskiq", own_loop(), _double(1))

    with pytest.raises(EnqueueError, match=r"await worker\.anew"):
        asyncio.run(blocks())


def test_another_loop_is_awaited() -> None:
    """Loops that come and go get their answers from the one that lasts."""
    assert [asyncio.run(within("taskiq", own_loop(), _double(n))) for n in (1, 2)] == [2, 4]


def test_what_does_not_answer_is_said_not_to() -> None:
    """A queue that is down ends in a ``TimeoutError`` that says how long it was waited for."""
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        asyncio.run(answered(_never(), 0.01))


def test_a_queue_s_own_word_that_it_took_too_long_is_told() -> None:
    """It was taken for an answer, and the job for sent."""

    async def own() -> None:
        raise TimeoutError("no connection was free")

    with pytest.raises(TimeoutError, match="no connection was free"):
        asyncio.run(answered(own(), 60))
