"""The capability table of the guide is what the classes declare."""

from __future__ import annotations

import re

import pytest
from capability_table import HEAD, OURS, PAGE, line, written

from sigra import MissingExtraError


def test_each_backend_has_its_line() -> None:
    """The table names what we offer by name, and nothing else."""
    assert set(written()) == set(OURS)


def test_each_capability_has_its_column() -> None:
    """``make table`` writes it."""
    assert "\n".join(HEAD) in PAGE.read_text("utf-8")


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_line_says_what_the_class_declares(name: str) -> None:
    """A capability stands in the guide if and only if the class has it; else ``make table``."""
    try:
        expected = line(name)
    except MissingExtraError:
        pytest.skip("its extra is not installed here")
    assert expected == written()[name]


QUEUES = sorted(set(OURS) - {"sync", "thread", "asyncio"})


@pytest.mark.parametrize("name", QUEUES)
def test_the_guide_says_where_a_job_s_state_is(name: str) -> None:
    """Where ``job.state`` is refused, the page says what to ask instead."""
    told = PAGE.read_text("utf-8").partition("## Where a job's state is\n")[2].partition("\n## ")[0]
    assert name in [row.lower() for row in re.findall(r"(?m)^\| (\w+)", told)]


@pytest.mark.parametrize("name", QUEUES)
def test_the_guide_begins_with_what_to_set(name: str) -> None:
    """Each queue's page has a list of three lines at most before its prose."""
    text = (PAGE.parent / "queues" / f"{name}.md").read_text("utf-8").partition("\n\n")[2]
    first, _, rest = text.partition("\n\n")
    assert all(line.startswith("- ") for line in first.splitlines())
    assert (True, True) == (len(first.splitlines()) <= 3, bool(rest.strip()))
