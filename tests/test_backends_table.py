"""The capability table of the guide is what the classes declare."""

from __future__ import annotations

import re
from typing import Any

import pytest
from capability_table import HEAD, OURS, PAGE, line, written

from sigra import MissingExtraError
from sigra.registry import backend_class


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


@pytest.mark.parametrize("name", [name for name in QUEUES if name != "django"])
@pytest.mark.parametrize("kind", [str, type])
def test_what_is_none_of_the_queue_s_objects_is_refused(name: str, kind: type) -> None:
    """Such as a URL, or the class itself; what Oban takes is a name, and what Django takes too."""
    try:
        backend: Any = backend_class(name)
    except MissingExtraError:
        pytest.skip("its extra is not installed here")
    given = {str: "redis://localhost" if name != "oban" else b"oban", type: dict}[kind]
    with pytest.raises(TypeError, match=f"{backend.__name__} takes .*, not "):
        backend(given)


HEADINGS = (
    "Set these",
    "Starting a consumer",
    "When a consumer dies",
    "When the server is away",
    "Stopping",
    "Retries, snoozes and delays",
    "Queues, priorities and unique keys",
    "Time limits and routes",
    "In your transaction",
    "State, results and cancelling",
    "Beside your own tasks",
    "Known limits",
)


def parts(queue: str) -> dict[str, str]:
    """Map each heading of a queue's page to what stands below it; "" to its beginning."""
    text = (PAGE.parent / "queues" / f"{queue}.md").read_text("utf-8")
    first, *others = re.split(r"(?m)^## (.+)\n", text)
    return {"": first, **dict(zip(others[::2], others[1::2], strict=True))}


def test_each_queue_has_its_page() -> None:
    """And there is no page of another."""
    assert QUEUES == sorted(path.stem for path in (PAGE.parent / "queues").iterdir())


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_s_page_begins_with_three_lines_and_what_to_set(name: str) -> None:
    """The lines are what the guide's table says: the extra, the backend and the commands."""
    page = parts(name)
    rows = re.findall(r"(?m)^\| \[.*$", PAGE.read_text("utf-8"))
    (row,) = [row for row in rows if f"(queues/{name}.md)" in row]
    lines = re.findall(r"(?m)^    (.+)$", page[""])
    assert 3 == len(lines)
    told = " ".join(lines)
    assert [] == [each for each in re.findall(r"`([^`]+)`", row) if each not in told]
    assert "| set | default | why |" in page["Set these"]


@pytest.mark.parametrize("name", QUEUES)
def test_the_headings_of_each_queue_s_page_have_the_same_order(name: str) -> None:
    """So that who knows one page finds his way in all; none of its parts is empty."""
    page = parts(name)
    assert [each for each in HEADINGS if each in page] == list(page)[1:]
    assert [] == [heading for heading, text in page.items() if not text.strip()]


@pytest.mark.parametrize("name", QUEUES)
def test_the_guide_says_where_a_job_s_state_is(name: str) -> None:
    """Where ``job.state`` is refused, the page says what to ask instead."""
    assert "State, results and cancelling" in parts(name)
