"""Sign envelopes and verify them, so that only the holder of a key can have a job run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sigra.backends.envelope import MARK
from sigra.errors import EnvelopeError, brief
from sigra.json import dumps, is_unicode, loads
from sigra.options import LONGEST_DELAY

SHORTEST_KEY = 32
_TYPE = "sigra.job/1"
"""Part of what is signed: it tells a job, signed by this algorithm, from all else a key signs."""

_OPTIONS = ("queue", "priority", "max_attempts", "backoff")
_SIGNED = (MARK, "id", "worker", "args", *_OPTIONS, "enqueued_at", "failures", "snoozes", "lost")
_BESIDE = (MARK, "failures", "snoozes", "attempt", "deliveries")
"""Fields that are read outside the signed text if they are not in it: the release before signed no
version and no counters, and deliveries are counted after the signing."""

_OTHER = (
    "it was signed for another application, or by another release: Signing has application='{}' "
    "here"
)
_NO_MATCH = (
    "its signature does not match: it was changed or forged, or its producer has other bytes for "
    "the key '{}'"
)


@dataclass(frozen=True, slots=True)
class Signing:
    """The keys by which envelopes are signed (HMAC-SHA256) and verified.

    ``keys``: key id to at least 32 random bytes. ``current``: the id of the key to sign with;
    the others still verify, until you remove them. None signs nothing yet, while processes
    without the keys still run. ``application``: a name that producers and consumers share;
    another application's jobs are refused. ``lifetime``: the seconds after the enqueue in which
    a run may begin; None: no limit. ``accept_unsigned``: run unsigned jobs too, while producers
    still send them. Raises ``ValueError`` for a key that is too short or has no id, and for a bad
    ``current``, ``application`` or ``lifetime``.
    """

    keys: Mapping[str, bytes] = field(repr=False)
    current: str | None
    application: str
    lifetime: float | None = None
    accept_unsigned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", dict(self.keys))
        for name, key in self.keys.items():
            if not isinstance(name, str):  # it may be a key, which no error may show
                raise ValueError(
                    "keys must map ids, which are str, to keys, which are bytes: are they swapped?"
                )
            if not name or not is_unicode(name):
                raise ValueError(
                    f"the id of a key must be a name that UTF-8 can carry, not {name!r}"
                )
            if not isinstance(key, bytes) or len(key) < SHORTEST_KEY:
                raise ValueError(
                    f"key {name!r} must be at least {SHORTEST_KEY} random bytes: make it with "
                    "secrets.token_bytes(32) and keep it where other secrets are kept"
                )
        if self.current is None and not self.accept_unsigned:
            raise ValueError("current=None signs nothing: pass accept_unsigned=True too")
        if self.current is not None and self.current not in self.keys:
            raise ValueError(f"current must be one of the ids in keys: {sorted(self.keys)}")
        if not (
            isinstance(self.application, str)
            and self.application.strip()
            and is_unicode(self.application)
        ):
            raise ValueError(
                "application must be a name that producers and consumers share, not "
                f"{self.application!r}"
            )
        if self.lifetime is not None and not (
            type(self.lifetime) in (int, float) and 0 < self.lifetime <= LONGEST_DELAY
        ):
            raise ValueError(
                f"lifetime must be seconds above zero, or None for no limit, not {self.lifetime!r}"
            )

    def seal(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the envelope with its args in a signed text, which has all but deliveries."""
        if self.current is None:
            return payload
        import hmac

        body = {name: payload[name] for name in _SIGNED}
        body |= {"type": _TYPE, "application": self.application, "key": self.current}
        if self.lifetime is not None:
            body["not_after"] = payload["enqueued_at"] + int(self.lifetime * 1e9)
        text = dumps(body).decode()
        mac = hmac.digest(self.keys[self.current], text.encode(), "sha256").hex()
        rest = {name: value for name, value in payload.items() if name != "args"}
        return {**rest, "key": self.current, "signed": text, "mac": mac}

    def open(self, payload: Mapping[str, Any], worker: str, now: int) -> dict[str, Any]:
        """Verify an envelope; return the fields that were signed, and those of ``_BESIDE``.

        ``worker``: the name of the worker that is to run. ``now``: nanoseconds since 1970.
        Raises ``EnvelopeError`` for anything but a job of this worker's, signed by one of
        the keys. Nothing is parsed before it is verified.
        """
        import hmac

        key_id, text, mac = (payload.get(name) for name in ("key", "signed", "mac"))
        if not (isinstance(key_id, str) and isinstance(text, str) and isinstance(mac, str)):
            raise EnvelopeError(
                "it is not signed, and only signed jobs run here: make it with .new(), in a "
                "process that has the key, or pass accept_unsigned=True while older jobs are queued"
            )
        key = self.keys.get(key_id)
        if key is None:
            raise EnvelopeError(
                f"it is signed by a key that this consumer does not have, '{brief(key_id)}': if it "
                "is yours, add it to the keys of Signing, where it stays while its jobs are queued"
            )
        expected = hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), mac.encode("utf-8", "surrogatepass")):
            raise EnvelopeError(_NO_MATCH.format(brief(key_id)))
        body = _fields(text)
        signed_for = tuple(body.get(name) for name in ("type", "application", "key"))
        if signed_for != (_TYPE, self.application, key_id):
            raise EnvelopeError(_OTHER.format(brief(self.application)))
        if body.get("worker") != worker:
            raise EnvelopeError("it was signed for another worker than the one it was sent to")
        end = body.get("not_after", now)
        if type(end) is not int or end < now:
            raise EnvelopeError("its signature has expired; enqueue it again with .new()")
        version = payload.get(MARK)
        if type(version) is not int or body.get(MARK, version) != version:
            raise EnvelopeError("its version is not the one that was signed")
        beside = {name: payload[name] for name in _BESIDE if name in payload}
        return beside | body


def _fields(text: str) -> dict[str, Any]:
    """Return the fields of a signed text; none of one that is no JSON object, and so no job."""
    try:
        body = loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
