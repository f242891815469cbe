"""Verify the audit store and exports of it, and say what was found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sigra.cli.show import (
    Bar,
    Row,
    figures,
    fits,
    inline,
    say,
    stderr_console,
    stdout_console,
    written,
)
from sigra.cli.target import MisuseError
from sigra.store import Report, SqlAuditSink, read_checkpoints, verify, verify_export
from sigra.store.check import FINDINGS
from sigra.store.keys import by_id
from sigra.store.report import WHEN_BROKEN, Finding, age_text

_PUBLIC = '("openssl pkey -in {} -pubout" prints that of a private key)'
SHOWN = 100
"""How many findings a person is shown: after 10^5 of them the verdict is out of sight."""
_FIRST_OF_EACH = f"the first {FINDINGS} of each organization"
_NEXT = {
    "broken": WHEN_BROKEN,
    "empty": "What to do: look whether this is the right database, and the right organization.",
}
_UNPROVEN = (
    "Warning: nothing shows that nobody rewrote the manifest too: pass the --public-key of whoever "
    "signed the export"
)
_STYLES = {"intact": "green", "broken": "red", "empty": "yellow"}


def read_trust(keys: tuple[Path, ...], checkpoints: Path | None) -> dict[str, Any]:
    """Read public keys and checkpoints, as ``verify`` takes them."""
    if checkpoints is not None and not keys:
        raise MisuseError("--checkpoints cannot be checked without --public-key: pass it too")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found: list[Any] = []
    for path in keys:
        try:
            found.append(load_pem_public_key(path.read_bytes()))
            by_id(found)  # refuses a key of another kind
        except (ValueError, TypeError, OSError) as error:
            told = f"{path} is not a readable public key: {error} {_PUBLIC.format(path)}"
            raise MisuseError(told) from error
    try:
        kept = [] if checkpoints is None else read_checkpoints(checkpoints)
    except (ValueError, TypeError, OSError) as error:
        raise MisuseError(f"the checkpoints cannot be read: {error}") from error
    if checkpoints is not None and not kept:
        raise MisuseError(
            f"{checkpoints} holds no checkpoint: events cut off the end would not be missed"
        )
    return {"public_keys": found, "checkpoints": kept}


def verify_store(
    store: SqlAuditSink,
    which: dict[str, Any],
    trust: dict[str, Any],
    folder: Path | None,
    *,
    machine: bool,
) -> int:
    """Print what a verification found; return the command's exit status."""
    console = stderr_console()
    with Bar(console, None, "events") as bar:
        report = verify(store, progress=lambda done: bar.move(done, done), **which, **trust)
    wrong = None if folder is None else _check_export(folder, trust["public_keys"])
    if machine:
        say(json.dumps(_facts(report, wrong), default=str))
    else:
        _show(report)
        if folder is not None and wrong is not None:
            _show_export(folder, wrong)
    return 0 if report.verdict == "intact" and not wrong else 1


def verify_folder(folder: Path, trust: dict[str, Any], *, machine: bool) -> int:
    """Print what is wrong with an export, without its store; return the exit status."""
    wrong = _check_export(folder, trust["public_keys"])
    if machine:
        say(json.dumps({"export": wrong}))
    else:
        _show_export(folder, wrong)
    return 1 if wrong else 0


def _show_export(folder: Path, wrong: list[str]) -> None:
    say(f"export {folder}: {inline('; '.join(wrong)) or 'as its manifest says'}")


def _check_export(folder: Path, keys: Any) -> list[str]:
    try:
        wrong = verify_export(folder, keys)
        if not (keys or wrong):
            print(_UNPROVEN, file=sys.stderr)
        return wrong
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and not isinstance(error.__cause__, PermissionError):
            return [str(error)]
        raise MisuseError(f"the export cannot be checked: {error}") from None


def _show(report: Report) -> None:
    age = report.checkpoint_age
    rows: list[Row] = [
        ("verdict", report.verdict, _STYLES[report.verdict]),
        ("assurance", report.level, ""),
        ("events", report.rows, ""),
        ("chains", report.chains, ""),
        ("pruned", report.pruned, ""),
        ("erased", report.erased, ""),
        ("last checkpoint", "none" if age is None else age_text(age), ""),
        ("events after it", report.unanchored, ""),
    ]
    console, table = stdout_console(), figures(rows)
    if fits(console, table):
        console.print(table)
    else:
        for name, value, _ in rows:
            say(f"{name}: {written(value)}")
    for finding in report.findings[:SHOWN]:
        say(told(finding))
    if (more := report.found - SHOWN) > 0:
        listed = "them" if report.found == len(report.findings) else _FIRST_OF_EACH
        say(f"and {more:,} more: --json lists {listed}")
    if report.verdict in _NEXT:
        print(_NEXT[report.verdict], file=sys.stderr)


def told(finding: Finding) -> str:
    """Say on one line what is wrong, and where."""
    return inline(f"{finding.kind}: {_place(finding)}{finding.reason}")


def _place(finding: Finding) -> str:
    """Say where it is: only an entry has a sequence, and a checkpoint is of no organization."""
    if not finding.sequence and not finding.reason.startswith("mark "):
        return ""
    where = "no organization" if finding.organization_id is None else finding.organization_id
    return f"{where}, sequence {finding.sequence}: " if finding.sequence else f"{where}: "


def _facts(report: Report, wrong: list[str] | None) -> dict[str, Any]:
    names = ("verdict", "level", "chains", "rows", "pruned", "erased", "unanchored", "found")
    facts = {name: getattr(report, name) for name in names}
    age = report.checkpoint_age
    facts["checkpoint_age_seconds"] = None if age is None else age.total_seconds()
    facts["findings"] = [finding._asdict() for finding in report.findings]
    return facts if wrong is None else {**facts, "export": wrong}
