"""The commands ``sigra audit upgrade`` and ``sigra audit downgrade``."""

from __future__ import annotations

import click

from sigra.cli.audit_options import as_json, in_store
from sigra.cli.opening import open_tables

_dry = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")


@click.command()
@in_store
@click.option("--to", "version", metavar="VERSION", help="Default: the version of this release.")
@click.option("--create", is_flag=True, help="Make the tables where there are none.")
@_dry
@as_json
def upgrade(url: str, version: str | None, create: bool, dry_run: bool, machine: bool) -> None:
    """Bring the tables to the version of this release.

    All or nothing, in one transaction. Nobody else can write meanwhile. First stop all processes
    of the previous release, which cannot write afterwards: see "Upgrading" in
    docs/store-operations.md. An index or constraint that somebody dropped is made again.

    \b
    Exit status:
      0    the tables are of that version now, or were already
      1    it was tried and failed; nothing was changed
      2    called wrongly, or the store cannot be opened
    """  # noqa: D301
    store, found = open_tables(url, create=create)
    from sigra.cli import upgrading

    upgrading.upgrade_tables(store, found, version, dry_run=dry_run, machine=machine)


@click.command()
@in_store
@click.option("--to", "version", required=True, metavar="VERSION", help="As 0001.")
@_dry
@as_json
def downgrade(url: str, version: str, dry_run: bool, machine: bool) -> None:
    """Bring the tables back to an older version.

    Keeps all events, for an older release to go on with. First stop all processes of this
    release: each of them upgrades the tables again when it starts.
    """
    store, found = open_tables(url, create=False)
    from sigra.cli import upgrading

    upgrading.downgrade_tables(store, found, version, dry_run=dry_run, machine=machine)
