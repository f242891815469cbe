"""The reference is what the source says, and names all that is public."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reference

from sigra.testing import ConsumerContract

ROOT = Path(__file__).parents[1]


@pytest.mark.programs  # griffe asks git where the source is
def test_the_page_is_what_the_source_says() -> None:
    """A signature or docstring that changes changes the page: run ``make reference``."""
    assert reference.page() == reference.PAGE.read_text("utf-8")


@pytest.mark.programs
def test_each_public_name_stands_there_once() -> None:
    """What a package exports, and what the guide imports, is found by its name."""
    package = reference.load()
    paths = [path for paths in reference.sections(package).values() for path in paths]
    told = [reference.found(package, path).path for path in paths]
    assert len(set(told)) == len(told)
    public = {("", str(name)) for name in package.exports} - {("", "__version__")}
    for module in reference.PACKAGES:
        public |= {(f"{module}.", str(name)) for name in package[module].exports}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for module, names in re.findall(
            r"from sigra\.?([\w.]*) import ([\w, ]+)", page.read_text()
        ):
            public |= {(f"{module}." if module else "", name.strip()) for name in names.split(",")}
    wanted = {reference.found(package, module + name).path for module, name in public}
    assert {"sigra.audit"} == wanted - set(told)  # a package


def test_each_promise_of_the_suite_stands_there_once() -> None:
    """Those of its parts too: who writes a backend reads there what it will be asked."""
    told = re.findall(r"(?m)^- `(test_\w+)`: ", reference.PAGE.read_text("utf-8"))
    assert sorted(told) == [name for name in dir(ConsumerContract) if name.startswith("test_")]
