"""A line accepts a false alarm of ``sigra check`` by the comment ``# sigra: allow``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sigra.cli.app import sigra

HEAD = """
from sigra import request_scope_only, tenant_worker

@request_scope_only
def may(who, why=None): ...
"""


def check(folder: Path, body: str, *options: str) -> Result:
    """Check a module with a worker."""
    (folder / "jobs.py").write_text(f"{HEAD}@tenant_worker\ndef w(scope):\n{body}\n")
    return CliRunner().invoke(sigra, ["check", str(folder), *options])


@pytest.mark.parametrize(
    "body",
    [
        " may(scope)  # sigra: allow",
        " may(scope)  #sigra:allow, for it is a copy",
        " may(scope)  # noqa: S101  # sigra: allow",
        " may(  # sigra: allow\n  scope\n )",
        " asks(scope)\ndef asks(who):\n may(who)  # sigra: allow",
    ],
)
def test_a_line_that_says_so_is_allowed(tmp_path: Path, body: str) -> None:
    """It is counted, not reported, and the status is 0."""
    result = check(tmp_path, body)
    assert (0, "") == (result.exit_code, result.stdout)
    assert "0 flows of the scopes of 1 worker into 1 marked function" in result.stderr
    assert "1 more allowed" in result.stderr
    assert [] == json.loads(check(tmp_path, body, "--json").stdout)


@pytest.mark.parametrize(
    "body",
    [
        " may(scope, '# sigra: allow')",
        " may(scope, '''\n # sigra: allow''')",
        " may(scope)  # sigra: allowance",
        " # sigra: allow\n may(scope)",
        " may(scope)\n may(1)  # sigra: allow",
        " asks(scope)  # sigra: allow\ndef asks(who):\n may(who)",
    ],
)
def test_another_line_is_not(tmp_path: Path, body: str) -> None:
    """Only the line of the last call counts, and only a comment on it."""
    result = check(tmp_path, body)
    assert (1, 1) == (result.exit_code, len(result.stdout.splitlines()))
    assert "allowed" not in result.stderr


def test_a_line_allows_no_other(tmp_path: Path) -> None:
    """The others are reported, with status 1."""
    result = check(tmp_path, " may(scope)  # sigra: allow\n may(scope)")
    (line,) = result.stdout.splitlines()
    assert (1, True) == (result.exit_code, "jobs.py:9: " in line)
    assert "1 flow of" in result.stderr
