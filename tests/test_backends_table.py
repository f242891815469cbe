"""The capability table of the guide is what the classes declare."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from sigra.registry import _load

PAGE = Path(__file__).parents[1] / "docs" / "backends.md"


def table() -> dict[str, set[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    _, *names = rows[0]
    body = rows[2 : rows.index(["queue", "install", "a backend", "consumer"])]
    return {
        row[0]: {name for name, cell in zip(names, row[1:], strict=True) if cell == "yes"}
        for row in body
    }


@pytest.mark.parametrize("name", table())
def test_the_table_says_what_the_class_declares(name: str) -> None:
    """A capability stands in the guide if and only if the class has it."""
    if name not in ("sync", "thread", "asyncio") and find_spec(name) is None:
        pytest.skip(f"{name} is not installed here; make test-queues has it")
    assert table()[name] == set(_load(name).capabilities)
