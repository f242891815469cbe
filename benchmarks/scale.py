"""What stays flat: cost and memory of a job, from few jobs and organizations to many."""

from __future__ import annotations

import gc
import statistics
import tracemalloc
from itertools import cycle, islice
from typing import Any

import sigra
from benchmarks import byhand
from benchmarks.jobs import make_worker
from benchmarks.measure import Effort, Measured, Pair, clock, loop, measure

WINDOW = 1_000
"""Jobs of one window, and the number from which growth is measured."""


def cost_of_jobs(effort: Effort) -> Measured:
    """Compare the last jobs with the first, each as a ratio to code written by hand.

    That code keeps nothing, so its share cancels what the machine does meanwhile.
    """
    worker = make_worker(backend=sigra.SyncBackend())
    ours, floor = loop(worker.new, byhand.FLAT), loop(byhand.stdlib(), byhand.FLAT)
    ours(WINDOW)
    floor(WINDOW)
    mine, hand = list[float](), list[float]()
    for _ in range(effort.jobs // WINDOW):
        mine.append(ours(WINDOW) / WINDOW)
        hand.append(floor(WINDOW) / WINDOW)
    windows = [a / b for a, b in zip(mine, hand, strict=True)]
    share = max(1, len(windows) // 10)
    first = statistics.median(windows[: min(share, 30)])
    lasts = [windows[len(windows) - share * (n + 1) : len(windows) - share * n] for n in range(3)]
    ratios = tuple(statistics.median(last) / first for last in lasts[: effort.repeats] if last)
    return Measured(ratios, tuple(mine[-share:]), tuple(mine[: min(share, 30)]))


def organizations(effort: Effort) -> Measured:
    """Compare jobs of as many organizations as there are jobs with jobs of one."""
    worker = make_worker(backend=sigra.SyncBackend())
    many = _args(effort.organizations, effort.organizations)
    one = _args(effort.organizations, 1)
    pair = Pair(_walk(worker, many), _walk(worker, one))
    return measure(pair, effort)


def thousand_organizations(effort: Effort) -> Measured:
    """Do the same with 1,000 organizations."""
    worker = make_worker(backend=sigra.SyncBackend())
    many, one = _args(effort.organizations, 1_000), _args(effort.organizations, 1)
    return measure(Pair(_walk(worker, many), _walk(worker, one)), effort)


def resident(effort: Effort) -> Measured:
    """Compare the memory that the process holds after all jobs with that after the first."""
    worker = make_worker(backend=sigra.SyncBackend())
    run = loop(worker.new, byhand.FLAT)
    run(WINDOW)
    first = rss()
    run(effort.jobs - WINDOW)
    last = rss()
    return Measured((last / first,), (float(last),), (float(first),))


def traced(effort: Effort) -> Measured:
    """Compare the peak of Python's own allocations while many jobs run with that of few."""
    worker = make_worker(backend=sigra.SyncBackend())
    run = loop(worker.new, byhand.FLAT)
    run(WINDOW)
    few, many = _peak(lambda: run(WINDOW)), _peak(lambda: run(effort.traced))
    return Measured((many / few,), (float(many),), (float(few),))


def kept(effort: Effort) -> Measured:
    """Compare the bytes that one kept job holds, among many and among few."""
    worker = make_worker(backend=sigra.SyncBackend())
    worker.new(byhand.FLAT)
    few, many = _held(worker, WINDOW), _held(worker, effort.traced)
    return Measured((many / few,), (many,), (few,))


def rss() -> int:
    """Return the resident bytes of this process: now on Linux, the peak elsewhere."""
    import resource

    gc.collect()
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _args(count: int, organizations: int) -> list[dict[str, Any]]:
    return [
        {**byhand.FLAT, "organization_id": f"org_{number % organizations:08}"}
        for number in range(count)
    ]


def _walk(worker: Any, items: list[dict[str, Any]]) -> Any:
    """Time jobs over the items in turn, going on where the last sample stopped."""
    endless = cycle(items)

    def timed(loops: int) -> float:
        chosen = list(islice(endless, loops))
        start = clock()
        new = worker.new
        for args in chosen:
            new(args)
        return clock() - start

    return timed


def _peak(work: Any) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _held(worker: Any, count: int) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        jobs = [worker.new(byhand.FLAT) for _ in range(count)]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(jobs)
    finally:
        tracemalloc.stop()
