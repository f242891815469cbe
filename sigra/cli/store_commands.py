"""The group of commands that work on the audit store, and how it tells of what goes wrong there."""

from __future__ import annotations

import errno
import logging
import re
import sqlite3
from typing import Any

import click

from sigra.cli.output import FULL
from sigra.cli.target import MisuseError, Once
from sigra.errors import SigraError
from sigra.store.errors import DENIED, code_of, reason_of

_OF_STDOUT = (*FULL, errno.EPIPE)
_CURES = {
    DENIED: 'the rights that each role needs are under "PostgreSQL roles" in '
    "docs/store-operations.md",
    "25006": "this may be a replica: name the primary, or end what makes it read-only",
    "57014": "if that is a statement_timeout, give the role that runs these commands a longer one, "
    "or none: ALTER ROLE ... SET statement_timeout = 0",
    "SQLITE_IOERR_SHMSIZE": "is the disk full? To read, SQLite makes a small file beside the store",
    "SQLITE_IOERR_SHMMAP": "is it on a network's file system, or one of FUSE? SQLite needs a "
    "disk of this machine",
    "SQLITE_BUSY": "another transaction kept its lock: find who has the file open, as by lsof, and "
    "end it",
}
"""What to do, by PostgreSQL's code or SQLite's, where a driver's own words do not say so."""
_LINE_END = re.compile(r"\s*\n\s*")
_PLACE = re.compile(r"\n(?:LINE \d+|CONTEXT):.*", re.DOTALL)
"""What PostgreSQL adds about the place in a statement of ours, or in its own work."""


class StoreCommands(click.Group):
    """The commands of the audit store."""

    command_class = Once

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; show an error of the store or its database in one line."""
        # After Ctrl-C it would log, with a traceback, that a cursor cannot be closed any more.
        logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())
        try:
            return super().invoke(ctx)
        except Exception as error:
            if getattr(error, "errno", None) in _OF_STDOUT:
                raise
            if _is_told(error):
                told = str(error)
            elif hasattr(error, "orig") or isinstance(error, (sqlite3.Error, OSError)):
                # The driver's, which SQLAlchemy may have wrapped, or the system's.
                told = f"the audit store cannot be used: {words_of(error)}"
            else:
                raise
            from sigra.cli.show import inline

            told = "; ".join([told, *getattr(error, "__notes__", ())])
            # The status 1 of verify says that the store is broken.
            kind = MisuseError if ctx.invoked_subcommand == "verify" else click.ClickException
            raise kind(inline(told)) from error


def words_of(error: Exception) -> str:
    """Return a driver's own words, and what to do where they do not say so."""
    cure = _CURES.get(code_of(error) or "")
    reason = _LINE_END.sub(" ", _PLACE.sub("", reason_of(error)))
    return reason if cure is None else f"{reason}; {cure}"


def _is_told(error: Exception) -> bool:
    """Tell whether an error is one of ours, whose text says all."""
    return isinstance(error, SigraError) or (isinstance(error, TimeoutError) and bool(error.args))
