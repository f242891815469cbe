"""``sigra check`` finds where a worker's scope flows into an authorization function."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import FrameType

import pytest
from amounts import MANY
from click.testing import CliRunner, Result
from rights import unprivileged

from sigra.cli.app import sigra
from sigra.cli.check.flows import find_flows
from sigra.cli.check.sources import Sources

AUTH = """
import sigra
from sigra import request_scope_only

@request_scope_only
def can_edit(scope, thing=None): ...

def _may(scope): ...
may = sigra.request_scope_only(_may)

class Policy:
    @request_scope_only
    def allows(self, who): ...
"""
HEAD = """
import functools
from sigra import tenant_worker
from app import auth
from app.auth import Policy, can_edit, may as allowed

def inner(value): return can_edit(value)
def passes(value): return value
def safe(value): return None
def apply(check, who=None): return check(who)
def chosen(): return can_edit
def load(id=None): return None
may_edit = auth.can_edit
may_edit_now = can_edit if __debug__ else load
may_edit_it = functools.partial(can_edit, thing=1)
class Box:
    def __init__(self, scope): self.scope = scope
    def ask(self): return can_edit(self.scope)
class Keeper:
    def __init__(self, who): self._who, self.host = who, load()
    def ask(self): return self._really()
    def _really(self): return can_edit(self._who)
    def safe(self): return can_edit(self.host)
class Case(Box): pass
class Own(Policy):
    def asks(self, who): return self.allows(who)
class Loose(Own):
    def allows(self, who): return None
class Base:
    def asks(self, who): return self.allows(who)
class Form(Base):
    allows = Policy.allows
def gives(value): yield value

