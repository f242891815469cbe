"""``sigra workers`` and what surrounds the commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

import sigra
from sigra.cli import main
from sigra.cli.app import sigra as sigra_command


def test_workers_are_told_in_full_to_a_machine(command):
    """``--json`` prints each worker's name, kind and settings as one array."""
    told = {
        fact["name"]: fact for fact in json.loads(command("workers", "cli_jobs", "--json").stdout)
    }
    shaky = told["cli_jobs.shaky"]
    assert {
        "name": "cli_jobs.shaky",
        "kind": "tenant",
        "async": False,
        "backend": None,
        "options": {"max_attempts": 2, "backoff": 0.01},
        "audit_schema": None,
        "action": None,
    } == shaky
    assert (True, "thread") == (
        told["cli_jobs.gentle"]["async"],
        told["cli_jobs.choosy"]["backend"],
    )


def test_workers_are_listed_for_a_person(command):
    """The table has a line for each worker, with its options."""
    shown = command("workers", "sigra.cli.story").stdout
    for word in ("charge_card", "payment.charge", "max_attempts=2", "tenant, def", "AuditEvent"):
        assert word in shown


def test_the_table_shows_the_names_that_queues_show(command, monkeypatch):
    """A name can be copied from it into a queue's own tool, or be searched for there."""
    monkeypatch.setenv("COLUMNS", "100")
    assert "sigra.cli.story.charge_card" in command("workers", "sigra.cli.story").stdout


@pytest.mark.parametrize(
    "words", [("workers", "cli_jobs"), ("run", "cli_jobs:note", "--args", "/dev/null")]
)
def test_a_current_folder_that_was_removed_is_told_in_one_line(command, tmp_path, words):
    """As where a deploy replaced the release's folder below an open shell."""
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    result = command(*words)
    told = "Error: the current folder cannot be used: No such file or directory\n"
    assert (2, "", told) == (result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("columns", ["1", "80"])
def test_where_the_table_would_cut_names_apart_each_worker_is_a_line(command, monkeypatch, columns):
    """Its name is whole, and its options stand behind it."""
    monkeypatch.setenv("COLUMNS", columns)
    shown = command("workers", "sigra.cli.story").stdout.splitlines()
    (line,) = [line for line in shown if line.startswith("sigra.cli.story.charge_card ")]
    assert ("max_attempts=2" in line, line.endswith("AuditEvent  payment.charge")) == (True, True)


def test_a_module_without_workers_says_so(command):
    """No empty table: a sentence."""
    told = "module json defines no worker, nor does a submodule that it imports\n"
    assert told == command("workers", "json").stdout


def test_an_unknown_module_is_one_line(command):
    """A module that is not there ends with status 2 and one line."""
    result = command("workers", "no_such_module")
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))


def test_a_django_project_is_loaded_first(tmp_path, start, monkeypatch):
    """Jobs that import models are found where DJANGO_SETTINGS_MODULE names the settings."""
    files = {
        "settings.py": "INSTALLED_APPS = ['shop']\n",
        "shop/__init__.py": "",
        "shop/models.py": "from django.db import models\nclass Order(models.Model): ...\n",
        "shop/jobs.py": "from sigra import tenant_worker\nfrom shop.models import Order\n"
        "@tenant_worker\ndef pack(scope, order: int): ...\n",
    }
    (tmp_path / "shop").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    process = start("workers", "shop.jobs", "--json", folder=tmp_path)
    out, err = process.communicate(timeout=240)
    assert (0, b"") == (process.returncode, err)
    assert ["shop.jobs.pack"] == [fact["name"] for fact in json.loads(out)]


def test_the_version_is_the_package_s(command):
    """``--version`` prints the version of the library."""
    assert f"sigra, version {sigra.__version__}\n" == command("--version").stdout


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["demo", "-h"], ["workers", "-h"], ["audit", "verify", "-h"]],
)
def test_help_is_there(command, words):
    """Every command explains itself within 90 columns, and no mark-up is left in the text."""
    result = command(*words)
    assert (0, True) == (result.exit_code, max(map(len, result.stdout.splitlines())) <= 90)
    assert "\\b" not in result.stdout


def commands(one: Any = sigra_command, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command and of those below it."""
    yield words
    for name, below in getattr(one, "commands", {}).items():
        yield from commands(below, *words, name)


@pytest.mark.parametrize("words", [*commands()], ids=" ".join)
def test_each_option_says_what_it_is_for(words):
    """The help of every command fits in 80 columns, and none of its options stands there bare."""
    told = CliRunner().invoke(sigra_command, [*words, "--help"], terminal_width=80).stdout
    assert max(map(len, told.splitlines())) <= 80
    one: Any = sigra_command
    for word in words:
        one = one.commands[word]
    options = [
        each for each in one.get_params(click.Context(one)) if isinstance(each, click.Option)
    ]
    assert (True, []) == (bool(options), [each.name for each in options if not each.help])


def test_a_missing_extra_is_named(monkeypatch, capfd):
    """Without click, the command says what to install and exits with 2, without a traceback."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # the command puts another in its place
    monkeypatch.delitem(sys.modules, "sigra.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit) as ended:
        main()
    text = "sigra: 'click' is not installed; run pip install 'sigra[cli]'\n"
    assert (2, text) == (ended.value.code, capfd.readouterr().err)
