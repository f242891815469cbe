"""The commands that look at the audit store and keep it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sigra.cli.target import MisuseError
from sigra.errors import MissingExtraError

if TYPE_CHECKING:
    from sigra.store import SqlAuditSink

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

in_store = click.option(
    "--store",
    "url",
    envvar="SIGRA_AUDIT_STORE",
    required=True,
    metavar="URL",
    help="Where the events are, as sqlite:///audit.db or postgresql+psycopg://user@host/db. "
    "Default: the environment's SIGRA_AUDIT_STORE.",
)
with_keys = click.option(
    "--public-key",
    "keys",
    type=_FILE,
    multiple=True,
    metavar="PEM",
    help="A public key (Ed25519) that marks and checkpoints may be signed with. Repeatable.",
)
with_checkpoints = click.option(
    "--checkpoints",
    type=_FILE,
    metavar="FILE",
    help="The signed checkpoints that are kept outside the database. Needs --public-key.",
)


@click.group()
def audit() -> None:
    """Look at the audit store, verify it, and keep it in order.

    Needs sigra[sql]. Every command takes --store URL, or SIGRA_AUDIT_STORE.
    """


@audit.command()
@in_store
@with_keys
@with_checkpoints
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True)
def serve(url: str, keys: tuple[Path, ...], checkpoints: Path | None, port: int) -> None:
    """Serve a read-only page on this machine, for whoever has the address that is printed.

    The page binds to 127.0.0.1 alone. To see it from elsewhere, forward the port by ssh.
    Needs sigra[web]. Ctrl-C ends it.
    """
    try:
        import uvicorn

        from sigra.web import make_app
    except ModuleNotFoundError as error:
        raise MisuseError(str(MissingExtraError("web", error.name or "starlette"))) from None
    token = secrets.token_urlsafe(24)
    app = make_app(open_store(url), token=token, **trust(keys, checkpoints))
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="warning", server_header=False)
    bound = config.bind_socket()
    click.echo(f"http://127.0.0.1:{bound.getsockname()[1]}/?token={token}")
    uvicorn.Server(config).run(sockets=[bound])


def open_store(url: str) -> SqlAuditSink:
    """Open an existing store; ``MisuseError`` where there is none."""
    try:
        from sigra.store import SqlAuditSink
    except MissingExtraError as error:
        raise MisuseError(str(error)) from None
    kind, _, path = url.partition(":///")
    if kind.startswith("sqlite") and not Path(path).is_file():
        raise MisuseError(f"there is no audit store at {url}: no such file")
    try:
        sink = SqlAuditSink(url)
        sink.prepare()
    except Exception as error:
        raise MisuseError(f"the audit store cannot be opened: {error}") from error
    return sink


def trust(keys: tuple[Path, ...], checkpoints: Path | None) -> dict[str, Any]:
    """Read public keys and checkpoints, as ``verify`` takes them."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from sigra.store import read_checkpoints

    if checkpoints is not None and not keys:
        raise MisuseError("--checkpoints say nothing without --public-key to check them by")
    try:
        found = [load_pem_public_key(key.read_bytes()) for key in keys]
        kept = [] if checkpoints is None else read_checkpoints(checkpoints)
    except (ValueError, OSError) as error:
        raise MisuseError(f"a key or checkpoint cannot be read: {error}") from error
    return {"public_keys": found, "checkpoints": kept}