@tenant_worker(name="w")
def work(scope, args):
"""


def check(folder: Path, *bodies: str, options: tuple[str, ...] = ()) -> Result:
    package = folder / "app"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "auth.py").write_text(AUTH)
    for number, body in enumerate(bodies):
        lines = "".join(f"    {line}\n" for line in body.split("\n"))
        (package / f"jobs{number}.py").write_text(HEAD + lines)
    return CliRunner().invoke(sigra, ["check", str(folder), *options])


def only_flow(folder: Path, jobs: str) -> tuple[str, str]:
    """Write a module of jobs, check it, and return from where to where its one flow goes."""
    check(folder)
    (folder / "app" / "jobs.py").write_text(jobs)
    (flow,) = json.loads(check(folder, options=("--json",)).stdout)
    return flow["worker"], flow["target"]


@pytest.mark.parametrize(
    ("body", "target"),
    {
        "can_edit(scope)": "can_edit",
        "auth.can_edit(thing=1, scope=scope)": "can_edit",
        "allowed(scope)": "may",
        "s = scope\nreturn can_edit(s)": "can_edit",
        "a, b = scope, 1\ncan_edit(1, a)": "can_edit",
        "can_edit([{'who': scope}])": "can_edit",
        "can_edit(**{'scope': scope})": "can_edit",
        "inner(scope)": "can_edit",
        "can_edit(passes(passes(scope)))": "can_edit",
        "can_edit(Box(scope))": "can_edit",
        "box = Box(scope)\ncan_edit(box.scope)": "can_edit",
        "Box(scope).ask()": "can_edit",
        "Keeper(scope).ask()": "can_edit",
        "keeper = Keeper(scope)\ncan_edit(keeper._who)": "can_edit",
        "box = Box(None)\nbox.it = scope\nmine = box\ncan_edit(mine.it)": "can_edit",
        "box = Box(scope)\nbox.ask()": "can_edit",
        "self_made = Box(None)\nself_made.owner = scope\ncan_edit(self_made)": "can_edit",
        "policy = Policy()\nif not policy.allows(scope):\n    return": "allows",
        "Policy().allows(who=scope)": "allows",
        "functools.partial(can_edit, scope)()": "can_edit",
        "def later():\n    can_edit(scope)\nlater()": "can_edit",
        "(lambda: can_edit(scope))()": "can_edit",
        "(lambda can_edit=can_edit: can_edit(scope))()": "can_edit",
        "for s in [scope]:\n    can_edit(s)": "can_edit",
        "with scope as s:\n    try:\n        pass\n    finally:\n        can_edit(s)": "can_edit",
        "match 1:\n    case _:\n        can_edit(scope)": "can_edit",
        "while True:\n    can_edit(s)\n    s = scope": "can_edit",
        "return [can_edit(s) for s in (scope,)]": "can_edit",
        "return [1 for s in (scope,) if can_edit(s)]": "can_edit",
        "return {s: can_edit(s) for s in (scope,)}": "can_edit",
        "can_edit({1: s for s in [scope]})": "can_edit",
        "can_edit([scope if args else 1])": "can_edit",
        "return 1 if can_edit(scope) else 2": "can_edit",
        "return args[can_edit(scope)]": "can_edit",
        "args[can_edit(scope)] = 1": "can_edit",
        "held = []\nheld += [scope]\ncan_edit(held)": "can_edit",
        "class Own(args.kinds[0], Policy): ...\nOwn().allows(scope)": "allows",
        "if args:\n    scope = load()\ncan_edit(scope)": "can_edit",
        "if args:\n    scope = load()\nelse:\n    pass\ncan_edit(scope)": "can_edit",
        "for scope in args:\n    pass\ncan_edit(scope)": "can_edit",
        "for i in args:\n    s = scope\n    if i:\n        break\n    s = i\ncan_edit(s)": "can_edit",
        "for i in args:\n    s = scope\n    if i:\n        continue\n    s = i\ncan_edit(s)": "can_edit",
        "for i in args:\n    can_edit(s)\n    s = t\n    t = scope": "can_edit",
        "try:\n    scope = load()\nexcept OSError:\n    pass\ncan_edit(scope)": "can_edit",
        "try:\n    s = scope\n    s = load()\nexcept OSError:\n    can_edit(s)": "can_edit",
        "try:\n    return load()\nfinally:\n    can_edit(scope)": "can_edit",
        "match args:\n    case 1:\n        scope = load()\ncan_edit(scope)": "can_edit",
        "match scope:\n    case s:\n        can_edit(s)": "can_edit",
        "match [scope]:\n    case [s, *_]:\n        can_edit(s)": "can_edit",
        "args and (scope := load())\ncan_edit(scope)": "can_edit",
        "scope = load() if args else scope\ncan_edit(scope)": "can_edit",
        "scope, s = load(), scope\ncan_edit(s)": "can_edit",
        "box = Box(scope)\nbox.scope = 1\nbox.scope = scope\nbox.ask()": "can_edit",
        "if (q := scope):\n    can_edit(q)": "can_edit",
        "can_edit(q := scope)": "can_edit",
        "aw = can_edit\naw(scope)": "can_edit",
        "aw = can_edit if args else safe\naw(scope)": "can_edit",
        "aw = auth.can_edit\nagain = aw\nagain(scope)": "can_edit",
        "if args:\n    aw = safe\nelse:\n    aw = can_edit\naw(scope)": "can_edit",
        "ask = Policy().allows\nask(scope)": "allows",
        "box = Box(scope)\nother = box\nother.ask()": "can_edit",
        "may_edit(scope)": "can_edit",
        "may_edit_now(scope)": "can_edit",
        "may_edit_it(scope)": "can_edit",
        "aw = functools.partial(can_edit, thing=1)\naw(scope)": "can_edit",
        "aw = functools.partial(inner)\naw(scope)": "can_edit",
        "Own().allows(scope)": "allows",
        "own = Own()\nown.asks(scope)": "allows",
        "Form().asks(scope)": "allows",
        "Case(scope).ask()": "can_edit",
        "for s in gives(scope):\n    can_edit(s)": "can_edit",
        "def own():\n    yield from [scope]\nfor s in own():\n    can_edit(s)": "can_edit",
        "can_edit(typing.cast(object, scope))": "can_edit",
        "with contextlib.nullcontext(scope) as s:\n    can_edit(s)": "can_edit",
        "for _, s in enumerate([scope]):\n    can_edit(s)": "can_edit",
        "can_edit(next(iter([scope])))": "can_edit",
        "(lambda s: can_edit(s))(scope)": "can_edit",
        "(lambda s: can_edit(s))(s=scope)": "can_edit",
        "aw = lambda s: can_edit(s)\naw(scope)": "can_edit",
        "later = lambda s=scope: can_edit(s)": "can_edit",
        "def later(s=scope):\n    can_edit(s)": "can_edit",
        "def later():\n    can_edit(s)\ns = scope\nlater()": "can_edit",
        "def own():\n    return scope\ncan_edit(own())": "can_edit",
        "s = 1\ndef take():\n    nonlocal s\n    s = scope\ntake()\ncan_edit(s)": "can_edit",
        "s = 1\ndef take():\n    nonlocal s\n    s = scope\n    return 1\nif take():\n    can_edit(s)": "can_edit",
        "def take():\n    def inner():\n        nonlocal s\n        s = scope\n    inner()\n"
        "s = 1\ntake()\ncan_edit(s)": "can_edit",
        "s = 1\ndef take(x):\n    nonlocal s\n    s = x\ntake(scope)\ncan_edit(s)": "can_edit",
        "s = 1\ndef take(x):\n    nonlocal s\n    s = x\nlist(map(take, [scope]))\n"
        "can_edit(s)": "can_edit",
        "aw = can_edit\ndef own(s):\n    aw(s)\nown(scope)": "can_edit",
        "aw = args.get('ask') or can_edit\naw(scope)": "can_edit",
        "(args or can_edit)(scope)": "can_edit",
        "sync_to_async(can_edit)(scope)": "can_edit",
        "aw = asgiref.sync.sync_to_async(can_edit, thread_sensitive=False)\naw(scope)": "can_edit",
        "async_to_sync(Policy().allows)(who=scope)": "allows",
        "def pick():\n    return can_edit if args else safe\npick()(scope)": "can_edit",
        "apply(can_edit, scope)": "can_edit",
        "apply(who=scope, check=auth.can_edit)": "can_edit",
        "apply(lambda s: can_edit(s), scope)": "can_edit",
        "apply(Policy().allows, scope)": "allows",
        "aw = can_edit\napply(aw, scope)": "can_edit",
        "def own(s):\n    can_edit(s)\napply(own, scope)": "can_edit",
        "list(map(can_edit, [scope]))": "can_edit",
        "args.pool.submit(inner, scope)": "can_edit",
        "args.run(None, can_edit, *(1, scope))": "can_edit",
        "threading.Thread(target=can_edit, args=(scope,)).start()": "can_edit",
        "threading.Thread(None, inner, None, [scope]).start()": "can_edit",
        "Process(target=can_edit, kwargs={'scope': scope}, daemon=True).start()": "can_edit",
        "threading.Timer(1, Policy().allows, (scope,)).start()": "allows",
        "threading.Timer(1, function=auth.can_edit, kwargs={'scope': scope}).start()": "can_edit",
        "chosen()(scope)": "can_edit",
        "aw = chosen()\naw(scope)": "can_edit",
        "apply(chosen(), scope)": "can_edit",
        "held = []\nheld.append(scope)\ncan_edit(held)": "can_edit",
        "held = {}\nheld.update(who=scope)\ncan_edit(held['who'])": "can_edit",
        "held = set()\nheld.add(scope)\nfor s in held:\n    can_edit(s)": "can_edit",
        "held = [[]]\nheld[0].insert(0, scope)\ncan_edit(held)": "can_edit",
        "args.queue.put(scope)\ncan_edit(args.queue.get())": "can_edit",
        "held = {'who': scope}\nfor s in held.values():\n    can_edit(s)": "can_edit",
        "can_edit([scope].pop())": "can_edit",
        "def pick():\n    def own(s):\n        can_edit(s)\n    return own\npick()(scope)": "can_edit",
    }.items(),
)
def test_a_flow_is_found(tmp_path: Path, body: str, target: str) -> None:
    """However it gets there, the line of the last call is named, and status 1."""
    result = check(tmp_path, body, options=("--json",))
    assert 1 == result.exit_code, result.output
    assert {target} == {flow["target"].rpartition(".")[2] for flow in json.loads(result.stdout)}


@pytest.mark.parametrize(
    "body",
    [
        "log(scope)",
        "held = []\nheld.append(scope.user.id)\ncan_edit(held)",
        "held = []\nheld.append(scope)\nheld = load()\ncan_edit(held)",
        "args.log.info(scope)\ncan_edit(args.log)",
        "args.log.info(scope)\ncan_edit(args.log.pop())",
        "can_edit(args.get('who'))",
        "Keeper(scope).safe()",
        "Keeper(load()).ask()",
        "Keeper(scope)\ncan_edit(load()._who)",
        "safe(scope)",
        "can_edit(load(scope.user.id))",
        "can_edit(scope.user)",
        "can_edit(args)",
        "def can_edit(x): ...\ncan_edit(scope)",
        "s = safe(scope)\ncan_edit(s)",
        "can_edit(str(scope))",
        "can_edit(f'{scope}')",
        "def later(scope):\n    can_edit(scope)",
        "def later():\n    scope = 1\n    safe(scope)",
        "can_edit(scope is None)",
        "can_edit(1 if scope else 2)",
        "can_edit(args[scope])",
        "args.can_edit(scope)",
        "held = [scope]\ncan_edit(held.count(1))",
        "scope = load()\ncan_edit(scope)",
        "scope = load(scope.user.id)\ncan_edit(scope)",
        "if args:\n    scope = load()\nelse:\n    scope = load()\ncan_edit(scope)",
        "if args:\n    scope = load()\nelse:\n    raise ValueError(scope)\ncan_edit(scope)",
        "if args:\n    scope = load()\nelse:\n    return\ncan_edit(scope)",
        "while True:\n    scope = load()\n    if scope:\n        break\ncan_edit(scope)",
        "for scope in args:\n    can_edit(scope)",
        "for i in args:\n    scope = load()\n    can_edit(scope)",
        "while (scope := load()) is None:\n    pass\ncan_edit(scope)",
        "with open(args) as scope:\n    can_edit(scope)",
        "try:\n    scope = load()\nfinally:\n    pass\ncan_edit(scope)",
        "try:\n    scope = load()\nexcept OSError:\n    raise\ncan_edit(scope)",
        "try:\n    safe(scope)\nexcept OSError as scope:\n    can_edit(scope)",
        "match args:\n    case 1:\n        scope = 1\n    case _:\n        scope = 2\ncan_edit(scope)",
        "match args:\n    case scope:\n        can_edit(scope)",
        "(scope := load())\ncan_edit(scope)",
        "can_edit(scope := load())",
        "a, b = scope, 1\ncan_edit(b)",
        "s, scope = scope, load()\ncan_edit(scope)",
        "s = scope\ndel s\ncan_edit(s)",
        "[can_edit(scope) for scope in args]",
        "(lambda scope: can_edit(scope))(args)",
        "aw = can_edit\naw = safe\naw(scope)",
        "def ask(can_edit=safe):\n    can_edit(scope)\nask()",
        "aw = can_edit\naw(load())",
        "scope = load()\ndef later():\n    can_edit(scope)",
        "scope: object = load()\ncan_edit(scope)",
        "import os as scope\ncan_edit(scope)",
        "s = 1\ndef take():\n    nonlocal s\n    s = scope\n    s = load()\ntake()\ncan_edit(s)",
        "s = 1\ndef take():\n    s = scope\ntake()\ncan_edit(s)",
        "def take():\n    nonlocal s\n    s = scope\ntake()\ns = load()\ncan_edit(s)",
        "apply(safe, scope)",
        "apply(can_edit, load())",
        "args.pool.submit(safe, scope)",
        "threading.Thread(target=safe, args=(scope,)).start()",
        "threading.Thread(target=can_edit, args=(scope.user.id,)).start()",
        "Rule(can_edit, scope)",
        "args.pool.submit(can_edit, load())",
        "args.pool.submit(can_edit, scope.user.id)",
        "chosen()(load())",
        "s = 1\ndef take(x):\n    nonlocal s\n    s = x\ntake(load())\ncan_edit(s)\nsafe(scope)",
        "aw = safe\ndef own(s):\n    aw(s)\nown(scope)",
        "aw = safe or load\naw(scope)",
        "aw = functools.partial(safe)\naw(scope)",
        "aw = functools.partial(can_edit)\naw(load())\nsafe(scope)",
        "apply(can_edit)\nsafe(scope)",
        "Loose().allows(scope)",
        "Loose().asks(load())",
        "for s in gives(scope.user.id):\n    can_edit(s)",
        "for s in gives(load()):\n    can_edit(s)\nsafe(scope)",
        "can_edit(sorted([scope.user.id]))",
        "args.rows.filter(scope)\ncan_edit(args.rows)",
    ],
)
def test_what_is_no_flow_is_not_reported(tmp_path: Path, body: str) -> None:
    """Ids, other values and other functions of the name raise no alarm."""
    result = check(tmp_path, body)
    assert (0, "") == (result.exit_code, result.stdout)


@pytest.mark.parametrize(
    "made", ["made = tenant_worker(plain)", "WORKERS = {'it': tenant_worker(name='it')(plain)}"]
)
def test_a_worker_that_is_made_by_a_call_is_one(tmp_path: Path, made: str) -> None:
    """tenant_worker(f) makes what @tenant_worker does, wherever it is called."""
    imports = HEAD.partition("@tenant_worker")[0]
    jobs = f"{imports}\ndef plain(scope): can_edit(scope)\n{made}\n"
    assert ("app.jobs.plain", "app.auth.can_edit") == only_flow(tmp_path, jobs)


@pytest.mark.parametrize(
    "made",
    [
        "made = tenant_worker(lambda scope: can_edit(scope))",
        "W = {'it': tenant_worker(name='it')(lambda s, n=0: (n, can_edit(s)))}",
        "def make():\n    return tenant_worker(lambda s: deep(s))",
        "a, b = tenant_worker(name='b')(lambda s: 1), tenant_worker(lambda s: deep(s))",
    ],
)
def test_a_worker_may_be_a_lambda(tmp_path: Path, made: str) -> None:
    """It is followed as a function is."""
    imports = "from sigra import tenant_worker\nfrom app.auth import can_edit\n"
    jobs = f"{imports}def deep(s): can_edit(s)\n{made}\n"
    assert ("app.jobs.<lambda>", "app.auth.can_edit") == only_flow(tmp_path, jobs)


def test_a_marked_function_may_be_a_lambda(tmp_path: Path) -> None:
    """It decides on authority under the name that it was given."""
    marked = "import sigra\nmay_see = sigra.request_scope_only(lambda scope: True)\n"
    jobs = f"{marked}@sigra.tenant_worker\ndef job(scope): return may_see(scope)\n"
    assert ("app.jobs.job", "app.jobs.may_see") == only_flow(tmp_path, jobs)


def test_what_is_marked_or_made_a_worker_under_no_name_is_no_matter(tmp_path: Path) -> None:
    """What becomes of it, nobody can tell; the rest of its module is checked."""
    lines = (
        "def _may(scope): ...",
        "def made(): return sigra.request_scope_only(_may)",
        "made.it = sigra.request_scope_only(_may)",
        "made.it = _may",
        "sigra.tenant_worker(name='w')(made.it)",
        "sigra.tenant_worker()",
        "may_see = sigra.request_scope_only(_may)",
        "class Kinds(dict[str, int]): ...",
    )
    jobs = "@sigra.tenant_worker\ndef job(scope): return Kinds().get(may_see(scope))\n"
    flow = only_flow(tmp_path, "\n".join(("import sigra", *lines, jobs)))
    assert ("app.jobs.job", "app.jobs.may_see") == flow


def test_the_line_says_who_where_and_what_to_do(tmp_path: Path) -> None:
    """One line a flow, which an editor can jump to."""
    result = check(tmp_path, "inner(scope)")
    (line,) = result.stdout.splitlines()
    jobs, auth = tmp_path / "app" / "jobs0.py", tmp_path / "app" / "auth.py"
    assert line.startswith(f"{jobs}:7: the audit-only scope of worker app.jobs0.work ({jobs}:")
    assert f"reaches app.auth.can_edit ({auth}:6) by way of app.jobs0.inner" in line
    assert "authorize before .new()" in line
    assert "1 flow of the scopes of 1 worker into 3 marked functions, in 3 files" in result.stderr
    assert " by way of " not in check(tmp_path, "can_edit(scope)").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", ["\x1b[2J\n::error::", "\udcff"])
def test_a_name_of_a_file_is_only_text(tmp_path: Path, name: str) -> None:
    """It cannot steer a terminal, pass for a line of its own, or end the command."""
    marked = "import sigra\n@sigra.request_scope_only\ndef can(scope): ...\n"
    (tmp_path / f"{name}.py").write_text(f"{marked}@sigra.tenant_worker\ndef job(s): can(s)\n")
    (tmp_path / f"{name}2.py").write_text("(")
    (tmp_path / f"{name}3.py").write_text("from elsewhere import *\n@job\ndef work(scope): ...\n")
    result = CliRunner().invoke(sigra, ["check", str(tmp_path)])
    assert 2 == result.exit_code
    lines = result.output.splitlines()
    assert 4 == len(lines)
    assert all(line.isprintable() for line in lines)


def test_calls_within_calls_take_no_longer_for_it(tmp_path: Path) -> None:
    """Sixty levels deep, each is looked at once."""
    result = check(tmp_path, f"can_edit({'passes(' * 60}scope{')' * 60})")
    assert 1 == result.exit_code


def calls_to_check(folder: Path, body: str) -> int:
    """Count the calls of functions that it takes to follow one worker's scope."""
    count = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    jobs = f"from sigra import tenant_worker\n@tenant_worker\ndef work(scope): {body}\n"
    (folder / "deep.py").write_text(jobs)
    sources = Sources([folder / "deep.py"])
    sys.setprofile(profile)
    try:
        find_flows(sources)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("last", ["scope", "0"])
