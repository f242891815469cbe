"""Activity over time, as the bars of a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

OUTCOMES = ("success", "failure", "error")
WIDTH, HEIGHT = 720, 120
_STEPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (60, 300, 900, 3600, 4 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
)
_MOST_BARS = 60
_UNITS = (
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Part:
    """One colored part of a bar, in the units of the drawing."""

    outcome: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn: the parts of all bars, and what stands beside them."""

    parts: tuple[Part, ...]
    first: datetime
    last: datetime
    most: int
    total: int
    each: str


def step_of(first: datetime, last: datetime) -> timedelta:
    """Return the width of a bar: the shortest that needs at most 60 of them."""
    fitting = (step for step in _STEPS if (last - first) / step <= _MOST_BARS)
    return next(fitting, _STEPS[-1])


def draw(counts: Mapping[tuple[datetime, str], int], first: datetime, last: datetime) -> Plot:
    """Lay out the bars; ``counts`` maps a moment and an outcome to how many events there were."""
    step = step_of(first, last)
    start = _EPOCH + (first - _EPOCH) // step * step
    bars: dict[int, dict[str, int]] = {}
    for (moment, outcome), number in counts.items():
        bar = bars.setdefault((moment - start) // step, dict.fromkeys(OUTCOMES, 0))
        bar[outcome] = bar.get(outcome, 0) + number
    slots = max((last - start) // step + 1, 1)  # none where the last moment is before the first
    most = max((sum(bar.values()) for bar in bars.values()), default=0)
    width = WIDTH / slots
    parts = []
    for slot, bar in sorted(bars.items()):
        top = float(HEIGHT)
        for outcome, number in bar.items():
            height = number / most * HEIGHT
            top -= height
            title = f"{start + slot * step:%Y-%m-%d %H:%M} UTC: {number} {outcome}"
            parts.append(Part(outcome, slot * width, top, max(width - 1, 0.5), height, title))
    total = sum(counts.values())
    return Plot(
        tuple(part for part in parts if part.height), start, last, most, total, _words(step)
    )


def _words(step: timedelta) -> str:
    unit, name = next(known for known in _UNITS if known[0] <= step)
    number = step // unit
    return f"one {name}" if number == 1 else f"{number} {name}s"
