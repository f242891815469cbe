"""Find the instance of Oban that a process made, and say how one is made where there is none."""

from __future__ import annotations

from typing import Any

from sigra.backends.external import native
from sigra.errors import EnqueueError

_oban = native("oban", "oban")


def instance(name: str) -> Any:
    """Return Oban's instance of that name; ``EnqueueError`` if this process has none."""
    try:
        return _oban.Oban.get_instance(name)
    except RuntimeError as error:
        given = "" if name == "Oban" else f"name={name!r}, "
        made = f"Oban({given}pool=AsyncConnectionPool(dsn, open=False))"
        raise EnqueueError("oban", f"{error}; make it beside configure(): {made}") from error