def test_lambdas_within_lambdas_are_looked_at_once(tmp_path: Path, last: str) -> None:
    """Ten times as many take about ten times as long."""
    few, many = (calls_to_check(tmp_path, "lambda: " * n + last) for n in (50, 500))
    assert many < 15 * few


def test_what_is_assigned_is_not_looked_for_among_all_names(tmp_path: Path) -> None:
    """A function of 5,000 assignments took seconds: ten times as many took a hundred times as long."""
    few, many = (
        calls_to_check(tmp_path, "; ".join(f"a{number} = dict(s=scope)" for number in range(n)))
        for n in (50, 500)
    )
    assert many < 15 * few


def test_flows_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """Line 9 before line 10."""
    lines = [f"can_edit(scope, {number})" for number in range(100)]
    flows = json.loads(check(tmp_path, "\n".join(lines), options=("--json",)).stdout)
    numbers = [int(flow["place"].rpartition(":")[2]) for flow in flows]
    assert (100, sorted(numbers)) == (len(numbers), numbers)


def test_recursion_ends(tmp_path: Path) -> None:
    """Functions that call each other are walked once."""
    body = "def a(x):\n    return b(x)\ndef b(x):\n    a(x)\n    return can_edit(x)\na(scope)"
    assert 1 == check(tmp_path, body).exit_code


