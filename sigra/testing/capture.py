"""Keep what a test enqueues and audits, and ask about it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sigra import config
from sigra.backend import Backend, Capability
from sigra.backends.envelope import pack
from sigra.backends.sync import SyncBackend
from sigra.binding import ID_KEYS, TENANT_KEYS
from sigra.enqueue import Enqueuer
from sigra.errors import InvalidOptionError
from sigra.options import OPTION_NAMES, PLAIN, check_capabilities, parse_options
from sigra.scope import id_text
from sigra.testing.perform import definition_of

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent
    from sigra.job import Job
    from sigra.proxy import Worker

_SHOWN, _WIDEST = 20, 1_000
"""How many jobs a failed assertion shows (the last ones), and how many characters of each."""

_NOTHING: Any = object()
"""Only what equals everything, such as ``mock.ANY``, is equal to it."""


_NEVER_ANY = (
    str, int, float, Decimal, bytes, bytearray, date, time, timedelta, UUID, set, frozenset
)  # fmt: skip
"""Types of values that say which value they are: a matcher is of none of these."""


class RecordingBackend(SyncBackend):
    """The sync backend, with a list of every job that it took, in ``jobs``.

    A job with ``conn`` runs at the next ``drain()``: behind a queue it waits for the commit.
    An option that the job's queue, as configured by now, does not honour is refused, as the queue
    itself would.
    """

    capabilities = SyncBackend.capabilities | frozenset[Capability](("conn",))

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self._stands_for: config.Config | None = None
        now = config.current
        if isinstance(now.backend, RecordingBackend):  # a property's own, under the fixture's
            now = now.backend._stands_for or now
        if now.backend is None:  # as nobody configured one
            return
        queues = (now.backend, *now.backends.values())
        if not any(isinstance(each, RecordingBackend) for each in queues):
            self._stands_for = now
        if refused := set(OPTION_NAMES).difference(*map(_honoured, queues)):
            self.capabilities = self.capabilities - refused
            self.name = f"sync (for {now.backend.name})"  # as the refusal's text has it

    def clear(self) -> None:
        """Forget all jobs and the virtual time, for a backend that serves many tests."""
        self.jobs.clear()
        super().__init__()

    def _take(self, job: Job, pump: Any) -> Any:
        if self._stands_for is not None:
            queue = self._stands_for.choose(None, job.options.queue)
            external = "native" in queue.capabilities
            options = job.options if external else replace(job.options, conn=None)
            check_capabilities(options, queue, job.worker)
            if external:
                pack(job)  # or raise, for what no envelope carries
        self.jobs.append(job)
        return super()._take(job, pump)


def _honoured(backend: Backend) -> Collection[str]:
    """Return what a backend honours; one without a queue says nothing of ``conn``."""
    own = backend.capabilities
    return own if "native" in own else {*own, "conn"}


class AuditLog(list["AuditEvent"]):
    """The audit events of a test, in the order in which they came; a sink."""

    def write(self, event: AuditEvent, record: Any) -> None:  # noqa: ARG002 - the port has it
        """Keep the event."""
        self.append(event)

    def close(self) -> None:
        """Do nothing: a list has nothing to close."""

    def __repr__(self) -> str:
        """Return each event's action and outcome: a failed assertion has no room for more."""
        return f"<AuditLog: {', '.join([f'{e.action} ({e.outcome})' for e in self]) or 'no event'}>"

    @property
    def events(self) -> list[AuditEvent]:
        """Return the events as a list of their own."""
        return list(self)

    def of(self, action: str) -> list[AuditEvent]:
        """Return the events of one action."""
        return [event for event in self if event.action == action]


def assert_enqueued(
    worker: Worker[..., Any], args: Mapping[str, Any] | None = None, **options: Any
) -> Job:
    """Assert that a job of ``worker`` was enqueued in this test; return the last such job.

    ``args``: items that the job's args must have; it may have more. ``options``:
    options that the job must have, such as ``queue="mail"``.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    matching = _matching(worker, args, options)
    if matching:
        return matching[-1]
    raise AssertionError(
        f"no job of {worker.definition.name} with args {dict(args or {})!r} and options "
        f"{options!r} was enqueued{_elsewhere(worker, options)}; enqueued were:"
        f"{_lines_of(_recorded())}"
    )


def refute_enqueued(
    worker: Worker[..., Any], args: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Assert that no job of ``worker`` with such args and options was enqueued.

    Raises ``InvalidArgsError`` for an arg that none can have, and ``RuntimeError`` if such jobs may
    go to another backend: the test would say nothing.
    """
    __tracebackhide__ = True
    matching = _matching(worker, args, options)
    definition = worker.definition
    if matching:
        raise AssertionError(f"such jobs of {definition.name} were enqueued:{_lines_of(matching)}")
    if elsewhere := _elsewhere(worker, options):
        raise RuntimeError(f"no job of {definition.name} is recorded{elsewhere}")
    needed = (*definition.binding.required, *(TENANT_KEYS if definition.tenant else ()))
    Enqueuer(definition).validate({**dict.fromkeys(needed), **_as_json(dict(args or {}), _said)})


