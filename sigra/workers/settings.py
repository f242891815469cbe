"""The host's settings for the workers that come with Sigra: its token table, its emails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sigra.catalog import lock
from sigra.errors import SigraError

if TYPE_CHECKING:
    from sqlalchemy import Engine

LIFETIMES: Mapping[str, timedelta] = MappingProxyType(
    {
        "confirm": timedelta(hours=48),
        "confirm_code": timedelta(hours=48),
        "reset_password": timedelta(hours=1),
        "magic_link": timedelta(minutes=15),
        "session": timedelta(days=60),
        "api_refresh": timedelta(days=30),
    }
)
"""How long a token of each context is good, unless the host says otherwise."""


class NotConfiguredError(SigraError, LookupError):
    """Report that a worker lacks a setting. Attributes: ``worker``, ``setting``."""

    def __init__(self, worker: str, setting: str) -> None:
        super().__init__(
            f"{worker} does not know what to work on: call sigra.workers.set_up({setting}) where "
            "the consumer imports its workers"
        )
        self.worker, self.setting = worker, setting


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Where the host keeps its tokens: a table with a primary key and two more columns.

    ``engine``: a SQLAlchemy engine. ``context``: the column that says what a token is for.
    ``inserted_at``: the column that says when a token was made (UTC where it has no time
    zone). ``lifetimes``: context to lifetime, laid over ``LIFETIMES``; tokens of a context
    that neither names are never deleted.
    """

    engine: Engine
    name: str = "tokens"
    schema: str | None = None
    context: str = "context"
    inserted_at: str = "inserted_at"
    lifetimes: Mapping[str, timedelta] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if hasattr(self.engine, "sync_engine") or not hasattr(self.engine, "begin"):
            raise TypeError("engine must be an Engine: of an AsyncEngine, pass its sync_engine")
        for context, lifetime in self.lifetimes.items():
            if not isinstance(lifetime, timedelta) or lifetime <= timedelta(0):
                raise ValueError(
                    f"the lifetime of {context!r} must be a timedelta above zero, not {lifetime!r}"
                )


@dataclass(frozen=True, slots=True)
class EmailSettings:
    """How an email is made from a type and ids, and sent.

    ``find_user``: user id (str) to the host's user, or None where there is none.
    ``builders``: type to a function of the user and of the ids that the job carries, by
    keyword, which returns the message. ``mailer``: sends a message; if it raises, the job
    is tried again.
    """

    find_user: Callable[[str], Any]
    builders: Mapping[str, Callable[..., EmailMessage]]
    mailer: Callable[[EmailMessage], object]

    def __post_init__(self) -> None:
        if not isinstance(self.builders, Mapping):
            kind = type(self.builders).__qualname__
            raise TypeError(f"builders must be a mapping of types to functions, not {kind}")
        for function in (self.find_user, *self.builders.values(), self.mailer):
            if not callable(function):
                kind = type(function).__qualname__
                raise TypeError(f"find_user, mailer and each builder must be functions, not {kind}")
            if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
                name = getattr(function, "__qualname__", repr(function))
                raise TypeError(
                    f"{name} must be a plain function: nothing would await an asynchronous one"
                )


@dataclass(frozen=True, slots=True)
class _Settings:
    tokens: TokenTable | None = None
    email: EmailSettings | None = None


_settings = _Settings()


def set_up(*, tokens: TokenTable | None = None, email: EmailSettings | None = None) -> None:
    """Set what this process's workers work on; what is not named stays as it was.

    Call it where the consumer imports its own workers.
    """
    global _settings
    for name, given, kind in (("tokens", tokens, TokenTable), ("email", email, EmailSettings)):
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name} must be {kind.__name__}(...), not {type(given).__qualname__}")
    with lock:
        before = _settings
        _settings = _Settings(tokens or before.tokens, email or before.email)


def token_table() -> TokenTable:
    """Return the host's token table; ``NotConfiguredError`` before ``set_up`` named it."""
    if _settings.tokens is None:
        raise NotConfiguredError("TokenCleanup", "tokens=TokenTable(engine)")
    return _settings.tokens


def email_settings() -> EmailSettings:
    """Return how emails come about; ``NotConfiguredError`` before ``set_up`` said it."""
    if _settings.email is None:
        raise NotConfiguredError("EmailDelivery", "email=EmailSettings(...)")
    return _settings.email
