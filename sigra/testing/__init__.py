"""Tools for tests of workers and of backends; a pytest plugin brings the fixtures.

Fixtures: ``sigra_backend`` and ``audit_log``. The strategies need Hypothesis, and
the contracts need pytest; nothing here is imported by the rest of the library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.errors import MissingExtraError

if TYPE_CHECKING:
    from sigra.testing.capture import (
        AuditLog,
        RecordingBackend,
        assert_enqueued,
        refute_enqueued,
    )
    from sigra.testing.contract import BackendContract
    from sigra.testing.contract_consumers import ConsumerContract
    from sigra.testing.perform import aperform_job, perform_job
    from sigra.testing.strategies import hostile_values, json_args, tenant_args_strategy

_HOMES = {
    "AuditLog": "capture",
    "BackendContract": "contract",
    "ConsumerContract": "contract_consumers",
    "RecordingBackend": "capture",
    "aperform_job": "perform",
    "assert_enqueued": "capture",
    "hostile_values": "strategies",
    "json_args": "strategies",
    "perform_job": "perform",
    "refute_enqueued": "capture",
    "tenant_args_strategy": "strategies",
}

__all__ = [
    "AuditLog",
    "BackendContract",
    "ConsumerContract",
    "RecordingBackend",
    "aperform_job",
    "assert_enqueued",
    "hostile_values",
    "json_args",
    "perform_job",
    "refute_enqueued",
    "tenant_args_strategy",
]


if not TYPE_CHECKING:  # where any name would pass

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'sigra.testing' has no attribute {name!r}")
        try:
            value = getattr(import_module(f"sigra.testing.{_HOMES[name]}"), name)
        except ModuleNotFoundError as error:
            raise MissingExtraError("testing", error.name or name) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def pytest_addhooks(pluginmanager: Any) -> None:
    """Load the plugin if this module is named as one, and pytest has not found it by itself."""
    plugin = import_module("sigra.testing.plugin")
    if not pluginmanager.is_registered(plugin):
        pluginmanager.register(plugin, "sigra")
