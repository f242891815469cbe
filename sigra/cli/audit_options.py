"""What the commands of the audit store are told: which store, which events, whose keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sigra.cli.target import MisuseError
from sigra.errors import SigraError
from sigra.store.reading import event_filter

if TYPE_CHECKING:
    from sigra.store.reading import EventFilter

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])

Decorator = Callable[[Any], Any]


def _all(*options: Decorator) -> Decorator:
    """Put several options on a command."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


in_store = click.option(
    "--store",
    "url",
    envvar="SIGRA_AUDIT_STORE",
    required=True,
    metavar="URL",
    help="Where the events are, as sqlite:///audit.db or postgresql+psycopg://user@host/db. "
    "Default: the environment's SIGRA_AUDIT_STORE.",
)
of_organization = _all(
    click.option("--organization", "-o", metavar="ID", help="The events of one organization."),
    click.option("--without-organization", "without", is_flag=True, help="Events without one."),
    click.option("--all-organizations", "everything", is_flag=True, help="All of them."),
)
with_filters = _all(
    click.option("--actor", metavar="ID", help="Who acted."),
    click.option("--action", metavar="NAME", help="What was done, as invoice.close."),
    click.option("--outcome", type=click.Choice(["success", "failure", "error"])),
    click.option("--since", type=_MOMENT, help="From this moment on (UTC)."),
    click.option("--until", type=_MOMENT, help="Before this moment (UTC)."),
)
with_trust = _all(
    click.option(
        "--public-key",
        "keys",
        type=FILE,
        multiple=True,
        metavar="PEM",
        help="A public key (Ed25519) that marks and checkpoints may be signed with. Repeatable.",
    ),
    click.option(
        "--checkpoints",
        type=FILE,
        metavar="FILE",
        help="The signed checkpoints that are kept outside the database. Needs --public-key.",
    ),
)
with_key = click.option(
    "--key", type=FILE, metavar="PEM", help="The private key (Ed25519) to sign with."
)
as_json = click.option("--json", "machine", is_flag=True, help="JSON on standard output.")


def tenancy(given: dict[str, Any]) -> dict[str, Any]:
    """Take what ``of_organization`` gave, and return it as every read wants it.

    Raises ``MisuseError`` where none or more than one was said.
    """
    organization, without = given.pop("organization"), given.pop("without")
    everything = given.pop("everything")
    if [organization is not None, without, everything].count(True) != 1:
        raise MisuseError(
            "say which events: --organization ID, --without-organization or --all-organizations"
        )
    return {"all_organizations": True} if everything else {"organization_id": organization}


def which_events(given: dict[str, Any]) -> EventFilter:
    """Take what ``of_organization`` and ``with_filters`` gave; ``MisuseError`` for a bad filter."""

    def utc(moment: datetime | None) -> datetime | None:
        return None if moment is None else moment.replace(tzinfo=timezone.utc)

    where = tenancy(given)
    since, until = utc(given.pop("since")), utc(given.pop("until"))
    actor = given.pop("actor")
    try:
        return event_filter(**where, actor_id=actor, since=since, until=until, **given)
    except SigraError as error:
        raise MisuseError(str(error)) from None
