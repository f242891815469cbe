"""The catalog: one worker a name, found where consumers look."""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import pytest

from sigra import (
    AuditScope,
    DuplicateWorkerError,
    UnknownWorkerError,
    catalog,
    configure,
    tenant_worker,
    worker,
)
from sigra.backends.sync import SyncBackend

ROOT = Path(__file__).parents[1]
ONE = """
from sigra import worker

@worker
def job(n=0):
    return n
"""


@worker
def known() -> None: ...


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Write a module of the test's own name and import it."""
    name = f"catalog_{request.node.name.partition('[')[0]}"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str = ONE) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    sys.modules.pop(name, None)


def script(tmp_path: Path, text: str) -> str:
    """Run a script in an interpreter of its own and return what it prints."""
    path = tmp_path / "script.py"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "" == done.stderr
    return done.stdout


def test_the_default_name_is_module_and_qualname() -> None:
    """Queues show where the function is."""
    assert f"{__name__}.known" == known.name


def test_names_from_an_enumeration_are_the_str_that_they_are() -> None:
    """Worker, action and queue may be members of an enumeration of str, and are told as its values."""

    class Names(str, Enum):  # noqa: UP042 - as it was written before 3.11
        WORKER = "billing.remind"
        ACTION = "invoice.remind"
        QUEUE = "mail"

    remind = worker(name=Names.WORKER, action=Names.ACTION, queue=Names.QUEUE)(lambda: None)
    definition, backend = remind.definition, SyncBackend()
    told = [definition.name, definition.action, definition.defaults.queue]
    assert ["billing.remind", "invoice.remind", "mail"] == [f"{name}" for name in told]
    with configure(backends={Names.QUEUE: backend}):
        job = remind.new({}, delay=1)
    assert [job] == backend.drain(1)


def test_a_name_can_be_given() -> None:
    """name= replaces the default."""
    assert "billing.close" == worker(name="billing.close")(lambda: None).name


@pytest.mark.parametrize("name", ["", " ", 7, "\ud800"])
def test_a_name_must_be_text(name: Any) -> None:
    """A name that is blank, no str, or has a lone surrogate, which no queue carries, is refused."""
    with pytest.raises(ValueError, match="name must be"):
        worker(name=name)(lambda: None)


def test_a_worker_is_found_by_its_name() -> None:
    """lookup() gives the definition."""
    assert known.definition is catalog.lookup(known.name)


def test_an_unknown_name_raises() -> None:
    """A name that nothing has raises UnknownWorkerError, a LookupError."""
    with pytest.raises(UnknownWorkerError) as caught:
        catalog.lookup("no.such")
    assert "no.such" == caught.value.name


