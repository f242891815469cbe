"""Every link of a page leads to a file that is here, and to a heading that stands in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for folder in ("docs", "examples") for path in (ROOT / folder).rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
_FENCE = re.compile(r"(?ms)^ *```.*?^ *```$")


@cache
def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", prose(page)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = found.count(slug)
        found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def dead(page: Path) -> list[str]:
    """List the links of a page that lead nowhere; those to other places are not looked at."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_the_page_leads_somewhere(page: Path) -> None:
    """Its file is there, and so is its heading."""
    assert [] == dead(page)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """A file or a heading that is gone, in this page or in another."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One's own: `x`\n\n[a](gone.md) [b](page.md#gone) [c](#ones-own-x) [d](#no)\n"
    )
    assert ["gone.md", "page.md#gone", "#no"] == dead(page)
