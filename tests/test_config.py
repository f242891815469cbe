"""configure: what is named changes, and comes back."""

from __future__ import annotations

import os
from inspect import signature
from typing import Any

import pytest
from forked import run_beside_threads

from sigra import (
    AuditEvent,
    Cancel,
    InvalidArgsError,
    SyncBackend,
    UnknownBackendError,
    config,
    configure,
    worker,
)
from sigra.backends.signing import Signing
from sigra.testing import AuditLog


@pytest.fixture(autouse=True)
def restored() -> Any:
    """Put the process's settings back after each test."""
    before = config.current
    yield
    config.current = before


def settings() -> dict[str, Any]:
    return {name: getattr(config.current, name) for name in signature(configure).parameters}


def test_what_is_not_named_stays() -> None:
    """A second call changes only its own setting."""
    log = AuditLog()
    configure(sinks=[log])
    configure(max_args_bytes=1000)
    assert ((log,), 1000) == (config.current.sinks, config.current.max_args_bytes)


def test_a_call_without_settings_changes_nothing() -> None:
    """configure() alone is harmless."""
    before = settings()
    configure()
    assert before == settings()


def test_it_stays_in_force_outside_a_with() -> None:
    """A plain call configures the process from then on."""
    configure(max_args_bytes=1234)
    assert 1234 == config.current.max_args_bytes


def test_a_with_restores_what_was() -> None:
    """The same snapshot is in force after the block."""
    before = config.current
    with configure(max_args_bytes=1234):
        pass
    assert before is config.current


def test_a_with_restores_after_an_exception() -> None:
    """A raising block restores too."""
    before = config.current
    with pytest.raises(ZeroDivisionError), configure(max_args_bytes=1234):
        _ = 1 / 0
    assert before is config.current


def test_withs_nest() -> None:
    """Inner settings lie over outer ones and come off again."""
    with configure(max_args_bytes=10):
        with configure(max_args_bytes=20):
            inner = config.current.max_args_bytes
        assert (20, 10) == (inner, config.current.max_args_bytes)


def test_the_snapshot_is_immutable() -> None:
    """Nobody changes settings past configure()."""
    with pytest.raises(AttributeError):
        config.current.max_args_bytes = 1  # type: ignore[misc]


def test_none_is_a_setting() -> None:
    """audit_schema=None and on_audit_failure=None switch off what was set."""
    configure(audit_schema=AuditEvent, on_audit_failure=print)
    configure(audit_schema=None, on_audit_failure=None)
    assert (None, None) == (config.current.audit_schema, config.current.on_audit_failure)


def test_a_backend_may_be_named() -> None:
    """A name is resolved at once."""
    configure(backend="sync")
    assert isinstance(config.current.backend, SyncBackend)


@pytest.mark.parametrize("given", [{"backend": "kafka"}, {"backends": {"mail": "kafka"}}])
def test_an_unknown_backend_is_refused(given: Any) -> None:
    """A name that nothing provides raises here, not at the first job."""
    with pytest.raises(UnknownBackendError):
        configure(**given)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"backend": object()}, TypeError),
        ({"backends": ["sync"]}, TypeError),
        ({"backends": {5: "sync"}}, TypeError),
        ({"sinks": [object()]}, TypeError),
        ({"sinks": [AuditLog]}, TypeError),
        ({"sinks": AuditLog()}, TypeError),
        ({"sinks": None}, TypeError),
        ({"audit_schema": Cancel}, TypeError),
        ({"on_audit_failure": "print"}, TypeError),
        ({"signing": b"a key"}, TypeError),
        ({"signing": Signing}, TypeError),
        ({"max_args_bytes": "many"}, TypeError),
        ({"max_args_bytes": True}, TypeError),
        ({"max_args_bytes": 1}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_a_wrong_setting_is_refused(given: Any, kind: Any) -> None:
    """A wrong type, value or name raises, and the error names the setting."""
    (name,) = given
    with pytest.raises(kind, match=name.removesuffix("s")):
        configure(**given)


async def _tell(_: Any) -> None: ...


class _AsyncSink(AuditLog):
    async def write(self, event: Any, record: Any) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize("given", [{"sinks": [_AsyncSink()]}, {"on_audit_failure": _tell}])
def test_what_would_have_to_be_awaited_is_refused(given: Any) -> None:
    """Events and failures are handed over in a plain call: an async function would never run."""
    with pytest.raises(TypeError, match="plain"):
        configure(**given)


def test_a_refused_call_changes_nothing() -> None:
    """Good settings beside a bad one are not applied."""
    before = config.current
    with pytest.raises(TypeError):
        configure(max_args_bytes=1000, sinks=[object()])  # type: ignore[list-item]
    assert before is config.current


def test_the_caller_s_own_collections_are_copied() -> None:
    """A list or dict that changes later changes no setting."""
    sinks: list[Any] = [AuditLog()]
    backends: dict[str, Any] = {"mail": "sync"}
    configure(sinks=sinks, backends=backends)
    sinks.clear()
    backends.clear()
    assert (1, ["mail"]) == (len(config.current.sinks), list(config.current.backends))


def test_a_limit_takes_effect_in_new() -> None:
    """max_args_bytes is read at each enqueue."""
    wide = worker(name="config.wide")(lambda args: None)
    with configure(max_args_bytes=20), pytest.raises(ValueError, match="max_args_bytes is 20"):
        wide.new({"text": "x" * 20})


@pytest.mark.parametrize(("given", "most"), [({}, 256 * 1024), ({"max_args_bytes": 20}, 20)])
def test_args_may_be_as_long_as_the_limit(given: Any, most: int) -> None:
    """Not one byte more is taken; the limit is 256 KiB unless another is set."""
    wide = worker(name="config.exact")(lambda args: None)
    text = "x" * (most - len('{"text":""}'))
    with configure(**given):
        assert "completed" == wide.new({"text": text}).state
        with pytest.raises(InvalidArgsError):
            wide.new({"text": text + "x"})


def test_the_least_limit_leaves_room_for_no_args_alone() -> None:
    """An empty object takes two bytes."""
    with configure(max_args_bytes=2):
        assert "completed" == worker(name="config.least")(lambda args: None).new({}).state


FORKS = """
import threading
from sigra import configure, worker

def use():
    with configure(max_args_bytes=99):
        worker(name=f"forks.{threading.get_ident()}")(lambda: None)
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_wait_for_its_parents_threads() -> None:
    """A child that is forked while other threads configure or define workers can do so too."""
    run_beside_threads(FORKS, 50)
