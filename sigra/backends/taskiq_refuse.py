"""Refuse parts of taskiq that pickle, as those of Redis do by default, or that take no schedule.

And workers whose parameters taskiq would have to fill.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import Parameter, signature
from typing import Any

from sigra.backends.external import native
from sigra.backends.producing import SAMPLE, require_json
from sigra.definition import Definition

_Dependency = native("taskiq_dependencies.dependency", "taskiq").Dependency
_graph = native("taskiq_dependencies.graph", "taskiq")
_taskiq = native("taskiq", "taskiq")
_nothing_added = _taskiq.ScheduleSource.add_schedule


def refuse_pickle(part: Any) -> None:
    """Raise ``ValueError``, which names the cure, for a broker or a store that pickles."""
    if hasattr(part, "formatter"):
        _refuse_formatter(part)
    serializer = getattr(part, "_serializer", None) or getattr(part, "serializer", None)
    if serializer is None:
        return
    kind = type(part).__name__
    cure = f"make it {kind}(..., serializer=JSONSerializer())"
    if hasattr(part, "with_serializer"):
        cure = "set broker.with_serializer(JSONSerializer())"
    require_json(serializer.dumpb(SAMPLE), f"this {kind}", cure)


def _refuse_formatter(broker: Any) -> None:
    """Look at what a formatter of the application's own writes, whatever the serializer does."""
    own = broker.formatter
    if type(own).__module__.startswith("taskiq."):  # writes by the serializer, or JSON
        return
    message = _taskiq.TaskiqMessage(task_id="", task_name="", labels={}, args=[], kwargs=SAMPLE)
    cure = "leave broker.with_formatter(...) out, or have it write JSON"
    require_json(own.dumps(message).message, f"this broker's {type(own).__name__}", cure)


def refuse_unwritable(schedules: Any) -> None:
    """Raise ``ValueError``, which names the cure, unless retries and delays can be added to it."""
    add = getattr(schedules, "add_schedule", None)
    if schedules is None or getattr(add, "__func__", add) not in (None, _nothing_added):
        return
    raise ValueError(
        f"this {type(schedules).__name__} takes no schedules, so no job would be retried: pass a "
        "source that does, such as ListRedisScheduleSource(..., serializer=JSONSerializer()), "
        "and give it to the TaskiqScheduler too"
    )


def refuse_dependencies(definition: Definition) -> None:
    """Raise ``ValueError`` for a worker that has a ``TaskiqDepends(...)``, by default or annotated.

    Or FastAPI's ``Depends(...)``, which taskiq resolves too where FastAPI is installed.
    """
    fastapi_s = getattr(_graph, "FastapiDepends", None) or _Dependency
    for parameter in _parameters(definition.function):
        for each in (parameter.default, *getattr(parameter.annotation, "__metadata__", ())):
            if isinstance(each, (_Dependency, fastapi_s)):
                kind = "TaskiqDepends" if isinstance(each, _Dependency) else "Depends"
                raise ValueError(
                    f"parameter {parameter.name!r} of worker {definition.name!r} is {kind}(...), "
                    "but a worker's parameters come from its job's args alone: leave it out, and "
                    "make in the body what it stood for"
                )


def _parameters(function: Any) -> Iterable[Parameter]:
    try:
        found = signature(function, eval_str=True)
    except Exception:  # it has names that only a type checker imports, and taskiq leaves it too
        found = signature(function)
    return found.parameters.values()
