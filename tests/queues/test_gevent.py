"""In a server on gevent, whose threads are greenlets, jobs are sent and run as elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
from servers import need

need("gevent", "taskiq")
need("taskiq")

PRODUCER = """
from gevent import joinall, monkey, spawn
monkey.patch_all()
import sys
from sigra import configure
from sigra.backends.taskiq import TaskiqBackend
from sigra.testing.contract_case import IDS
from sigra.testing.contract_workers import echo
from taskiq_redis import RedisStreamBroker

configure(backend=TaskiqBackend(RedisStreamBroker(sys.argv[1])))
for _ in range(2):
    requests = [spawn(echo.new, IDS) for _ in range(20)]
    joinall(requests, raise_error=True, timeout=60)
    assert len({request.value.native_id for request in requests}) == 20
"""

CONSUMER = """
from gevent import monkey
monkey.patch_all()
import asyncio
from sigra import ThreadBackend, configure, worker

@worker
async def passes(n: int):
    for _ in range(5):
        await asyncio.sleep(0.01)
    return n

with configure(backend=ThreadBackend(max_workers=4)):
    jobs = passes.new_many({"n": n} for n in range(20))
    assert [job.result(60) for job in jobs] == list(range(20))
"""

INTERRUPTED = """
from gevent import Timeout, monkey, sleep, spawn
monkey.patch_all()
import asyncio
import sys
from contextvars import copy_context
from gevent.event import Event
from sigra.backends.green import run_by_turns

begun, free = Event(), Event()

async def keeps():
    free.wait()

async def waits():
    await asyncio.sleep(0.1)

def limited():
    try:
        with Timeout(0.5):
            begun.set()
            run_by_turns(waits(), copy_context())
    except Timeout:
        return "interrupted"

first = [spawn(limited)] if sys.argv[1] == "in its midst" else []
sleep(0.05)
keeper = spawn(run_by_turns, keeps(), copy_context())
sleep(0.05)
(second,) = first or [spawn(limited)]
begun.wait()
sleep(1)  # after the time limit, which began before
free.set()
assert second.get() == "interrupted"
keeper.get()
run_by_turns(waits(), copy_context())
"""


@pytest.mark.parametrize("when", ["before it began", "in its midst"])
def test_a_job_that_is_interrupted_as_it_waits_for_its_turn_takes_nobody_s(when: str) -> None:
    """The other one goes on, and whoever comes after it; Python warns of nothing."""
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, when]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_all_requests_send_jobs(redis: str) -> None:
    """The loop that sends them was taken for one that each request runs in: all but one failed."""
    subprocess.run([sys.executable, "-c", PRODUCER, redis], check=True, timeout=120)


def test_async_workers_of_the_thread_backend_run_side_by_side() -> None:
    """One that waited kept the others from running: they failed."""
    subprocess.run([sys.executable, "-c", CONSUMER], check=True, timeout=120)
