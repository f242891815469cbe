"""The commands ``sigra audit``: look at the store, verify it and maintain it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sigra.cli.audit_options import (
    FILE,
    as_json,
    for_erasure,
    in_store,
    in_store_if_any,
    of_organization,
    tenancy,
    which_events,
    with_filters,
    with_key,
    with_trust,
)
from sigra.cli.audit_tables import downgrade, upgrade
from sigra.cli.opening import open_store, verifier
from sigra.cli.paths import NEW_FILE, NEW_FOLDER
from sigra.cli.store_commands import StoreCommands
from sigra.cli.target import MisuseError


@click.group(cls=StoreCommands)
def audit() -> None:
    """Read, verify and maintain the audit store.

    Needs sigra[sql]. Every command takes --store URL, or SIGRA_AUDIT_STORE. Those that
    select events need one of --all-organizations, --organization ID and --without-organization.
    """


@audit.command("list")
@in_store
@of_organization
@with_filters
@click.option("--limit", type=click.IntRange(1, 500), default=50, help="How many events.")
@click.option("--cursor", metavar="TEXT", help="Continue after the page that printed this.")
@as_json
def list_(url: str, limit: int, cursor: str | None, machine: bool, **filters: Any) -> None:
    """List events, newest first.

    With --json, one object a line. The cursor of the next page goes to standard error.
    """
    which, store = which_events(filters), open_store(url)
    from sigra.cli import events

    events.show_page(store, which, limit, cursor, machine=machine)


@audit.command()
@in_store
@of_organization
@with_filters
@click.option("--lines", "-n", type=click.IntRange(0, 500), default=10, help="How many events.")
@click.option("--follow", "-f", is_flag=True, help="Print each new event as it comes.")
@as_json
def tail(url: str, lines: int, follow: bool, machine: bool, **filters: Any) -> None:
    """Show the newest events, oldest first. With --follow, go on until Ctrl-C."""
    which, store = which_events(filters), open_store(url)
    from sigra.cli import events

    events.follow(store, which, lines, for_ever=follow, machine=machine)


@audit.command()
@in_store
@of_organization
@with_filters
@as_json
def stats(url: str, machine: bool, **filters: Any) -> None:
    """Count events by action and outcome."""
    which, store = which_events(filters), open_store(url)
    from sigra.cli import events

    events.show_stats(store, which, machine=machine)


@audit.command()
@in_store_if_any
@of_organization
@with_trust
@click.option(
    "--export",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Check this export too; if no events are selected, only the export, without a store.",
)
@as_json
def verify(
    url: str | None,
    keys: tuple[Path, ...],
    checkpoints: Path | None,
    folder: Path | None,
    machine: bool,
    **which: Any,
) -> None:
    """Check that the store holds what was written.

    If not, print the first bad rows and what is wrong with them. The chains alone reveal rows
    changed by hand. To detect changes by somebody who can rewrite the whole database, pass
    --checkpoints that were kept elsewhere, and --public-key. See docs/security.md.

    \b
    Exit status:
      0    intact
      1    broken, or there is nothing to verify
      2    it could not be checked: called wrongly, or the tables cannot be read
    """  # noqa: D301
    alone = folder is not None and not any(which.values())
    store = None
    if not alone:
        which = tenancy(which)
        if url is None:
            raise MisuseError("no audit store is named: pass --store URL or set SIGRA_AUDIT_STORE")
        store = open_store(url)
    verifying = verifier()
    trust = verifying.read_trust(keys, checkpoints)
    if folder is not None and store is None:
        sys.exit(verifying.verify_folder(folder, trust, machine=machine))
    sys.exit(verifying.verify_store(store, which, trust, folder, machine=machine))


@audit.command()
@in_store
@of_organization
@click.option("--to", "folder", type=NEW_FOLDER, required=True, help="A new or empty folder.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    default="jsonl",
    help="How the events are written.",
)
@with_key
@as_json
def export(
    url: str, folder: Path, form: Any, key: Path | None, machine: bool, **which: Any
) -> None:
    """Write the events into a folder, with a manifest.

    There is one file for each organization. parquet needs sigra[parquet]. "sigra audit verify
    --export FOLDER" checks the files.
    """
    which, store = tenancy(which), open_store(url)
    from sigra.cli import keeping

    signer = keeping.read_key(key)
    keeping.export_store(store, which, folder, form, signer, machine=machine)


@audit.command()
@in_store
@click.option(
    "--retention-days",
    type=click.IntRange(min=1),
    required=True,
    help="Remove events of all organizations that are older.",
)
@with_key
@as_json
def cleanup(url: str, retention_days: int, key: Path | None, machine: bool) -> None:
    """Remove old events; the chains still verify.

    Works in batches of 10,000. If it is interrupted, the next call goes on.
    """
    store = open_store(url, key)
    from sigra.cli import keeping

    keeping.clean_up(store, retention_days, signed=key is not None, machine=machine)


@audit.command()
@in_store
@of_organization
@for_erasure
@with_key
@as_json
def erase(url: str, key: Path | None, machine: bool, **given: Any) -> None:
    """Erase what a person's events hold; the chains still verify.

    This cannot be undone. Each event keeps its id, time, action, outcome and worker. A SQLite
    file is then rewritten: that takes as much disk again, and nobody can write meanwhile.
    PostgreSQL's needs a VACUUM FULL.

    An event that somebody has changed is erased too, and named on standard error; the status is
    then 1. To keep it as evidence, verify the store before, and copy it.
    """
    which, store = tenancy(given), open_store(url)
    from sigra.cli import erasing, keeping

    signer = keeping.read_key(key)
    sys.exit(erasing.erase_persons(store, which, signer=signer, machine=machine, **given))


@audit.command()
@in_store
@click.option(
    "--key", type=FILE, required=True, metavar="PEM", help="The private key (Ed25519) to sign with."
)
@click.option(
    "--to",
    "file",
    type=NEW_FILE,
    required=True,
    help="The file of checkpoints. Keep it where nobody can write who can write the database.",
)
@as_json
def checkpoint(url: str, key: Path, file: Path, machine: bool) -> None:
    """Sign the current state of all chains.

    Adds it to a file of checkpoints. "openssl genpkey -algorithm ed25519" makes a key, and
    "openssl pkey -in key.pem -pubout" the --public-key to verify with.
    """
    store = open_store(url)
    from sigra.cli import keeping

    keeping.add_checkpoint(store, keeping.read_key(key), file, machine=machine)


@audit.command()
@in_store
@with_trust
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    help="The port to listen on; 0 takes a free one.",
)
def serve(url: str, keys: tuple[Path, ...], checkpoints: Path | None, port: int) -> None:
    """Serve a read-only page on this machine.

    It is open to whoever has the printed address, and listens on 127.0.0.1 only. To see it from
    elsewhere, forward the port by ssh. Needs sigra[web]. Ctrl-C ends it.
    """
    store = open_store(url)
    from sigra.cli import serving, verifying

    serving.serve_page(store, verifying.read_trust(keys, checkpoints), port)


audit.add_command(upgrade)
audit.add_command(downgrade)