def test_a_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    """The others are checked, and the status is 2; so with one that is too deep for Python."""
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "deep.py").write_text(f"x = a{'.a' * 200_000}\n")
    result = check(tmp_path, "can_edit(scope)")
    assert 2 == result.exit_code
    assert "broken.py: cannot be read as Python" in result.stderr
    assert "deep.py: cannot be read as Python" in result.stderr
    assert "app.auth.can_edit" in result.stdout


def test_what_is_installed_beside_the_program_is_not_checked(tmp_path: Path) -> None:
    """A virtual environment in the project's folder is no part of it, whatever it is called."""
    made = tmp_path / "env"
    made.mkdir()
    (made / "pyvenv.cfg").touch()
    (made / "broken.py").write_text("def (:\n")
    assert (0, "") == ((found := check(tmp_path, "load()")).exit_code, found.stdout)
    (made / "pyvenv.cfg").unlink()
    assert 2 == check(tmp_path, "load()").exit_code


@pytest.mark.parametrize("name", [".tox/it.py", "node_modules/it.py", "app/.#jobs.py"])
def test_what_is_hidden_or_another_language_s_is_not_checked(tmp_path: Path, name: str) -> None:
    """An editor's lock of a file is no Python, as are templates among the packages of Node."""
    check(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("def (:\n")
    assert 0 == check(tmp_path, "load()").exit_code


def test_a_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    """A link to it brings no second report."""
    check(tmp_path, "can_edit(scope)")
    (tmp_path / "app" / "linked.py").symlink_to("jobs0.py")
    assert 1 == len(check(tmp_path, "can_edit(scope)").stdout.splitlines())


def test_a_folder_that_cannot_be_read_is_named() -> None:
    """What was not looked at is not said to be without flows."""
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "closed")
        closed.mkdir()
        Path(folder).chmod(0o755)
        closed.chmod(0)
        with unprivileged():
            result = CliRunner().invoke(sigra, ["check", folder])
        closed.chmod(0o700)
    assert (2, True) == (result.exit_code, f"{closed}: cannot be read" in result.stderr)


