"""Verify, export, clean up and serve the audit store."""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, overload

from sigra.cli.show import Bar, figures, printable, stderr_console, stdout_console
from sigra.cli.target import MisuseError
from sigra.errors import MissingExtraError, SigraError
from sigra.store import (
    Checkpoint,
    Report,
    Signer,
    SqlAuditSink,
    append_checkpoint,
    export,
    read_checkpoints,
    take_checkpoint,
    verify,
    verify_export,
)
from sigra.store.errors import CheckpointOrderError
from sigra.store.keys import by_id

_SECOND = timedelta(seconds=1)
_STYLES = {"intact": "green", "broken": "red", "empty": "yellow"}


def read_trust(keys: tuple[Path, ...], checkpoints: Path | None) -> dict[str, Any]:
    """Read public keys and checkpoints, as ``verify`` takes them."""
    if checkpoints is not None and not keys:
        raise MisuseError("--checkpoints say nothing without --public-key to check them by")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found: Any = [load_pem_public_key(key.read_bytes()) for key in keys]
        by_id(found)  # which refuses a key of another kind
        kept = [] if checkpoints is None else read_checkpoints(checkpoints)
    except (ValueError, TypeError, OSError) as error:
        raise MisuseError(f"a key or checkpoint cannot be read: {error}") from error
    return {"public_keys": found, "checkpoints": kept}


@overload
def read_key(path: Path) -> Signer: ...
@overload
def read_key(path: None) -> None: ...
def read_key(path: Path | None) -> Signer | None:
    """Read a private key."""
    if path is None:
        return None
    try:
        return Signer.from_pem(path.read_bytes())
    except (ValueError, TypeError, OSError) as error:
        raise MisuseError(f"{path} is no private key that can be read: {error}") from error


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
        print(json.dumps(_facts(report, wrong), default=str))
    else:
        _show(report)
        if folder is not None and wrong is not None:
            _show_export(folder, wrong)
    return 0 if report.verdict == "intact" and not wrong else 1


def verify_folder(folder: Path, trust: dict[str, Any], *, machine: bool) -> int:
    """Print what is wrong with an export, of which the store is not at hand; return the status."""
    wrong = _check_export(folder, trust["public_keys"])
    if machine:
        print(json.dumps({"export": wrong}))
    else:
        _show_export(folder, wrong)
    return 1 if wrong else 0


def _show_export(folder: Path, wrong: list[str]) -> None:
    print(f"export {folder}: {printable('; '.join(wrong)) or 'as its manifest says'}")


def _check_export(folder: Path, keys: Any) -> list[str]:
    try:
        return verify_export(folder, keys)
    except ValueError as error:
        return [str(error)]


def _show(report: Report) -> None:
    age = report.checkpoint_age
    console = stdout_console()
    console.print(
        figures(
            [
                ("verdict", report.verdict, _STYLES[report.verdict]),
                ("assurance", report.level, ""),
                ("events", report.rows, ""),
                ("chains", report.chains, ""),
                ("pruned", report.pruned, ""),
                ("erased", report.erased, ""),
                ("last checkpoint", "none" if age is None else f"{age - age % _SECOND} ago", ""),
                ("events after it", report.unanchored, ""),
            ]
        )
    )
    for finding in report.findings:
        where = "no organization" if finding.organization_id is None else finding.organization_id
        text = f"{finding.kind}: {where}, sequence {finding.sequence}: {finding.reason}"
        print(printable(text).replace("\n", "\\n"))


def _facts(report: Report, wrong: list[str] | None) -> dict[str, Any]:
    names = ("verdict", "level", "chains", "rows", "pruned", "erased", "unanchored")
    facts = {name: getattr(report, name) for name in names}
    age = report.checkpoint_age
    facts["checkpoint_age_seconds"] = None if age is None else age.total_seconds()
    facts["findings"] = [finding._asdict() for finding in report.findings]
    return facts if wrong is None else {**facts, "export": wrong}


def export_store(
    store: SqlAuditSink,
    which: dict[str, Any],
    folder: Path,
    form: Any,
    signer: Signer | None,
    *,
    machine: bool,
) -> None:
    """Export with a progress bar, and say what was written."""
    with Bar(stderr_console(), None, "events") as bar:
        try:
            manifest = export(
                store,
                folder,
                format=form,
                signer=signer,
                progress=lambda done: bar.move(done, done),
                **which,
            )
        except (OSError, SigraError) as error:
            reason = getattr(error, "strerror", None)
            told = f"{folder} cannot be written: {reason}" if reason else str(error)
            raise MisuseError(told) from None
    events, files = manifest.events, len(manifest.files)
    if machine:
        facts = {"folder": str(folder), "format": form, "events": events, "files": files}
        print(json.dumps(facts))
    else:
        print(f"{events:,} events in {files:,} files in {folder}")


def clean_up(store: SqlAuditSink, retention_days: int, *, machine: bool) -> None:
    """Remove old events with a progress bar, and say how many."""
    try:
        before = datetime.now(timezone.utc) - timedelta(days=retention_days)
    except OverflowError:
        raise MisuseError(f"{retention_days} days ago is before all time") from None
    with Bar(stderr_console(), None, "events") as bar:
        removed = store.clean_up(before, lambda done: bar.move(done, done))
    if machine:
        print(json.dumps({"removed": removed, "before": before.isoformat()}))
    else:
        print(f"{removed:,} events older than {before:%Y-%m-%d %H:%M} UTC removed")


def add_checkpoint(store: SqlAuditSink, signer: Signer, file: Path, *, machine: bool) -> None:
    """Take a checkpoint after the last one of a file, and add it there."""
    try:
        number, taken = _add(store, signer, file)
    except (ValueError, OSError) as error:
        raise MisuseError(f"{file} cannot take a checkpoint: {error}") from error
    length = len(list(taken.heads))
    if machine:
        print(json.dumps({"file": str(file), "number": number, "chains": length}))
    else:
        print(f"checkpoint {number} of {length:,} chains in {file}")


def _add(store: SqlAuditSink, signer: Signer, file: Path) -> tuple[int, Checkpoint]:
    """Add a checkpoint after the last one, and return its number too."""
    while True:
        before = read_checkpoints(file) if file.exists() else []
        taken = take_checkpoint(store, signer, before[-1] if before else None)
        with suppress(CheckpointOrderError):  # another command added one meanwhile
            append_checkpoint(file, taken)
            return len(before) + 1, taken


def serve_page(store: SqlAuditSink, trust: dict[str, Any], port: int) -> None:
    """Print the page's address, and serve it until Ctrl-C."""
    try:
        import uvicorn

        from sigra.web import make_app
    except ImportError as error:
        raise MisuseError(str(MissingExtraError("web", error.name or "starlette"))) from None
    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(
        make_app(store, token=token, **trust),
        "127.0.0.1",
        port,
        log_level="warning",
        server_header=False,
    )
    bound = config.bind_socket()
    bound.listen()  # whoever reads the address below may come at once
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/?token={token}")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[bound])
