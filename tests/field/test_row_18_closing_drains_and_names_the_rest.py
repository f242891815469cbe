"""Row 18: a pool drops no work at shutdown without saying which."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sigra import AsyncioBackend, ThreadBackend, configure, worker

ROOT = Path(__file__).parents[2]
go = threading.Event()
done: list[int] = []


@worker
def step(n: int) -> None:
    done.append(n)


@worker
async def astep(n: int) -> None:
    await asyncio.sleep(0)
    done.append(n)


@worker
def stuck() -> None:
    go.wait(60)


def test_close_finishes_what_is_due() -> None:
    """Every accepted job has run when close() returns, and none is left."""
    done.clear()
    pool = ThreadBackend(max_workers=2)
    with configure(backend=pool):
        step.new_many([{"n": n} for n in range(200)])
    assert ([], set(range(200))) == (pool.close(60), set(done))


def test_close_names_what_it_could_not_finish() -> None:
    """Jobs for later, and those that run longer than the timeout, are returned."""
    go.clear()
    pool = ThreadBackend(max_workers=1)
    with configure(backend=pool):
        running = stuck.new({})
        waiting = step.new({"n": 1})
        later = step.new({"n": 2}, delay=3600)
    left = pool.close(0)
    go.set()
    assert {running.id, waiting.id, later.id} >= {job.id for job in left} >= {later.id, waiting.id}


def test_aclose_finishes_what_is_due() -> None:
    """The same on a loop."""
    done.clear()

    async def main() -> list[object]:
        loop = AsyncioBackend(concurrency=4)
        with configure(backend=loop):
            await astep.anew_many([{"n": n} for n in range(50)])
        return list(await loop.aclose(60))

    assert ([], set(range(50))) == (asyncio.run(main()), set(done))


@pytest.mark.programs
def test_the_interpreter_s_exit_finishes_what_is_due(tmp_path: Path) -> None:
    """A script that ends right after its enqueues loses none of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from sigra import configure, worker\n"
        "@worker\n"
        "def step(n):\n"
        "    sys.stdout.write(f'{n}\\n')\n"
        "configure(backend='thread')\n"
        "step.new_many([{'n': n} for n in range(20)])\n",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ("", sorted(map(str, range(20)))) == (ended.stderr, sorted(ended.stdout.split()))