@pytest.mark.parametrize(
    "body",
    [
        f"x = {' + '.join(['args'] * 1_000)}\ncan_edit(scope)",
        f"x = args{'.get()' * 500}\ncan_edit(scope)",
        "if args:\n    pass\n" + "elif args.get():\n    pass\n" * 1_500 + "can_edit(scope)",
    ],
    ids=["sum", "calls", "elif"],
)
def test_what_is_long_is_followed_to_its_end(tmp_path: Path, body: str) -> None:
    """A sum of many parts lies as many levels deep, and so do calls of calls, and elif."""
    result = check(tmp_path, body)
    assert (1, True) == (result.exit_code, "app.auth.can_edit" in result.stdout)


@pytest.mark.parametrize(
    "around", ["try:\n    import x\nexcept ImportError:", "match x:\n  case 1:"]
)
def test_a_function_within_any_statement_is_known(tmp_path: Path, around: str) -> None:
    """Where an import fails, or within a case, a worker or a marked function is one too."""
    check(tmp_path)
    imports = HEAD.partition("@tenant_worker")[0]
    jobs = f"{imports}\n{around}\n    @tenant_worker\n    def work(scope): can_edit(scope)\n"
    (tmp_path / "app" / "jobs.py").write_text(jobs)
    assert 1 == check(tmp_path).exit_code