def test_a_worker_that_is_not_imported_yet_is_found_in_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """find() imports the module that a pickled definition, or a queue's job, names."""
    (tmp_path / "catalog_unseen.py").write_text(ONE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = catalog.find("catalog_unseen.job", "catalog_unseen")
    assert sys.modules.pop("catalog_unseen").job.definition is found


@pytest.mark.parametrize("home", [None, __name__, "catalog_no_such_module"])
def test_a_worker_that_its_module_lacks_is_unknown(home: str | None) -> None:
    """find() raises UnknownWorkerError, also if there is no such module, and then says so."""
    with pytest.raises(UnknownWorkerError) as caught:
        catalog.find("no.such", home)
    missing = getattr(caught.value.__cause__, "name", None)
    assert missing == (home if home == "catalog_no_such_module" else None)


def test_a_worker_that_is_there_needs_no_module() -> None:
    """find() imports nothing for it: a notebook's worker has no module that could be imported."""
    assert known.definition is catalog.find(known.name, "catalog_no_such_module")


def test_every_worker_is_listed_in_order() -> None:
    """definitions() lists all workers by name, whichever came first."""
    held = [worker(name=f"catalog.order.{number}")(lambda: None) for number in (2, 1)]
    names = [definition.name for definition in catalog.definitions()]
    assert sorted(names) == names
    assert {known.name, *(each.name for each in held)} <= {*names}


def test_the_others_are_listed_where_one_goes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may let go of the last reference to a local worker at any moment."""

    class Dying(WeakValueDictionary[str, Any]):
        def keys(self) -> Any:
            names = list(super().keys())
            del held[:]
            gc.collect()
            return names

    held = [worker(name="catalog.going")(lambda: None)]
    monkeypatch.setattr(catalog, "_local", Dying(catalog._local))
    assert known.name in [definition.name for definition in catalog.definitions()]


def test_a_subscriber_hears_of_earlier_and_later_workers() -> None:
    """A backend that registers native tasks misses none."""
    heard: list[str] = []
    subscriber = lambda definition: heard.append(definition.name)  # noqa: E731
    catalog.subscribe(subscriber)
    try:
        late = worker(name="catalog.late")(lambda: None)
    finally:
        catalog._subscribers.remove(subscriber)
    assert (True, True) == (known.name in heard, late.name == heard[-1])


def test_two_functions_of_one_name_are_refused() -> None:
    """A consumer could not tell them apart."""
    first = worker(name="catalog.twice")(lambda: 1)
    with pytest.raises(DuplicateWorkerError, match=r"catalog\.twice"):
        worker(name="catalog.twice")(lambda: 2)
    assert first.definition is catalog.lookup("catalog.twice")


def test_the_refusal_says_where_both_are() -> None:
    """The error carries file and line of the two functions."""
    kept = worker(name="catalog.where")(lambda: 1)
    with pytest.raises(DuplicateWorkerError) as caught:
        worker(name="catalog.where")(lambda: 2)
    places = [caught.value.first, caught.value.second]
    assert [kept.__code__.co_firstlineno, kept.__code__.co_firstlineno + 2] == [
        int(place.rpartition(":")[2].rstrip(")")) for place in places
    ]


def test_a_second_definition_in_one_module_is_refused(module: Any) -> None:
    """A def that shadows an earlier worker of the module is a mistake, and is told so."""
    with pytest.raises(DuplicateWorkerError):
        module(ONE + "\n@worker\ndef job(m=0):\n    return m\n")


def test_the_same_lines_twice_in_one_module_are_refused(module: Any) -> None:
    """A pasted definition is a second one even where its text is the same."""
    with pytest.raises(DuplicateWorkerError):
        module(ONE + ONE)


def test_a_reload_takes_the_earlier_one_s_place(module: Any) -> None:
    """importlib.reload executes the module again, which is fine."""
    first = module()
    old = first.job
    new = importlib.reload(first).job
    assert (True, False) == (catalog.lookup(new.name) is new.definition, new is old)


def test_a_reload_brings_a_changed_function(module: Any) -> None:
    """After an edit the reloaded function is the one that runs."""
    first = module()
    module_file = Path(str(first.__file__))
    module_file.write_text(ONE.replace("return n", "return n + 1"), encoding="utf-8")
    assert 1 == importlib.reload(first).job.new({}).result()


def test_a_reload_may_rename_the_function_of_a_named_worker(module: Any) -> None:
    """After an edit the name stands for the function that has it now."""
    text = ONE.replace("@worker", "@worker(name='catalog.renamed')")
    first = module(text)
    Path(str(first.__file__)).write_text(text.replace("def job", "def renamed"), encoding="utf-8")
    assert importlib.reload(first).renamed.definition is catalog.lookup("catalog.renamed")


def test_a_worker_is_found_all_the_while_its_module_is_reloaded(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs go on meanwhile: one that found none failed for good."""

    class Watched(dict[str, Any]):
        def pop(self, name: str, *default: Any) -> Any:
            popped = super().pop(name, *default)
            found.append(catalog.lookup(name).name)
            return popped

    found: list[str] = []
    one = module("from sigra import worker\njob = worker(name='catalog.again')(lambda: 1)")
    monkeypatch.setattr(catalog, "_lasting", Watched(catalog._lasting))
    Path(str(one.__file__)).write_text(
        "from sigra import worker\ndef make(): return worker(name='catalog.again')(lambda: 22)\n"
        "job = make()"
    )
    importlib.reload(one)
    assert ({"catalog.again"}, 22) == ({*found}, catalog.lookup("catalog.again").function())


def test_a_reload_knows_a_function_behind_another_decorator(module: Any) -> None:
    """A wrapper is of its decorator's module; what is reloaded is the function's own."""
    held = "import contextlib\n@contextlib.contextmanager\ndef held(): yield\n@worker\n@held()"
    first = module(ONE.replace("@worker", held))
    assert importlib.reload(first).job.definition is catalog.lookup(first.job.name)


def test_a_reload_makes_the_workers_of_a_factory_anew(module: Any) -> None:
    """Those of before are in the module's hands until the factory has made them again."""
    made = "def make(name):\n    return worker(name=name)(lambda: name)\n"
    made += "east, west = make('catalog.east'), make('catalog.west')\n"
    new = importlib.reload(module(ONE + made))
    assert ["catalog.east", "catalog.west"] == [
        each.new({}).result() for each in (new.east, new.west)
    ]
    assert catalog.lookup("catalog.east") is new.east.definition


def test_a_reload_may_make_a_factory_s_worker_one_of_the_module(module: Any) -> None:
    """After an edit the new function is the one that is found, and lasts."""
    made = "def make(name):\n    return worker(name=name)(lambda: 1)\njob = make('catalog.moved')\n"
    first = module("from sigra import worker\n" + made)
    Path(str(first.__file__)).write_text(ONE.replace("@worker", "@worker(name='catalog.moved')"))
    new = importlib.reload(first)
    gc.collect()
    assert new.job.definition is catalog.lookup("catalog.moved")


def test_a_module_s_worker_lasts_whoever_holds_it(module: Any) -> None:
    """A decorator above it may keep the function alone, and jobs of it still come."""
    one = module("from sigra import worker\ndef job(): return 1\nworker(job)\n")
    gc.collect()
    assert one.job is catalog.lookup(f"{one.__name__}.job").function


@pytest.mark.parametrize("other", ["catalog_other", "catalog_two"])
def test_one_name_in_two_modules_is_refused(module: Any, tmp_path: Path, other: str) -> None:
    """Another module's function is another worker, however often each is executed."""
    text = ONE.replace("@worker", f"@worker(name='{other}')")
    module(text)
    (tmp_path / f"{other}.py").write_text(text, encoding="utf-8")
    with pytest.raises(DuplicateWorkerError):
        importlib.import_module(other)


def test_a_module_that_has_moved_is_the_same_one(module: Any, tmp_path: Path) -> None:
    """A new release may have it in another folder; its workers are still those of its name."""
    first = module()
    (tmp_path / "moved.py").write_text(ONE, encoding="utf-8")
    again = runpy.run_path(str(tmp_path / "moved.py"), run_name="".join([*first.__name__]))
    assert again["job"].definition is catalog.lookup(first.job.name)


def test_a_removed_and_imported_module_is_fine(module: Any) -> None:
    """Importing again after sys.modules lost it is another execution."""
    first = module()
    del sys.modules[first.__name__]
    assert module().job.definition is catalog.lookup(first.job.name)


def test_a_module_run_by_runpy_twice_is_fine(module: Any) -> None:
    """runpy.run_path makes a namespace of its own each time."""
    path = str(module().__file__)
    first = runpy.run_path(path, run_name="catalog_runpy")
    second = runpy.run_path(path, run_name="catalog_runpy")
    assert second["job"].definition is catalog.lookup(first["job"].name)


def test_a_module_run_by_runpy_again_may_have_changed(module: Any) -> None:
    """After an edit it is still another execution of the same file, and its function counts."""
    path = Path(module().__file__)
    runpy.run_path(str(path), run_name="catalog_edited")
    path.write_text(ONE.replace("return n", "return n + 1"), encoding="utf-8")
    second = runpy.run_path(str(path), run_name="catalog_edited")
    assert second["job"].definition is catalog.lookup("catalog_edited.job")


def test_another_function_of_a_name_is_refused_where_nobody_types() -> None:
    """A script, or what has no file, is no prompt: its second definition is a mistake."""
    namespace: dict[str, Any] = {"__name__": "catalog_untyped"}
    with pytest.raises(DuplicateWorkerError):
        exec(ONE + ONE, namespace)


def test_a_prompt_excuses_no_module(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody imports there is not typed there, and may define a name once."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(DuplicateWorkerError):
        module(ONE + ONE)


def test_lines_that_run_again_in_their_namespace_are_fine() -> None:
    """As a notebook does with a cell, where there is neither a file nor a prompt of Python's."""
    namespace: dict[str, Any] = {"__name__": "catalog_cell"}
    for _ in range(2):
        exec(ONE, namespace)  # noqa: S102 - as a notebook does
    assert namespace["job"].definition is catalog.lookup("catalog_cell.job")


def test_a_module_run_by_a_relative_path_is_the_same_module(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runpy.run_path("app.py") executes again has its named workers twice and no duplicate."""
    path = Path(module(ONE.replace("@worker", "@worker(name='catalog.relative')")).__file__)
    monkeypatch.chdir(tmp_path)
    again = runpy.run_path(path.name, run_name="catalog_relative")
    assert again["job"].definition is catalog.lookup("catalog.relative")


def test_a_prompt_whose_folder_is_gone_defines_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module without a file, such as a prompt's or python -c's, does without the folder, too."""
    (folder := tmp_path / "gone").mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    namespace: dict[str, Any] = {"__name__": "catalog_fileless"}
    exec(ONE, namespace)  # noqa: S102 - as a prompt does
    assert namespace["job"].definition is catalog.lookup("catalog_fileless.job")


@pytest.mark.programs
def test_a_worker_of_main_is_named_after_it(tmp_path: Path) -> None:
    """A script's own worker is __main__.job, and works there."""
    text = ONE + "\nprint(job.name, job.new({'n': 4}).result())"
    assert "__main__.job 4\n" == script(tmp_path, text)


@pytest.mark.programs
def test_main_executed_again_is_fine(tmp_path: Path) -> None:
    """A script that is executed a second time in one process replaces its workers."""
    text = ONE + (
        "\nimport runpy, sys"
        "\nif __name__ == '__main__' and not hasattr(sys, 'again'):"
        "\n    sys.again = True"
        "\n    print(runpy.run_path(__file__, run_name='__main__')['job'].name)"
    )
    assert "__main__.job\n" == script(tmp_path, text)


@pytest.mark.programs
def test_main_imported_by_its_own_name_is_fine(tmp_path: Path) -> None:
    """What runs as __main__, and is then imported, has its named workers twice and no duplicate."""
    text = ONE.replace("@worker", "@worker(name='catalog.main')") + (
        "\nif __name__ == '__main__':"
        "\n    import script"
        "\n    from sigra.catalog import lookup"
        "\n    print(lookup('catalog.main') is script.job.definition)"
    )
    assert "True\n" == script(tmp_path, text)


@pytest.mark.programs
def test_main_reached_by_a_link_is_the_module_that_it_imports(tmp_path: Path) -> None:
    """Python runs a script under the path that was given, and imports it by its folder's own."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")  # as /tmp is one on macOS
    text = ONE.replace("@worker", "@worker(name='catalog.linked')") + (
        "\nif __name__ == '__main__':"
        "\n    import script"
        "\n    print(script.job.name, script.__file__ == __file__)"
    )
    assert "catalog.linked False\n" == script(tmp_path / "link", text)


@pytest.mark.programs
def test_a_spawned_child_has_the_same_names(tmp_path: Path) -> None:
    """multiprocessing's spawn executes the script as __mp_main__, under the parent's names."""
    text = ONE + (
        "\nimport multiprocessing"
        "\ndef child(queue):"
        "\n    from sigra.catalog import lookup"
        "\n    queue.put((job.name, lookup('__main__.job').function(n=3)))"
        "\nif __name__ == '__main__':"
        "\n    context = multiprocessing.get_context('spawn')"
        "\n    queue = context.SimpleQueue()"
        "\n    process = context.Process(target=child, args=(queue,))"
        "\n    process.start()"
        "\n    print(*queue.get())"
        "\n    process.join()"
    )
    assert "__main__.job 3\n" == script(tmp_path, text)


@pytest.mark.programs
@pytest.mark.parametrize("shell", ["sys.ps1 = '>>> '", "sys.modules['marimo'] = sys"])
def test_lines_entered_again_at_a_prompt_are_fine(tmp_path: Path, shell: str) -> None:
    """An interactive session redefines its workers as it likes, and so does a notebook's cell."""
    text = f"import sys\n{shell}{ONE}{ONE}\nprint(job.name)"
    assert "__main__.job\n" == script(tmp_path, text)


@pytest.mark.programs
@pytest.mark.parametrize("namespace", ["None", "{}"])
def test_a_worker_is_defined_again_in_code_interact(tmp_path: Path, namespace: str) -> None:
    """So it is in the shells that Flask and Django make of it, whose functions have no module."""
    again = ONE.replace("return n", "return n + 1")
    typed = f"{ONE}\n{again}\nprint(job.new({{}}).result())\nexit()".splitlines()
    text = (
        f"import code\nlines = iter({typed!r})"
        f"\ncode.interact('', lambda prompt: next(lines), {namespace}, '')"
    )
    assert "1\n" == script(tmp_path, text)


def make(name: str | None = None) -> Any:
    @tenant_worker(name=name)
    def made(scope: AuditScope) -> str | None:
        return name

    return made


def test_a_factory_that_makes_two_without_names_is_refused() -> None:
    """Two living workers of one factory would share a name."""
    kept = make()
    with pytest.raises(DuplicateWorkerError):
        make()
    assert kept.definition is catalog.lookup(kept.name)


def test_a_factory_that_names_them_makes_as_many_as_it_likes() -> None:
    """name= tells them apart."""
    args = {"organization_id": None, "actor_id": None}
    workers = [make(f"catalog.made.{n}") for n in range(3)]
    assert [w.name for w in workers] == [w.new(args).result() for w in workers]


def test_a_name_is_taken_as_long_as_its_local_function_lives() -> None:
    """Two functions of one name are refused too where nobody holds what the first one became."""

    def first() -> None: ...
    def second() -> None: ...

    worker(name="catalog.taken")(first)
    with pytest.raises(DuplicateWorkerError, match="catalog.taken"):
        worker(name="catalog.taken")(second)
    assert "catalog.taken" == worker(name="catalog.taken")(first).name
    del first
    assert "catalog.taken" == worker(name="catalog.taken")(second).name


def test_a_factory_may_make_a_worker_that_enqueues_itself_again_and_again() -> None:
    """Such a function refers to itself, and so is garbage until it is collected."""

    def make() -> str:
        @worker(name="catalog.circle")
        def circle(n: int = 0) -> None:
            if n:
                circle.new({"n": n - 1})

        return circle.name

    gc.disable()
    try:
        assert ["catalog.circle"] * 3 == [make() for _ in range(3)]
    finally:
        gc.enable()


def test_a_local_worker_lives_as_long_as_somebody_holds_it() -> None:
    """A name of a function's local worker is free again when the worker is gone."""
    for _ in range(3):
        assert "sigra" != make().name


def test_a_local_worker_that_is_gone_is_not_found() -> None:
    """The catalog keeps no local worker alive."""
    name = make("catalog.gone").name
    gc.collect()
    with pytest.raises(UnknownWorkerError):
        catalog.lookup(name)


def test_nothing_is_kept_of_a_local_worker_that_is_gone() -> None:
    """A factory may make workers under new names for ever."""

    def make() -> str:
        return worker(name="catalog.forgotten")(lambda: None).name

    name = make()
    gc.collect()
    tables = [table for table in vars(catalog).values() if isinstance(table, Mapping)]
    assert len(tables) >= 2
    assert [] == [table for table in tables if name in table]
