"""Every snippet of the README and the guide runs, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from sigra import configure
from sigra.workers import settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_VARYING = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "<time>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
]


def settled(text: str) -> str:
    """Put what differs from run to run out of the way."""
    for pattern, stand_in in _VARYING:
        text = re.sub(pattern, stand_in, text)
    return text.strip()


_python = PythonEvaluator()


def run(example: Example) -> None:
    example.namespace["__name__"] = "__main__"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        _python(example)
    example.namespace["printed"] = printed.getvalue()


def compare(example: Example) -> None:
    assert settled(example.namespace["printed"]) == settled(str(example.parsed))


PARSERS = [
    CodeBlockParser(language="python", evaluator=run),
    CodeBlockParser(language="text", evaluator=compare),
]


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page configures ends with it."""
    monkeypatch.setattr(settings, "_settings", settings._settings)
    before = structlog.get_config()
    with configure():
        yield
    structlog.configure(**before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_snippet_of_the_page_runs_and_prints_what_it_says(page: Path) -> None:
    """The page's code works as written."""
    examples = list(Sybil(parsers=PARSERS).parse(page).examples())
    for example in examples:
        example.evaluate()
    assert examples or "```python" not in page.read_text()