STARRED = """
@tenant_worker
def work(scope):
    can_edit(scope)

@request_scope_only
def can_edit(who): ...
"""


@pytest.mark.parametrize(
    "files",
    [
        {"jobs": "from sigra import *" + STARRED},
        {"jobs": "from sigra.decorators import *\nfrom sigra.authority import *" + STARRED},
        {"kit": "from sigra import *", "jobs": "from kit import *" + STARRED},
        {"kit": "from sigra import tenant_worker, request_scope_only as only",
         "jobs": "from kit import *" + STARRED.replace("request_scope_only", "only")},
        {"kit": "from sigra import *\n@request_scope_only\ndef can_edit(who): ...",
         "jobs": "from kit import *\n@tenant_worker\ndef work(scope): can_edit(scope)"},
        {"jobs": "from elsewhere import *" + STARRED},
        {"kit": "from elsewhere import *", "jobs": "from kit import *" + STARRED},
        {"kit": "from elsewhere import *",
         "jobs": "from kit import tenant_worker, request_scope_only" + STARRED},
    ],
)  # fmt: skip
def test_a_star_import_hides_no_flow(tmp_path: Path, files: dict[str, str]) -> None:
    """Names of Sigra's are followed through stars, and taken for Sigra's where none can tell."""
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    result = CliRunner().invoke(sigra, ["check", str(tmp_path), "--json"])
    assert ["jobs.work"] == [flow["worker"] for flow in json.loads(result.stdout)]
    assert 1 == result.exit_code


