"""Options that the commands of the audit store share: which store, which events, which keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sigra.cli.target import MisuseError
from sigra.errors import SigraError
from sigra.store.reading import event_filter

if TYPE_CHECKING:
    from sigra.store.reading import EventFilter

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_AGO = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Decorator = Callable[[Any], Any]


def _moment(text: str) -> datetime:
    """Read how long ago, as 90m, or what ISO 8601 writes; in UTC if it has no zone."""
    number, unit = text[:-1], _AGO.get(text[-1:])
    try:
        if unit is not None and number.isascii() and number.isdecimal():
            return datetime.now(timezone.utc) - timedelta(**{unit: int(number)})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        told = f"{text!r} is not a time: write 2026-11-25, 2026-11-25T12:30Z or 90m (ago; s, h, d)"
        raise click.BadParameter(told) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _all(*options: Decorator) -> Decorator:
    """Put several options on a command."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_STORE: dict[str, Any] = {
    "envvar": "SIGRA_AUDIT_STORE",
    "show_envvar": True,
    "metavar": "URL",
    "help": "Where the events are, as sqlite:///audit.db or postgresql+psycopg://user@host/db.",
}
in_store = click.option("--store", "url", required=True, **_STORE)
in_store_if_any = click.option("--store", "url", **_STORE)
of_organization = _all(
    click.option("--organization", "-o", metavar="ID", help="Events of one organization."),
    click.option("--without-organization", "without", is_flag=True, help="Events without one."),
    click.option("--all-organizations", "everything", is_flag=True, help="All events."),
)
for_erasure = _all(
    click.option(
        "--person",
        "persons",
        multiple=True,
        required=True,
        metavar="ID",
        help="Whom to erase, as actor, effective user or target of events. Repeatable.",
    ),
    click.option(
        "--target-type",
        metavar="TYPE",
        help="The target_type of persons, such as user. Targets of other types with the same id "
        "are then kept.",
    ),
    click.option("--reason", required=True, metavar="TEXT", help="Why. It is kept in the store."),
    click.option(
        "--no-vacuum",
        is_flag=True,
        help="Do not rewrite a SQLite file. Until you run this again without the option, copies of "
        "the text may be in the file and in its -wal.",
    ),
)
with_filters = _all(
    click.option("--actor", metavar="ID", help="Who acted."),
    click.option("--action", metavar="NAME", help="What was done, as invoice.close."),
    click.option(
        "--outcome", type=click.Choice(["success", "failure", "error"]), help="How it ended."
    ),
    click.option(
        "--since",
        type=_moment,
        metavar="MOMENT",
        help="From this moment on: 2026-11-25, 2026-11-25T12:30Z (UTC if it has no zone) or 90m "
        "(ago; also s, h and d).",
    ),
    click.option("--until", type=_moment, metavar="MOMENT", help="Before this moment."),
)
with_trust = _all(
    click.option(
        "--public-key",
        "keys",
        type=FILE,
        multiple=True,
        metavar="PEM",
        help="An Ed25519 public key that marks and checkpoints are checked with. Repeatable.",
    ),
    click.option(
        "--checkpoints",
        type=FILE,
        metavar="FILE",
        help="The signed checkpoints kept outside the database. Needs --public-key.",
    ),
)
with_key = click.option(
    "--key", type=FILE, metavar="PEM", help="The private key (Ed25519) to sign with."
)
as_json = click.option("--json", "machine", is_flag=True, help="Print JSON instead of text.")


def tenancy(given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of ``of_organization`` out of ``given``; return the arguments of a read.

    Raises ``MisuseError`` unless exactly one was given.
    """
    organization, without = given.pop("organization"), given.pop("without")
    everything = given.pop("everything")
    if (count := [organization is not None, without, everything].count(True)) != 1:
        ways = "--organization ID, --without-organization and --all-organizations"
        raise MisuseError(
            f"{ways} exclude each other: pass exactly one of them"
            if count
            else f"no events are selected: pass exactly one of {ways}"
        )
    which: dict[str, Any] = {"organization_id": organization}
    if everything:
        which = {"all_organizations": True}
    try:
        event_filter(**which)
    except SigraError as error:
        raise MisuseError(str(error)) from None
    return which


def which_events(given: dict[str, Any]) -> EventFilter:
    """Make a filter of all these options; raise ``MisuseError`` for a bad one."""
    where, actor = tenancy(given), given.pop("actor")
    since, until = given["since"], given["until"]
    if since is not None and until is not None and since >= until:
        first, last = since.isoformat(" ", "seconds"), until.isoformat(" ", "seconds")
        raise MisuseError(f"--since {first} must be before --until {last}")
    try:
        return event_filter(**where, actor_id=actor, **given)
    except SigraError as error:
        raise MisuseError(str(error)) from None
