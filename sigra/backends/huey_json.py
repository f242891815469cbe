"""Write huey's messages as JSON: the only serializer that huey itself has pickles."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from sigra.backends.external import native

_registry = native("huey.registry", "huey")
_utils = native("huey.utils", "huey")

_MOMENTS = ("eta", "expires", "expires_resolved")
_FOLLOWERS = ("on_complete", "on_error")


class JSONSerializer:
    """Write tasks, results and revocations as JSON, when given to a huey as ``serializer=``.

    Args and results of the huey's native tasks must then be JSON too; otherwise the call
    raises ``TypeError`` or ``ValueError``, which says what is not. An exception, such as
    the handler of ``.error(...)`` is given, arrives as its ``repr``.
    """

    def serialize(self, data: Any) -> bytes:
        """Return the data as JSON text, under a key that says what it is."""
        if isinstance(data, _registry.Message):
            tagged: dict[str, Any] = {"task": _to_json(data)}
        elif isinstance(data, _utils.Error):
            tagged = {"error": data.metadata}
        elif _is_revocation(data):
            tagged = {"revoked": [_to_text(data[0]), data[1]]}
        else:
            tagged = {"value": data}
        text = json.dumps(tagged, separators=(",", ":"), allow_nan=False, default=_own)
        return text.encode()

    def deserialize(self, data: Any) -> Any:
        """Return what was serialized; ``ValueError`` for anything else, a pickle included."""
        match json.loads(bytes(data)):
            case {"task": dict(fields)}:
                return _to_message(fields)
            case {"error": metadata}:
                return _utils.Error(metadata)
            case {"revoked": [until, once]}:
                return _to_moment(until), once
            case {"value": value}:
                return value
        raise ValueError("this message was not written by sigra's JSONSerializer")


def _own(value: Any) -> Any:
    """Return what stands for that which huey itself hands to an error's handler or a chord."""
    if isinstance(value, _utils.Error):
        return value.metadata
    if isinstance(value, BaseException) or value is _utils.SKIPPED:
        return repr(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _to_json(message: Any) -> dict[str, Any]:
    fields = message._asdict()
    for name in _MOMENTS:
        fields[name] = _to_text(fields[name])
    for name in _FOLLOWERS:
        fields[name] = fields[name] and _to_json(fields[name])
    if message.chord_config is not None:
        *facts, callback = message.chord_config
        fields["chord_config"] = [*facts, _to_json(callback)]
    return {name: value for name, value in fields.items() if value is not None}


def _to_message(fields: dict[str, Any]) -> Any:
    message = _registry.Message(**fields)
    changed: dict[str, Any] = {name: _to_moment(fields.get(name)) for name in _MOMENTS}
    for name in _FOLLOWERS:
        changed[name] = fields.get(name) and _to_message(fields[name])
    if message.chord_config is not None:
        *facts, callback = message.chord_config
        changed["chord_config"] = (*facts, _to_message(callback))
    return message._replace(args=tuple(message.args), **changed)


def _to_text(moment: Any) -> Any:
    if isinstance(moment, timedelta):
        return moment.total_seconds()
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _to_moment(text: Any) -> Any:
    return datetime.fromisoformat(text) if isinstance(text, str) else text


def _is_revocation(data: Any) -> bool:
    """Tell whether it is the pair that huey stores of a revoked task: until when, and if once."""
    return (
        type(data) is tuple
        and len(data) == 2
        and (data[0] is None or isinstance(data[0], datetime))
        and isinstance(data[1], bool)
    )
