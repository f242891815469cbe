"""The registry: backends by name, ours and those of other packages."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sigra import Backend, MissingExtraError, SyncBackend, UnknownBackendError, registry
from sigra.registry import backend_class, backend_names, resolve_backend

GOOD = """
from sigra import SyncBackend

class Third(SyncBackend):
    name = "third"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a distribution that offers a backend, for the length of a test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(registry, "_instances", dict(registry._instances))

    def write(module: str, text: str, name: str) -> None:
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sigra.backends]\n{name} = {module}:Third\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    return write


@pytest.mark.parametrize("name", ["sync", "thread", "asyncio"])
def test_a_built_in_backend_needs_no_entry_point(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may be a single file, without what an installation writes."""
    monkeypatch.setattr(registry, "GROUP", "sigra.no_such_group")
    assert name == backend_class(name).name


@pytest.mark.parametrize("name", ["sync", "thread", "asyncio"])
def test_a_built_in_backend_is_a_backend(name: str) -> None:
    """Each of ours has the port's four members."""
    assert isinstance(resolve_backend(name), Backend)


def test_a_name_stands_for_one_instance() -> None:
    """Every use of a name shares the backend."""
    assert resolve_backend("sync") is resolve_backend("sync")


def test_an_instance_stands_for_itself() -> None:
    """An instance is taken as it is."""
    own = SyncBackend()
    assert own is resolve_backend(own)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The error carries the names that there are."""
    with pytest.raises(UnknownBackendError) as caught:
        resolve_backend("kafka")
    assert ("kafka", backend_names()) == (caught.value.name, caught.value.known)


def test_the_names_are_sorted() -> None:
    """Ours are among the names, in order."""
    names = backend_names()
    assert (tuple(sorted(names)), set()) == (names, {"sync", "thread", "asyncio"} - set(names))


@pytest.mark.parametrize("thing", [object(), 7, SyncBackend, None])
def test_what_is_no_backend_is_refused(thing: Any) -> None:
    """An object without the port's members raises TypeError."""
    with pytest.raises(TypeError):
        resolve_backend(thing)


def test_a_third_party_adds_a_backend(install: Any) -> None:
    """A package's entry point is found by its name."""
    install("sigra_third", GOOD, "third")
    assert "third" == resolve_backend("third").name


def test_a_third_party_is_listed(install: Any) -> None:
    """Its name is among the known ones."""
    install("sigra_listed", GOOD, "listed")
    assert "listed" in backend_names()


def test_a_missing_package_of_ours_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend of ours whose queue is not installed says what to install."""
    monkeypatch.setitem(sys.modules, "celery", None)
    for module in [name for name in sys.modules if name.startswith("sigra.backends.celery")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingExtraError, match=r"pip install 'sigra\[celery\]'") as caught:
        resolve_backend("celery")
    assert "celery" == caught.value.extra


@pytest.mark.parametrize("error", [ImportError, ModuleNotFoundError])
def test_a_package_that_an_import_hook_refuses_is_missing_too(
    monkeypatch: pytest.MonkeyPatch, error: type[ImportError]
) -> None:
    """Where a hook of Python's import says that there is none, the extra is named as well."""

    class Refusing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == "celery":
                raise error(name)

    for module in [name for name in sys.modules if re.match(r"(sigra\.backends\.)?celery\b", name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"pip install 'sigra\[celery\]'") as caught:
        resolve_backend("celery")
    assert ("celery", "celery") == (caught.value.extra, caught.value.package)


@pytest.mark.parametrize(
    ("queue", "needs"), [("celery", "kombu"), ("taskiq", "anyio"), ("rq", "redis")]
)
@pytest.mark.parametrize("has_queue", [True, False])
def test_a_missing_package_is_told_by_the_name_that_its_user_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: str, needs: str, has_queue: bool
) -> None:
    """It is the queue's own, whatever was imported first, or what the queue lacks."""
    ours = rf"(sigra\.backends\.)?{queue}(?![a-z])"
    for module in [name for name in sys.modules if re.match(ours, name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, needs, None)
    if has_queue:
        (tmp_path / f"{queue}.py").write_text(f"import {needs}\n")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, queue, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'sigra\[{queue}\]'") as caught:
        resolve_backend(queue)
    package = caught.value.package.partition(".")[0]
    assert (needs if has_queue else queue) == package


@pytest.mark.parametrize("module", ["collections", "rq"])
def test_a_broken_package_of_a_queue_is_not_told_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    """It is installed, or a file of one's own has its name: to install it changes nothing."""
    (tmp_path / "rq.py").write_text(f"from {module} import Nope\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if re.match(r"(sigra\.backends\.)?rq\b", name)]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match="cannot be loaded: cannot import name 'Nope'") as caught:
        resolve_backend("rq")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_third_party_s_missing_module_names_its_package(install: Any) -> None:
    """No extra of ours brings it: the error says which package lacks which module."""
    install("sigra_lacking", "import no_such_queue\n", "lacking")
    with pytest.raises(ImportError, match="package sigra_lacking .* 'no_such_queue'") as caught:
        resolve_backend("lacking")
    assert ("no_such_queue", False) == (caught.value.name, "pip" in str(caught.value))


def test_an_entry_point_that_leads_nowhere_is_named(install: Any) -> None:
    """A package that has renamed its class is told by its own name and the backend's."""
    install("sigra_renamed", "class Fourth: ...\n", "renamed")
    with pytest.raises(ImportError, match="'renamed' of the package sigra_renamed .* 'Third'"):
        resolve_backend("renamed")


def test_a_backend_s_own_missing_extra_is_kept(install: Any) -> None:
    """A module that says itself which extra it needs is not overruled."""
    text = "from sigra import MissingExtraError\nraise MissingExtraError('fast', 'orjson')\n"
    install("sigra_saying", text, "saying")
    with pytest.raises(MissingExtraError) as caught:
        resolve_backend("saying")
    assert "fast" == caught.value.extra


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_backend_is_made_makes_its_own() -> None:
    """The thread that was making it is not in the child, nor would it free the lock."""
    code = """
import os, signal, threading
from sigra import registry
making, made = threading.Event(), threading.Event()
def slow(name):
    making.set(); made.wait()
    return by_name(name)
by_name, registry.backend_class = registry.backend_class, slow
threading.Thread(target=registry.resolve_backend, args=["thread"], daemon=True).start(); making.wait()
if not (child := os.fork()):
    signal.alarm(60); made = threading.Event(); made.set()
    os._exit(registry.resolve_backend("sync").name != "sync")
os._exit(bool(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert 0 == subprocess.run(command, timeout=240, check=False).returncode


def test_a_backend_that_imports_what_defines_workers_waits_for_no_other_s_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who imports that just then waits neither for the backend, to put its workers in place."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_instances", {})
    begun, importing = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "sigra_events", (begun, importing), raising=False)
    (tmp_path / "app_of_two.py").write_text(
        "import sys\n"
        "from sigra import tenant_worker\n"
        "begun, importing = sys.sigra_events\n"
        "importing.set(); assert begun.wait(60)\n"
        "tenant_worker(name='tests.of_two')(lambda scope: None)\n"
    )

    def backend() -> SyncBackend:
        begun.set()
        importlib.import_module("app_of_two")
        return SyncBackend()

    def app() -> Any:
        return importlib.import_module("app_of_two")

    monkeypatch.setattr(registry, "backend_class", lambda name: backend)
    threads = [threading.Thread(target=app, daemon=True)]
    threads[0].start()
    assert importing.wait(60)
    threads.append(threading.Thread(target=resolve_backend, args=["of_two"], daemon=True))
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert [thread.is_alive() for thread in threads] == [False, False]
