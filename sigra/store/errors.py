"""What goes wrong where audit events are kept and read back."""

from __future__ import annotations

from sigra.errors import SigraError

REENTERED = "a signal handler used the sink while its own thread was writing an event"
"""The text of the ``RuntimeError`` with which it is refused: it would wait for itself."""

DENIED, LOCKED = "42501", "55P03"
"""PostgreSQL's codes: a role lacks a right, and a wait for a lock took too long."""

UPGRADE = "run sigra audit upgrade, or call sigra.store.migrate.upgrade(sink.database)"
"""What to do about tables of an older version."""

CREATE = UPGRADE.replace(",", " --create,")
"""What to do about tables that were never made."""

UPGRADING = (
    "are being brought to another version by somebody else, and nobody can write meanwhile: wait "
    "until that is done"
)
"""The reason of the ``AuditTablesError`` for whoever has waited for that for too long."""


def reason_of(error: BaseException) -> str:
    """Return a driver's own words, without SQLAlchemy's lines; its error's type if it has none."""
    own = getattr(error, "orig", error)
    return str(own) or type(own).__name__


def state_of(error: BaseException) -> str | None:
    """Return PostgreSQL's code of a driver's error, which SQLAlchemy may wrap."""
    own = getattr(error, "orig", error)
    return getattr(own, "sqlstate", None) or getattr(own, "pgcode", None)  # so psycopg2 names it


def code_of(error: BaseException) -> str | None:
    """Return the same, or SQLite's code."""
    own = getattr(error, "orig", error)
    return state_of(error) or getattr(own, "sqlite_errorname", None)


class InvalidQueryError(SigraError, ValueError):
    """Refuse a read of audit events. Attributes: ``argument`` (its name), ``reason``."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"invalid {argument} for audit events: {reason}")
        self.argument, self.reason = argument, reason


class AuditBacklogError(SigraError, TimeoutError):
    """Tell that a batching sink's queue stayed full. Attributes: ``size``, ``seconds``."""

    def __init__(self, size: int, seconds: float) -> None:
        super().__init__(
            f"the audit event is not kept: {size} others wait to be written, and none was written "
            f"in {seconds} s. Look at the database, or give the sink a longer queue."
        )
        self.size, self.seconds = size, seconds


class AuditLostError(SigraError):
    """Tell that a batching sink closed with events unwritten. Attribute: ``count``."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} audit events could not be written before the sink closed; they count as "
            "failed, and the log of sigra.audit says why"
        )
        self.count = count


class AuditNotKeptError(SigraError, ValueError):
    """Tell that an event is in no row of its chain. Attributes: ``event_id``, ``taken``.

    ``taken``: an event of another organization has its id.
    """

    def __init__(self, event_id: str, *, taken: bool) -> None:
        reason = (
            "another organization has an event with this id: find out who wrote that one, and how "
            "they knew the id"
            if taken
            else "the database took the row and did not keep it: look for a trigger or a rule on "
            "sigra_audit_entries"
        )
        super().__init__(f"the audit event {event_id} is not kept: {reason}")
        self.event_id, self.taken = event_id, taken


class AsyncConnectionError(SigraError, TypeError):
    """Refuse a connection or session that a plain call cannot await. Attribute: ``kind``.

    ``log_safe`` reports only the name of this class, so the name must say enough.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"conn is an {kind}, which a plain call cannot await: write "
            "await conn.run_sync(lambda sync: log(..., conn=sync))"
        )
        self.kind = kind


class AutocommitError(SigraError, ValueError):
    """Refuse a connection or session that is in no transaction: each of its statements commits."""

    def __init__(self) -> None:
        super().__init__("conn is in AUTOCOMMIT, so in no transaction: pass one that is in one")


class AuditSinkClosedError(SigraError, RuntimeError):
    """Tell that an event came after its sink was closed."""

    def __init__(self) -> None:
        super().__init__(
            "the audit sink is closed and keeps nothing: close it after the last event, or remove "
            "it from configure(sinks=...) first"
        )


class AuditTablesError(SigraError, RuntimeError):
    """Tell that the store's tables are not as this version makes and fills them.

    Attribute: ``reason``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the audit store's tables {reason}")
        self.reason = reason


class AuditTablesMissingError(AuditTablesError):
    """Tell that a table, or a column of one, was never made. Attribute: ``reason``.

    ``log_safe`` reports only the name of this class, so the name must say enough.
    """


class AuditChainError(AuditTablesError, ValueError):
    """Tell that one chain cannot be used, because somebody altered its rows.

    Attributes: ``chain`` (the ``repr`` of its tag, at most 80 characters), ``reason``.
    """

    def __init__(self, tag: object, reason: str) -> None:
        self.chain = repr(tag)[:80]
        super().__init__(f"{reason} (chain {self.chain})")

    @classmethod
    def odd(cls, tag: object, sequence: object = None) -> AuditChainError:
        """Return the error for a chain's row, or an entry, with a value that is never written."""
        what = "the row of a chain" if sequence is None else f"its entry {repr(sequence)[:40]}"
        reason = f"hold, in {what}, a value of a kind that is never written"
        return cls(tag, f"{reason}: call verify, and put back what was there")


class CheckpointOrderError(SigraError, ValueError):
    """Refuse a checkpoint that would not follow the last one of its file. Attribute: ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the checkpoint does not follow the last one in {path}: somebody added one meanwhile, "
            "or previous= was not given. Take a new one, with the last one as previous=."
        )
        self.path = path
