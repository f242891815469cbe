"""Send one email: the job carries its type and ids, never its text."""

from __future__ import annotations

import random
from inspect import isawaitable
from typing import Any

from sigra.decorators import worker
from sigra.outcome import Cancel
from sigra.scope import id_text
from sigra.workers.settings import email_settings


def backoff(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt: its fourth power, 15, and jitter."""
    return float(attempt**4 + 15 + random.uniform(0, 30) * attempt)


@worker(name="sigra.workers.EmailDelivery", max_attempts=3, backoff=backoff)
def EmailDelivery(  # noqa: N802 - it is used as an object
    type: str,
    user_id: str | int,
    organization_id: str | int | None = None,
    token_id: str | int | None = None,
) -> Cancel | None:
    """Build the email of this type for this user, and send it.

    The ids that are not None are passed to the builder by keyword; it looks up with them what
    the text needs. An unknown type or user cancels the job. If the builder or the mailer
    raises, the job is tried again, three times in all. Raises ``NotConfiguredError`` before
    ``set_up(email=...)``.
    """
    settings = email_settings()
    build = settings.builders.get(type) if isinstance(type, str) else None
    if build is None:
        return Cancel("no builder for emails of its type")
    asked = id_text(user_id)
    user = None if asked is None else _at_once("find_user", settings.find_user(asked))
    if user is None:
        return Cancel("no user with its user_id")
    ids = {"organization_id": organization_id, "token_id": token_id}
    given = {name: str(value) for name, value in ids.items() if value is not None}
    message = _at_once("the builder", build(user, **given))
    _at_once("the mailer", settings.mailer(message))
    return None


def _at_once(what: str, returned: Any) -> Any:
    """Return what a function of the host returned; ``TypeError`` if it would have to be awaited."""
    if isawaitable(returned):
        raise TypeError(f"nothing was sent: {what} is asynchronous; give a plain function")
    return returned