def _elsewhere(worker: Worker[..., Any], options: Mapping[str, Any]) -> str:
    """Say where a worker's jobs go, if that is not where they are recorded."""
    own, default, now = worker.definition.backend, worker.definition.defaults.queue, config.current
    asked = options.get("queue", ...)
    # Without it all of the worker's jobs are meant, and each call may have named another queue.
    queues = [asked or default] if isinstance(asked, str | None) else [default, *now.backends]
    for queue in queues:
        if (backend := now.choose(own, queue)) is not now.backend:
            what = "its decorator" if own is not None else f"configure(backends={{{queue!r}: ...}})"
            return f" here ({what} sends its jobs to the backend {backend.name!r})"
    return ""


def _matching(
    worker: Worker[..., Any], args: Mapping[str, Any] | None, options: dict[str, Any]
) -> list[Job]:
    definition = definition_of(worker)
    if args is not None and not isinstance(args, Mapping):
        raise TypeError(f"args must be a mapping of names to values, not {type(args).__qualname__}")
    for key in args or ():
        if not isinstance(key, str):
            raise TypeError(f"args must have names as keys; one key is {type(key).__qualname__}")
    # In the form that .new() gives them: a test may ask with an int id, a tuple or a timedelta.
    wanted = _as_json(dict(args or {}))
    if definition.tenant:
        ids = {key: id_text(wanted[key]) for key in wanted.keys() & ID_KEYS}
        wanted |= {key: text for key, text in ids.items() if text is not None}
    # None and mock.ANY are compared as they are: .new() takes neither.
    free = {name for name, value in options.items() if value is None or value == _NOTHING}
    said = {name: options[name] for name in options.keys() - (free & {*OPTION_NAMES})}
    try:
        parsed = parse_options(said, worker=definition.name)
    except InvalidOptionError as error:
        if error.option in options.keys() - {*OPTION_NAMES}:
            error.add_note(f"The job's own args are asked for by args={{{error.option!r}: ...}}.")
        raise
    options |= {name: getattr(parsed, name) for name in said}
    return [
        job
        for job in _recorded()
        if job.worker == definition.name  # not its definition: the module may have been reloaded
        and not job.duplicate
        and all(key in job.args and _equal(job.args[key], value) for key, value in wanted.items())
        and all(getattr(job.options, name) == value for name, value in options.items())
    ]


def _lines_of(jobs: Sequence[Job]) -> str:
    """Write a job a line: its worker, its args, its state, and what options it was given."""
    lines = [f"\n  ({len(jobs) - _SHOWN} before these)"] if len(jobs) > _SHOWN else []
    for job in jobs[-_SHOWN:]:
        given = {name: job.options[name] for name in OPTION_NAMES}
        # By identity: a conn may have an == of its own.
        options = [f"{n}={value!r}" for n, value in given.items() if value is not PLAIN[n]]
        text = ", ".join([f"{job.worker} {dict(job.args)!r}", job.state, *options])
        lines.append(f"\n  {text[:_WIDEST]}")
    return "".join(lines) or " none"


def _as_json(value: Any, scalar: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return tuples as lists, and what is no container as ``scalar`` has it."""
    if isinstance(value, dict):
        return {key: _as_json(item, scalar) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item, scalar) for item in value]
    return scalar(value)


def _said(value: Any) -> Any:
    """Return None for whatever may equal some JSON, such as ``mock.ANY``, and all else as it is."""
    same: Any = type(value).__eq__
    equals_itself_alone = same is object.__eq__
    return value if equals_itself_alone or isinstance(value, _NEVER_ANY) else None


def _equal(value: Any, wanted: Any) -> bool:
    """Compare as JSON does, where true is not 1."""
    if type(wanted) is dict and isinstance(value, dict):
        return value.keys() == wanted.keys() and all(
            _equal(value[key], item) for key, item in wanted.items()
        )
    if type(wanted) is list and isinstance(value, list):
        return len(value) == len(wanted) and all(map(_equal, value, wanted))
    kinds = {type(value), type(wanted)}
    return bool(value == wanted) and not (bool in kinds and kinds & {int, float})


def _recorded() -> list[Job]:
    backend = config.current.backend
    if not isinstance(backend, RecordingBackend):
        raise RuntimeError(
            "nothing was recorded: the test needs the fixture sigra_backend, or configure(backend="
            "sigra.testing.RecordingBackend()), and no other configure(backend=...) after it"
        )
    return backend.jobs
