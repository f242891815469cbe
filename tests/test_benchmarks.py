"""The benchmarks: declared well, and able to run. Nothing here is timed."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.goals import GOALS
from benchmarks.measure import TINY, Measured, Pair, measure
from benchmarks.report import Reading

ASKED = {"1", "1b", "2", "2b", "5", "6", "7", "8", "10", "11", "13", "13b", "17"}


def test_every_goal_is_declared_once() -> None:
    """The table has each goal that was asked for, and no number twice."""
    numbers = [goal.number for goal in GOALS]
    assert (len(numbers), set()) == (len(set(numbers)), ASKED - set(numbers))


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.number)
def test_a_goal_is_well_formed(goal) -> None:
    """A goal says what it measures, against what, and how much it may be."""
    assert goal.work and goal.floor and callable(goal.measure)
    assert goal.limit is None or 0 < goal.limit < 10
    assert (goal.floor == "H_s") <= (goal.codec == "stdlib")
    assert goal.codec in ("compiled", "stdlib")


def test_nested_args_are_three_kilobytes() -> None:
    """The large args are what their goal says."""
    from benchmarks.byhand import FLAT, NESTED

    text = json.dumps(NESTED, separators=(",", ":"))
    assert (10, True) == (len(FLAT), 2_800 <= len(text) <= 3_300)


def test_the_ratio_is_that_of_the_pairs() -> None:
    """A side that takes half as long has the ratio 0.5."""
    measured = measure(Pair(lambda loops: loops * 1.0, lambda loops: loops * 2.0), TINY)
    assert 0.5 == measured.ratio


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.9, "holds"), (0.98, "within 10 %"), (1.0, "falls short")]
)
def test_a_verdict_allows_for_ten_percent(ratio, verdict) -> None:
    """Up to the limit a goal holds, and up to a tenth above it nearly so."""
    assert verdict == Reading(GOALS[0], Measured((ratio,), (1.0,), (1.0,))).verdict


@pytest.mark.programs
def test_one_goal_runs_to_its_table(tmp_path, capsys) -> None:
    """The command measures in a child process, prints a table and writes its JSON."""
    assert 0 == main(["--effort", "tiny", "--only", "2", "--results", str(tmp_path)])
    document = json.loads((tmp_path / "results.json").read_text())
    assert ["2"] == [row["goal"] for row in document["goals"]]
    assert document["goals"][0]["ratio"] > 0 and "H_s" in capsys.readouterr().out


def test_what_of_the_queues_is_not_measured_is_said() -> None:
    """Each queue is a row, or stands among the reasons."""
    from benchmarks.queues import goals

    found, missing = goals()
    said = " ".join([*(goal.number for goal in found), *missing])
    queues = "celery rq procrastinate dramatiq saq oban huey django pgqueuer taskiq".split()
    assert [name for name in queues if name not in said] == []
