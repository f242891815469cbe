"""Which audit schema is in force for a call."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sigra import config
from sigra.audit.read import ABSENT

if TYPE_CHECKING:
    from sigra.context import Running


def schema_in_force(passed: Any, job: Running | None) -> Any:
    """Return the schema that was passed, or the running job's, or the configured one."""
    if passed is not ABSENT:
        return passed
    schema = None if job is None else job.job.definition.schema
    return config.current.audit_schema if schema is None else schema


def warn_of_no_job() -> None:
    """Warn, at the line that called ``log_safe``, that it had a scope but no job."""
    with suppress(Exception):  # a warning that is an error must not become log_safe's
        warnings.warn(
            "log_safe() was given a worker's scope where no job runs, so it knows no "
            "audit_schema and logs nothing: a plain call of a worker, and a thread that its "
            "body started, have no job. Pass audit_schema=, or configure() one.",
            RuntimeWarning,
            stacklevel=4,
        )
