"""``sigra check`` tells a function's own names from the functions of its module."""

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
def mail(who): ...
def sms(who): ...
def send(who): return may(who)
def mailer(): return mail
class Policy:
    @classmethod
    @request_scope_only
    def owns(cls, who): ...
class Desk:
    @request_scope_only
    def admits(self, who): ...
class Box:
    def __init__(self, who): self.who = who
    def ask(self): return may(self.who)
class Bag:
    def __init__(self, who): ...
    def ask(self): ...
def close(who): may(who)

@tenant_worker
"""


def targets(folder: Path, worker: str) -> list[str]:
    """Check a module with a worker; return which marked functions are reached, and by what way."""
    (folder / "jobs.py").write_text(HEAD + worker)
    (folder / "other.py").write_text("def mail(who): ...\n")
    result = CliRunner().invoke(sigra, ["check", str(folder), "--json"])
    flows = json.loads(result.stdout)
    assert bool(flows) == result.exit_code, result.output
    return [" < ".join([flow["target"], *reversed(flow["way"])]) for flow in flows]


@pytest.mark.parametrize(
    "worker",
    [
        "def w(scope):\n for send in (mail, sms): send(scope)",
        "def w(scope):\n [send(scope) for send in (mail, sms)]",
        "def w(scope):\n {send(scope): 1 for send in (mail, sms)}",
        "def w(scope):\n [0 for send in (mail, sms) if send(scope)]",
        "def w(scope):\n [0 for _ in '1' for send in (mail, sms) if send(scope)]",
        "def w(scope):\n send, x = mail, 1\n send(scope)",
        "def w(scope):\n send: object = mail\n send(scope)",
        "def w(scope, c):\n if c: send = mail\n else: send = sms\n send(scope)",
        "def w(scope, send): send(scope)",
        "def w(scope, *, send=None): send(scope)",
        "def w(scope, *send): send(scope)",
        "def w(scope, **send): send(scope)",
        "def w(scope, p):\n with open(p) as send: send(scope)",
        "async def w(scope, p):\n async with p as (_, send): send(scope)",
        "def w(scope):\n try: mail()\n except OSError as send: send(scope)",
        "def w(scope):\n from other import mail as send\n send(scope)",
        "def w(scope):\n if (send := mail): send(scope)",
        "def w(scope):\n [send for x in '1' if (send := mail)]\n send(scope)",
        "def w(scope, c):\n match c:\n  case send: send(scope)",
        "def w(scope, c):\n match c:\n  case [*send]: send(scope)",
        "def w(scope, c):\n match c:\n  case {**send}: send(scope)",
        "def w(scope): (lambda send: send(scope))(mail)",
        "def w(scope):\n send = mailer()\n send(scope)",
        "def w(scope, c):\n c.run(send := mail, scope)\n c.run(send, scope)",
        "def w(scope, c):\n send = c\n def later(): send(scope)\n later()",
        "def w(scope, c):\n send = c\n def later():\n  nonlocal send\n  send(scope)\n  send = 1",
        "def w(scope, c):\n send = c\n [send(scope) for _ in '1']",
        "def w(scope, Box):\n Box(scope).ask()",
        "def w(scope):\n class Box(Bag): ...\n Box(scope).ask()",
        "def w(scope, send): pass\ndef make(close): return tenant_worker(close)",
    ],
)
def test_a_name_that_a_function_binds_is_not_the_module_s(tmp_path: Path, worker: str) -> None:
    """However it is bound, and wherever in the function."""
    assert [] == targets(tmp_path, worker)


@pytest.mark.parametrize(
    ("worker", "target"),
    [
        ("def w(scope):\n global send\n send = mail\n send(scope)", "may < jobs.send"),
        ("def w(scope):\n [send for send in (mail,)]\n send(scope)", "may < jobs.send"),
        ("def w(scope):\n [mail for send in (mail,)]\n [send(scope) for _ in '1']", "may < jobs.send"),
        ("def w(scope):\n [send(scope) for _ in '1' if (lambda send: send)]", "may < jobs.send"),
        ("def w(scope):\n [send for send in [send(scope)]]", "may < jobs.send"),
        ("def w(scope):\n (lambda send: send)(send(scope))", "may < jobs.send"),
        ("def w(scope):\n lambda send=send(scope): send", "may < jobs.send"),
        ("def w(scope):\n class C:\n  send = send(scope)", "may < jobs.send"),
        ("def w(scope):\n def later(send): ...\n send(scope)", "may < jobs.send"),
        ("def w(scope):\n def later(send=send(scope)): ...", "may < jobs.send"),
        ("def w(scope):\n def later():\n  send = 1\n send(scope)", "may < jobs.send"),
        ("def w(scope):\n send = 1\n def later():\n  global send\n  send(scope)", "may < jobs.send"),
        ("def w(scope, send=send): send(scope)", "may < jobs.send"),
        ("def w(scope, *, send=send):\n send = send or mail\n send(scope)", "may < jobs.send"),
        ("def w(scope): (lambda send=send: send(scope))()", "may < jobs.send"),
        ("def w(scope):\n send = may\n send(scope)", "may"),
        ("def w(scope, c):\n send = c or may\n send(scope)", "may"),
        ("def w(scope, c):\n if c: send = mail\n else: send = may\n send(scope)", "may"),
        ("def w(scope):\n if (send := may): send(scope)", "may"),
        ("def w(scope):\n (lambda send: send(scope))(may)", "may"),
        ("def w(scope):\n from jobs import may as send\n send(scope)", "may"),
        ("def w(scope):\n import jobs as send\n send.may(scope)", "may"),
        ("def w(scope):\n try: mail()\n finally: from jobs import may as send\n send(scope)", "may"),
        ("def w(scope):\n def send(who): may(who)\n send(scope)", "may < jobs.w.send"),
        ("def w(scope):\n for close in (Policy.owns,): close(scope)", "Policy.owns"),
        ("def w(scope):\n for send in [mail, may]: send(scope)", "may"),
        ("def w(scope):\n for _, send in ((1, mail), (2, may)): send(scope)", "may"),
        ("def w(scope):\n [send(scope) for send in {mail, may}]", "may"),
        ("def w(scope):\n [check(scope) for check in (may,)]", "may"),
        ("def w(scope, may): may.admits(scope)", "Desk.admits"),
        ("def w(scope):\n def later(send): send(scope)\n later(may)", "may < jobs.w.later"),
        ("def w(scope): call(lambda x: send(x), scope)\ndef call(send, who): send(who)",
         "may < jobs.send < jobs.call"),
    ],
)  # fmt: skip
def test_what_a_name_may_be_is_followed(tmp_path: Path, worker: str, target: str) -> None:
    """The module's function where the name is the module's, else what the function binds it to."""
    assert [f"jobs.{target}"] == targets(tmp_path, worker)


@pytest.mark.parametrize(("asked", "status"), [("may", 1), ("mail", 0)])
def test_a_lambda_s_names_are_those_of_its_own_file(
    tmp_path: Path, asked: str, status: int
) -> None:
    """Wherever it is called, and whatever is called so there; the line is that of its file."""
    kit = "from jobs import may as mail\ndef may(who): ...\ndef call(it, who): it(who)\n"
    (tmp_path / "kit.py").write_text(kit)
    call = f"def w(scope): call(lambda who: {asked}(who), scope)\n"
    (tmp_path / "jobs.py").write_text(f"from kit import call\n{HEAD}{call}")
    result = CliRunner().invoke(sigra, ["check", str(tmp_path)])
    assert status == result.exit_code, result.output
    assert status == result.stdout.count(f"{tmp_path / 'jobs.py'}:{HEAD.count(chr(10)) + 2}: ")


def test_what_a_loop_goes_through_is_what_it_was_before(tmp_path: Path) -> None:
    """A name that is bound anew within the loop changes none of its turns."""
    worker = "def w(scope):\n s = 1\n for t in (s, 2):\n  may(t)\n  s = scope"
    assert [] == targets(tmp_path, worker)
