"""Make this process the release before: it writes and reads envelopes of one version less.

Imported by a consumer's app before any backend is. Version 1 counted attempts, and neither
failures nor deliveries.
"""

from __future__ import annotations

from typing import Any

from sigra.backends import envelope

OLDER = envelope.VERSION - 1
_pack = envelope.pack


def older_pack(*args: Any, **counters: Any) -> dict[str, Any]:
    """Write a job as the older release did."""
    payload = _pack(*args, **counters)
    del payload["deliveries"], payload["lost"]
    return {**payload, envelope.MARK: OLDER, "attempt": payload.pop("failures") + 1}


def be_older() -> None:
    """Read and write as the older release; look at a newer one's jobs again after a second."""
    envelope.VERSION, envelope.pack = OLDER, older_pack
    from sigra.backends import external

    external.WAIT_FOR_DEPLOY = 1.0
