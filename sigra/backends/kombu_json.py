"""Carry an envelope through kombu's JSON without loss, and through no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sigra.backends.envelope import MARK
from sigra.json import dumps, loads

_PICKLE = {"pickle", "application/x-python-serialize"}


def refuse_pickle(conf: Any) -> None:
    """Raise ``ValueError``, which names the cure, if a Celery app pickles or takes no JSON."""
    accepted = set(conf.accept_content or ())
    results = {conf.result_serializer, *(conf.result_accept_content or ())}
    if (accepted | results | {conf.task_serializer}) & _PICKLE:
        raise ValueError(
            "this Celery app uses pickle (whoever can write to the broker runs any code in its "
            "consumers): set task_serializer='json' and accept_content=['json'], for results too"
        )
    if not accepted & {"json", "application/json"}:
        raise ValueError("this Celery app does not accept JSON: add 'json' to accept_content")


def fit(payload: dict[str, Any]) -> dict[str, Any]:
    """Write a payload as one text if ``__type__`` is in it, a key that kombu takes for its own."""
    return {MARK: dumps(payload).decode()} if "__type__" in str(payload) else payload


def unfit(payload: dict[str, Any]) -> Mapping[str, Any]:
    """Undo ``fit``, whatever a task class has added; leave what is no JSON to ``unpack``."""
    text, whole = payload.get(MARK), None
    if isinstance(text, str):
        with suppress(ValueError, RecursionError):
            whole = loads(text)
    return whole if isinstance(whole, dict) else payload
