"""``sigra check`` follows the methods that a class's own method calls on its object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sigra.cli.app import sigra

HEAD = """
from sigra import request_scope_only, tenant_worker

@request_scope_only
def may(who): ...
class Base:
    def __init__(self, who=None):
        if who: self.begin(who)
    def run(self, who): self._go(who)
    def _go(self, who): self.hook(who)
    def hook(self, who): raise NotImplementedError
    def other(self, who): self.end(who)
class Asks(Base):
    def begin(self, who): may(who)
    def hook(self, who): may(who)
    def end(self, who): may(who)
class Deep(Asks): ...
class Quiet(Base):
    def begin(self, who): ...
    def hook(self, who): ...
    def end(self, who): ...
def go(base, who): base.run(who)
class Many:
    def all(*every): every[0].run(every[1])

@tenant_worker
"""


def status(folder: Path, body: str, more: str = "") -> int:
    """Check a module with a worker; return the status, 1 if a flow into ``may`` is found."""
    (folder / "jobs.py").write_text(f"{HEAD}def w(scope, c):\n {body}\n{more}\n")
    result = CliRunner().invoke(sigra, ["check", str(folder), "--json"])
    assert {flow["target"] for flow in json.loads(result.stdout)} <= {"jobs.may"}
    return result.exit_code


TEMPLATES = [
    "{}().run(scope)",
    "{}().other(scope)",
    "{}(scope)",
    "base = {}()\n base.run(scope)",
    "go({}(), scope)",
    "c.each({}().run, scope)",
]


@pytest.mark.parametrize("body", TEMPLATES)
@pytest.mark.parametrize("of", ["Asks", "Deep"])
def test_a_method_that_a_subclass_defines_is_followed(tmp_path: Path, body: str, of: str) -> None:
    """A base class's method calls it on an object whose class is known."""
    assert 1 == status(tmp_path, body.format(of))


@pytest.mark.parametrize("body", TEMPLATES)
def test_a_sibling_s_method_is_not(tmp_path: Path, body: str) -> None:
    """Another class that defines it otherwise raises no alarm."""
    assert 0 == status(tmp_path, f"Asks()\n {body.format('Quiet')}")


@pytest.mark.parametrize("over", ["super()", "super(Here, self)"])
@pytest.mark.parametrize("method", ["hook", "run", "__init__"])
@pytest.mark.parametrize(("base", "expected"), [("Asks", 1), ("Deep", 1), ("Quiet, Asks", 0)])
def test_super_is_the_class_above(
    tmp_path: Path, base: str, expected: int, method: str, over: str
) -> None:
    """What a class's own method calls on it is the method that the class inherits."""
    begin = f"class Here({base}):\n def {method}(self, who=None): {over}.{method}(who)"
    call = "Here(scope)" if method == "__init__" else f"Here().{method}(scope)"
    assert expected == status(tmp_path, call, begin)


def test_super_is_not_the_class_itself(tmp_path: Path) -> None:
    """The class's own method of that name is not taken for the one above."""
    begin = "class Here(Quiet):\n def hook(self, who): may(who)\n"
    assert 0 == status(
        tmp_path, "Here().run2(scope)", f"{begin} def run2(self, who): super().hook(who)"
    )


def test_a_method_without_a_name_for_its_object_is_no_error(tmp_path: Path) -> None:
    """It takes all in one parameter."""
    assert 0 == status(tmp_path, "m = Many()\n m.who = scope\n m.all(c)")


def reached(folder: Path, line: str) -> bool:
    """Check a package whose worker asks an object of another module; tell if that is found."""
    package = folder / "app"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from elsewhere import foreign\nfrom . import policies as rules\n"
        "from .policies import Heir, Policy, Quiet as Calm, policy as shared\n"
    )
    (package / "policies.py").write_text(
        "from elsewhere import Outside\nfrom sigra import request_scope_only\n"
        "class Policy:\n @staticmethod\n @request_scope_only\n def admits(who): ...\n"
        "class Heir(Policy): ...\n"
        "class Quiet(Outside): ...\npolicy = Policy()\nbox = object()\n"
        "box.policy = policy\ndef admit(who): ...\n"
    )
    (package / "jobs.py").write_text(
        f"from sigra import tenant_worker\n@tenant_worker\ndef w(scope):\n {line}\n"
    )
    result = CliRunner().invoke(sigra, ["check", str(folder), "--json"])
    return ["app.policies.Policy.admits"] == [one["target"] for one in json.loads(result.stdout)]


@pytest.mark.parametrize(
    "line",
    [
        "from app.policies import policy\n policy.admits(scope)",
        "from .policies import policy as guard\n guard.admits(scope)",
        "from app import policies\n policies.policy.admits(scope)",
        "import app.policies\n app.policies.policy.admits(scope)",
        "from app import shared\n shared.admits(scope)",
        "from app.policies import box\n box.policy.admits(scope)",
        "from app import rules\n rules.policy.admits(scope)",
        "import app\n app.rules.box.policy.admits(scope)",
        "from app import rules\n rules.Policy.admits(scope)",
        "from app import Policy\n Policy.admits(scope)",
        "from app import Heir\n Heir.admits(scope)",
        "from app import rules\n rules.Heir().admits(scope)",
    ],
)
def test_a_method_of_another_module_s_object_is_found_by_its_name(
    tmp_path: Path, line: str
) -> None:
    """An application often makes its policy in one module and asks it in all others."""
    assert reached(tmp_path, line)


@pytest.mark.parametrize(
    "line",
    [
        "from elsewhere import policy\n policy.admits(scope)",
        "import elsewhere.app\n elsewhere.app.policy.admits(scope)",
        "from app import policies\n policies.admits(scope)",
        "from app.policies import Quiet\n Quiet.admits(scope)",
        "from app.policies import admit\n admit.admits(scope)",
        "from app import Calm\n Calm.objects.admits(scope)",
        "from app import rules\n rules.admits(scope)",
        "from app import rules\n rules.Quiet.objects.admits(scope)",
        "from app import foreign\n foreign.admits(scope)",
    ],
)
def test_what_an_import_brings_otherwise_is_not_taken_for_one(tmp_path: Path, line: str) -> None:
    """Code of elsewhere, and a module, class or function of the tree, are no such objects."""
    assert not reached(tmp_path, line)
