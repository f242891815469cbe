"""What is installed, and what an import costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata, resources
from pathlib import Path
from typing import Any

import pytest

import sigra

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = SETTINGS["project"]
JOB_LIBRARIES = set("celery dramatiq huey oban pgqueuer procrastinate rq saq taskiq".split())


def loaded_by(code: str) -> set[str]:
    """Return the modules that the code loads into a fresh interpreter."""
    program = f"""
import json, sys
before = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.programs
def test_importing_the_package_loads_nothing_else_of_it() -> None:
    """``import sigra`` is free until a name of it is used."""
    ours = {name for name in loaded_by("import sigra") if name.partition(".")[0] == "sigra"}
    assert {"sigra"} == ours


@pytest.mark.programs
@pytest.mark.parametrize("code", ["import sigra", "import sigra; sigra.tenant_worker"])
def test_no_import_loads_what_is_not_needed_yet(code: str) -> None:
    """Neither the import nor the decorator waits for a logger, a queue, a hash or a loop."""
    lazy = JOB_LIBRARIES | {"django", "hashlib", "structlog"}
    if code == "import sigra":
        lazy |= {"asyncio", "wrapt"}  # wrapt itself brings asyncio
    assert set() == loaded_by(code) & lazy


@pytest.mark.programs
def test_every_public_name_can_be_imported_first() -> None:
    """No name works only after another has been loaded."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
for name in {sigra.__all__!r}:
    exec("from sigra import " + name)
    for module in [each for each in sys.modules if each.partition(".")[0] == "sigra"]:
        del sys.modules[module]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy package answers as any other."""
    with pytest.raises(AttributeError, match="no_such_name"):
        sigra.no_such_name  # noqa: B018
    assert set(sigra.__all__) <= set(dir(sigra))


@pytest.mark.programs
@pytest.mark.parametrize("package", ["sigra", "sigra.audit", "sigra.store", "sigra.testing"])
def test_a_package_can_be_listed_before_its_first_use(package: str) -> None:
    """A shell completes its names, though none of its modules is loaded yet."""
    code = f"import {package} as package; print(*dir(package))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(import_module(package).__all__) <= set(done.stdout.split())


def test_two_packages_are_needed_and_no_more() -> None:
    """The hard dependencies are wrapt and structlog; all else is an extra."""
    names = {re.split(r"[^\w.-]", wanted, maxsplit=1)[0] for wanted in PROJECT["dependencies"]}
    assert {"structlog", "wrapt"} == names


def test_dependencies_are_bounded_on_both_sides() -> None:
    """What was never tried, older or newer, is not let in."""
    assert [] == [w for w in PROJECT["dependencies"] if not re.search(r">=[\d.]+,<\d+$", w)]


def test_the_types_are_shipped() -> None:
    """Type checkers of users see the annotations."""
    assert resources.files("sigra").joinpath("py.typed").is_file()


def test_make_works_in_a_source_distribution() -> None:
    """The programs that it calls are there; without them it would say that Python is missing."""
    included = SETTINGS["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    called = re.findall(r"shell (?:\S+ )?([^/\s]+)/", (ROOT / "Makefile").read_text("utf-8"))
    assert [] == [folder for folder in called if folder not in included]


def test_the_version_is_the_packages() -> None:
    """``__version__`` is what the installer says."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", sigra.__version__)
    try:
        installed = metadata.version("sigra")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here")
    assert installed == sigra.__version__


def test_the_error_of_an_extra_names_the_python_that_it_needs() -> None:
    """On an older one ``pip install`` brings nothing, and says nothing."""
    for extra, needed in PROJECT["optional-dependencies"].items():
        _, _, least = needed[0].partition("python_version >= ")
        told = str(sigra.MissingExtraError(extra, "it"))
        install = f"run pip install 'sigra[{extra}]'"
        assert told.endswith(f"{install} on Python {least[1:-1]} or newer" if least else install)


def entry_points() -> list[str]:
    """List the targets of the entry points, as ``module:name``."""
    groups: dict[str, dict[str, str]] = PROJECT["entry-points"]
    return [*PROJECT["scripts"].values(), *(t for group in groups.values() for t in group.values())]


@pytest.mark.parametrize("target", entry_points())
def test_an_entry_point_leads_somewhere(target: str) -> None:
    """Each command, plugin and backend that is announced is there, or says what to install."""
    module, _, name = target.partition(":")
    try:
        found = import_module(module)
    except sigra.MissingExtraError:
        pytest.skip("its extra is not installed here")
    assert not name or hasattr(found, name)
