"""Paired measuring: two sides in one process, in turns, compared pair by pair."""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

TOLERANCE = 1.10
"""What a ratio may exceed its limit by and still hold."""

clock = process_time
"""For work in one thread: it does not count while something else has the processor."""

Timed = Callable[[int], float]
"""Do the work so many times; return the seconds that it took."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: repeats, seconds and least pairs of each, how far to scale."""

    repeats: int = 3
    budget: float = 1.5
    pairs: int = 11
    jobs: int = 1_000_000
    organizations: int = 100_000
    traced: int = 100_000


FULL = Effort()
QUICK = Effort(budget=0.5, pairs=7, jobs=100_000, traced=20_000)
TINY = Effort(repeats=1, budget=0, pairs=3, jobs=3_000, organizations=1_000, traced=2_000)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sides of one comparison, what ends them, and how many loops they bear.

    ``least``: the seconds of one sample. Short ones, and many, leave most pairs whole where
    something else takes the processor now and then.
    """

    ours: Timed
    floor: Timed
    close: Callable[[], object] | None = None
    most: int = 1 << 24
    least: float = 0.002


@dataclass(frozen=True, slots=True)
class Measured:
    """The ratio of each repeat, and what the sides took: seconds (or bytes) for one."""

    ratios: tuple[float, ...]
    ours: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Return the median of the repeats."""
        return statistics.median(self.ratios)


def paired(make: Callable[[], Pair]) -> Callable[[Effort], Measured]:
    """Return a measurement that builds a pair, measures it and ends it."""

    def measurement(effort: Effort) -> Measured:
        pair = make()
        try:
            return measure(pair, effort)
        finally:
            if pair.close is not None:
                pair.close()

    return measurement


def measure(pair: Pair, effort: Effort) -> Measured:
    """Run A B A B; take the median of the paired ratios of each repeat."""
    loops = calibrate(pair.ours, pair.least, pair.most)
    floor_loops = calibrate(pair.floor, pair.least, pair.most)
    ratios, ours, floor = [], list[float](), list[float]()
    for _ in range(effort.repeats):
        gc.collect()
        start = len(ours)
        end = perf_counter() + effort.budget
        while len(ours) - start < effort.pairs or perf_counter() < end:
            ours.append(pair.ours(loops) / loops)
            floor.append(pair.floor(floor_loops) / floor_loops)
        sides = zip(ours[start:], floor[start:], strict=True)
        ratios.append(statistics.median(a / b for a, b in sides))
    return Measured(tuple(ratios), tuple(ours), tuple(floor))


def calibrate(timed: Timed, least: float, most: int) -> int:
    """Double the loops, as pyperf does, until one sample takes long enough; it warms up too."""
    timed(1)  # the first call makes a connection, perhaps, which by itself takes that long
    loops = 1
    while loops < most and timed(loops) < least:
        loops *= 2
    return min(loops, most)


def loop(function: Callable[[Any], object], argument: object) -> Timed:
    """Time a function of one argument."""

    def timed(loops: int) -> float:
        turns = itertools.repeat(None, loops)
        start = clock()
        for _ in turns:
            function(argument)
        return clock() - start

    return timed


def loop_two(function: Callable[[Any, Any], object], a: object, b: object) -> Timed:
    """Time a function of two arguments, which is too short to bear a wrapper."""

    def timed(loops: int) -> float:
        turns = itertools.repeat(None, loops)
        start = clock()
        for _ in turns:
            function(a, b)
        return clock() - start

    return timed