MAY = "from sigra import request_scope_only\n@request_scope_only\ndef may(who): ..."
ASKING = "from sigra import tenant_worker\n{}\n@tenant_worker\ndef work(scope): {}may(scope)"


@pytest.mark.parametrize(
    "files",
    [
        {"a/jobs.py": MAY + "\n" + ASKING.format("", ""), "b/jobs.py": ""},
        {"a/jobs.py": "", "b/jobs.py": MAY + "\n" + ASKING.format("", "")},
        {"a/auth.py": "may = print", "a/jobs.py": "",
         "b/auth.py": MAY, "b/jobs.py": ASKING.format("from auth import may", "")},
        {"a/app/__init__.py": "", "a/app/auth.py": "may = print", "b/app/__init__.py": "",
         "b/app/auth.py": MAY, "b/app/jobs.py": ASKING.format("import app.auth", "app.auth.")},
        {"a/setup.py": "", "a/app/jobs.py": ASKING.format("from shared.auth import may", ""),
         "b/setup.py": "", "b/shared/__init__.py": "", "b/shared/auth.py": MAY},
        {"app.py": "", "app/__init__.py": MAY, "jobs.py": ASKING.format("from app import may", "")},
    ],
)  # fmt: skip
def test_files_of_one_name_hide_no_flow(tmp_path: Path, files: dict[str, str]) -> None:
    """Each of several projects is read, and its imports mean its own files before others."""
    assert 1 == check_tree(tmp_path, files).exit_code


TRIED = "try:\n    from {} import {}\nexcept ImportError:\n    {}\n"
OPEN = "def may(who): return True"


