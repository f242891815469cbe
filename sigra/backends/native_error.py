"""What an error of a queue's client says: its text, and whether an answer is missing."""

from __future__ import annotations

import re
from traceback import walk_tb

_NO_ANSWER = {
    "TimeoutError",
    "EOFError",
    "BrokenPipeError",
    "ConnectionAbortedError",
    "ConnectionResetError",
    "ConnectionForced",  # by amqp
    "ConnectionBlockedTimeout",  # these by pika
    "ConnectionClosedByBroker",
    "StreamLostError",
}
_LOST = re.compile(
    r"closed connection|[Cc]onnection (was )?closed (by|in the middle)|while (reading|writing)"
)
_BROKEN = {"OperationalError", "InternalError"}
"""psycopg's: the second where PgBouncer adds an error of its own to the server's last one."""
_CONNECTS = "connecting to "
_DATABASES = "psycopg", "asyncpg", "django.db"
"""Packages of databases' clients, whose errors do not always say that they were connecting."""


def has_no_answer(
    error: BaseException | None, handled: BaseException | None = None, *, commits: bool = False
) -> bool:
    """Tell whether an answer did not come in time, or the connection broke before it came.

    Then nobody here knows whether the server has what it was sent. That no connection could be
    made does not count, but what broke before it was tried does. ``handled``: an error from before,
    which does not count either. ``commits``: each statement is a transaction of its own.
    """
    connects, seen = False, {id(handled)}
    while error is not None and id(error) not in seen and not _was_not_connected(error):
        seen.add(id(error))
        if connects:
            connects = False  # it is what the system said of that
        else:
            names, text = {kind.__name__ for kind in type(error).__mro__}, error_text(error)
            connects = _CONNECTS in text
            broken = names & _BROKEN and _broke_as_it_committed(error, commits)
            if not connects and (broken or names & _NO_ANSWER or _LOST.search(text)):
                return True
        error = error.__cause__ or error.__context__
    return False


def _was_not_connected(error: BaseException) -> bool:
    """Tell whether a database's client, or psycopg's pool, had no connection yet."""
    return type(error).__module__.startswith("psycopg_pool") or any(
        frame.f_code.co_name.strip("_") == "connect"
        and str(frame.f_globals.get("__name__")).startswith(_DATABASES)
        for frame, _ in walk_tb(error.__traceback__)
    )


def _broke_as_it_committed(error: BaseException, commits: bool) -> bool:
    """Tell whether PostgreSQL, or what stands before it, was gone before it confirmed a commit.

    Before that, what it was sent is undone.
    """
    state = getattr(error, "sqlstate", getattr(error, "pgcode", ""))  # None: the client noticed it
    if state is not None and not str(state).startswith(("08", "57P")):
        return False
    names = (frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__))
    commits = commits or any(name.strip("_").startswith("commit") for name in names)
    return commits and "connection is closed" not in error_text(error)


def error_text(error: BaseException | None) -> str:
    """Return an error's type and text, as queues show them, in a form that any queue can write."""
    try:
        text = f"{type(error).__qualname__}: {error}".strip().removesuffix(":")
    except Exception:
        text = f"{type(error).__qualname__}: <exception str() failed>"  # as tracebacks have it
    return carried(text)


def carried(text: str) -> str:
    """Return a text in a form that any queue can write: NUL and lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
