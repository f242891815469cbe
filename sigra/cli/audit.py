"""The commands that look at the audit store and keep it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sigra.cli.audit_options import (
    FILE,
    StoreCommands,
    as_json,
    in_store,
    in_store_if_any,
    of_organization,
    of_persons,
    open_store,
    tenancy,
    verifier,
    which_events,
    with_filters,
    with_key,
    with_trust,
)
from sigra.cli.target import MisuseError

_OUT = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(cls=StoreCommands)
def audit() -> None:
    """Look at the audit store, verify it, and keep it in order.

    Needs sigra[sql]. Every command takes --store URL, or SIGRA_AUDIT_STORE. Those that read
    events want to be told of which organization, or --all-organizations.
    """


@audit.command("list")
@in_store
@of_organization
@with_filters
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", metavar="TEXT", help="Go on after the page that printed this.")
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
@click.option("--lines", "-n", type=click.IntRange(0, 500), default=10, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with every event that comes.")
@as_json
def tail(url: str, lines: int, follow: bool, machine: bool, **filters: Any) -> None:
    """Show the newest events, oldest first, and follow. Ctrl-C ends it."""
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
    help="Check this export too; where no organization is said, it alone, without a store.",
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

    If not, the first bad row is named, and why it is one. The chains alone show whoever changes
    rows by hand. Against whoever can write the whole database, pass --checkpoints that were kept
    elsewhere, and --public-key. See docs/security.md.

    \b
    Exit status:
      0    intact
      1    broken, or there is nothing to verify
      2    the command was called in a way that cannot work
    """  # noqa: D301
    alone = folder is not None and not any(which.values())
    store = None
    if not alone:
        which = tenancy(which)
        if url is None:
            raise MisuseError("say where the store is: --store URL, or SIGRA_AUDIT_STORE")
        store = open_store(url)
    verifying = verifier()
    trust = verifying.read_trust(keys, checkpoints)
    if folder is not None and store is None:
        sys.exit(verifying.verify_folder(folder, trust, machine=machine))
    sys.exit(verifying.verify_store(store, which, trust, folder, machine=machine))


@audit.command()
@in_store
@of_organization
@click.option("--to", "folder", type=_FOLDER, required=True, help="A folder of its own.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    default="jsonl",
    show_default=True,
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
    help="Remove what is older than so many days, of all organizations.",
)
@with_key
@as_json
def cleanup(url: str, retention_days: int, key: Path | None, machine: bool) -> None:
    """Remove old events, so that the chains still verify.

    By batches of 10,000. What is interrupted is taken up by the next call.
    """
    store = open_store(url, key)
    from sigra.cli import keeping

    keeping.clean_up(store, retention_days, machine=machine)


@audit.command()
@in_store
@of_organization
@of_persons
@click.option("--reason", required=True, metavar="TEXT", help="Why, as the marks will say.")
@with_key
@as_json
def erase(
    url: str,
    persons: tuple[str, ...],
    target_type: str | None,
    reason: str,
    key: Path | None,
    machine: bool,
    **which: Any,
) -> None:
    """Erase what a person's events say; the chains still verify.

    Of each event stay its id, time, action, outcome and worker. A SQLite file is then written
    anew, during which nobody else can write. There is no way back.
    """
    which, store = tenancy(which), open_store(url)
    from sigra.cli import keeping

    signer = keeping.read_key(key)
    keeping.erase_persons(store, which, persons, target_type, reason, signer, machine=machine)


@audit.command()
@in_store
@click.option(
    "--key", type=FILE, required=True, metavar="PEM", help="The private key (Ed25519) to sign with."
)
@click.option(
    "--to",
    "file",
    type=_OUT,
    required=True,
    help="The file of checkpoints, kept where who can write the database cannot write.",
)
@as_json
def checkpoint(url: str, key: Path, file: Path, machine: bool) -> None:
    """Sign where all chains stand now.

    That is added to a file of checkpoints. A key is made by "openssl genpkey -algorithm ed25519",
    and the --public-key to verify with by "openssl pkey -in key.pem -pubout".
    """
    store = open_store(url)
    from sigra.cli import keeping

    keeping.add_checkpoint(store, keeping.read_key(key), file, machine=machine)


@audit.command()
@in_store
@with_trust
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True)
def serve(url: str, keys: tuple[Path, ...], checkpoints: Path | None, port: int) -> None:
    """Serve a read-only page on this machine.

    Who has the address that is printed sees it. The page binds to 127.0.0.1 alone. To see it from
    elsewhere, forward the port by ssh. Needs sigra[web]. Ctrl-C ends it.
    """
    store = open_store(url)
    from sigra.cli import keeping, verifying

    keeping.serve_page(store, verifying.read_trust(keys, checkpoints), port)