@pytest.mark.parametrize(
    "jobs",
    [
        ASKING.format(TRIED.format("auth", "may", OPEN), ""),
        ASKING.format(TRIED.format("auth", "may", "from open import may"), ""),
        ASKING.format(TRIED.format("elsewhere", "may", "from auth import may"), ""),
        ASKING.format(
            TRIED.format("elsewhere", "may", MAY.replace("\n", "\n    ")), ""
        ),
        ASKING.format(
            "from auth import may\n"
            + TRIED.format("sigra", "tenant_worker", "def tenant_worker(f): return f"), ""
        ),
        MAY.replace(
            "from sigra import request_scope_only",
            TRIED.format("sigra", "request_scope_only", "def request_scope_only(f): return f"),
        ) + "\n" + ASKING.format("", ""),
        ASKING.format("from compat import may", ""),
    ],
)  # fmt: skip
def test_what_stands_in_for_a_failed_import_hides_no_flow(tmp_path: Path, jobs: str) -> None:
    """Of the two that a name may be, the one that is known to decide, or to be Sigra's, counts."""
    compat = TRIED.format("auth", "may", OPEN)
    for name, text in {"auth": MAY, "open": OPEN, "compat": compat, "jobs": jobs}.items():
        (tmp_path / f"{name}.py").write_text(text)
    result = CliRunner().invoke(sigra, ["check", str(tmp_path)])
    assert (1, 1) == (result.exit_code, len(result.stdout.splitlines())), result.output


@pytest.mark.parametrize(
    "jobs",
    [
        ASKING.format("from app.auth import may", ""),
        ASKING.format("from app import auth", "auth."),
        ASKING.format("import app.auth", "app.auth."),
        ASKING.format("from .auth import may", ""),
        ASKING.format("from . import auth", "auth."),
        ASKING.format("from app.auth import *", ""),
    ],
)
def test_a_package_needs_no_init_file(tmp_path: Path, jobs: str) -> None:
    """A flow between files of a folder without ``__init__.py`` is found, as Python imports them."""
    assert 1 == check_tree(tmp_path, {"app/auth.py": MAY, "app/jobs.py": jobs}).exit_code


def test_a_file_of_a_package_is_not_what_its_bare_name_means(tmp_path: Path) -> None:
    """``app/sigra.py`` of a project does not stand in for the library."""
    files = {
        "app/__init__.py": "",
        "app/sigra.py": "",
        "app/jobs.py": MAY + "\n" + ASKING.format("", ""),
    }
    assert 1 == check_tree(tmp_path, files).exit_code


def check_tree(folder: Path, files: dict[str, str]) -> Result:
    """Write files into a folder, and check all of it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return CliRunner().invoke(sigra, ["check", str(folder)])


def test_a_decorator_that_only_a_star_can_have_brought_is_named(tmp_path: Path) -> None:
    """There may be a worker behind it: the status is 2, not that of nothing found."""
    jobs = tmp_path / "jobs.py"
    jobs.write_text("from elsewhere import *\n\n@job\ndef work(scope): ...\n")
    result = CliRunner().invoke(sigra, ["check", str(tmp_path)])
    assert 2 == result.exit_code
    assert f"{jobs}:3: cannot tell what @job is" in result.stderr


def test_a_star_that_can_bring_no_worker_is_no_matter(tmp_path: Path) -> None:
    """The standard library's, and those in whose files no decorator is left unexplained."""
    (tmp_path / "a.py").write_text("from typing import *\n@overload\ndef f(): ...\n")
    mixed = "from sigra import *\nfrom elsewhere import *\n@worker\ndef f(): ...\n"
    (tmp_path / "c.py").write_text(mixed)
    (tmp_path / "b.py").write_text("from elsewhere import *\n@staticmethod\ndef f(): ...\n")
    assert 0 == CliRunner().invoke(sigra, ["check", str(tmp_path)]).exit_code


def test_where_no_function_is_marked_it_says_what_to_mark(tmp_path: Path) -> None:
    """That no flow is found says nothing then."""
    result = CliRunner().invoke(sigra, ["check", str(Path(__file__).parents[2] / "examples")])
    assert (0, True) == (result.exit_code, "with @request_scope_only" in result.stderr)
    assert "@request_scope_only" not in check(tmp_path).stderr


def test_a_path_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    """Nothing checked is not the same as nothing found."""
    result = CliRunner().invoke(sigra, ["check", str(tmp_path / "nowhere")])
    assert 2 == result.exit_code


def test_our_own_examples_pass_and_the_demo_s_misuse_is_found() -> None:
    """The told story has one worker that asks for more than it may, to show that it cannot."""
    root = Path(__file__).parents[2]
    ours = root / "sigra" if MANY else root / "sigra" / "cli" / "story.py"
    result = CliRunner().invoke(sigra, ["check", str(root / "examples"), str(ours)])
    assert 1 == result.exit_code
    (line,) = result.stdout.splitlines()
    assert "sigra.cli.story.delete_ledger" in line
