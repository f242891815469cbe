"""Every exception that Sigra raises: its facts as attributes, its text the cure."""

from __future__ import annotations

from typing import Any


def brief(value: object) -> str:
    """Show a str on one line, cut to 200 characters; None as None; of any other value, its type."""
    if type(value) is not str:
        return "None" if value is None else f"<{type(value).__qualname__}>"
    return value[:200] if value.isprintable() else repr(value[:200])[1:-1]


class SigraError(Exception):
    """The root of all errors of this library.

    Every subclass carries what went wrong as attributes, and survives pickling.
    """

    index: int | None = None
    """The position of the bad item where a batch was refused, else None."""

    def at(self, index: int) -> SigraError:
        """Return this same error, now naming the item of a batch that it is about."""
        self.index = index
        self.args = (f"item {index}: {self}", *self.args[1:])
        return self

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by __init__, which takes the facts and not the text; of an OSError it makes the args.
        return type(self).__new__, (type(self),), {**self.__dict__, "args": self.args}


class DuplicateWorkerError(SigraError, ValueError):
    """Refuse a second function under a worker name that is taken.

    Attributes: ``name`` (the worker's name), ``first`` and ``second`` (where the
    two functions are defined, as ``file:line``).
    """

    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(
            f"two functions have the worker name {name!r}: {first}, and now {second}. Give one "
            "another with name=..., or, if one function defines both, define the worker outside it"
        )
        self.name, self.first, self.second = name, first, second


class MissingTenantKeysError(SigraError, ValueError):
    """Refuse args in which a tenant key is absent (None would be fine).

    Attributes: ``worker`` (name), ``missing`` (tuple of keys, in the order
    ``organization_id``, ``actor_id``).
    """

    def __init__(self, worker: str, missing: tuple[str, ...]) -> None:
        keys = " and ".join(repr(key) for key in missing)
        super().__init__(
            f"args for worker {worker!r} lack {keys}. Pass each key, with None where there is no "
            "such id (a system or pre-login job); sigra.tenant_args(scope) gives them all."
        )
        self.worker, self.missing = worker, missing


class InvalidArgsError(SigraError, ValueError):
    """Refuse args that are not strict JSON or that the function cannot take.

    Attributes: ``path`` (where, as ``$.lines[3].price``), ``reason``, ``worker``
    (name, or None). The text never holds a value.
    """

    def __init__(self, path: str, reason: str, worker: str | None = None) -> None:
        of = f" for worker {worker!r}" if worker is not None else ""
        super().__init__(f"invalid args{of} at {path}: {reason}")
        self.path, self.reason, self.worker = path, reason, worker


class InvalidOptionError(SigraError, ValueError):
    """Refuse an option that is unknown, ill-typed or beyond the chosen backend.

    Attributes: ``option`` (its name), ``reason``, ``worker`` (name, or None).
    """

    def __init__(self, option: str, reason: str, worker: str | None = None) -> None:
        of = f" of worker {worker!r}" if worker is not None else ""
        super().__init__(f"option {option!r}{of}: {reason}")
        self.option, self.reason, self.worker = option, reason, worker


class CrossTenantError(SigraError):
    """Refuse a job for another organization than the running job's own.

    Attributes: ``worker`` (the one to be enqueued), ``running_worker``,
    ``running_organization_id``, ``organization_id`` (the one asked for, or None).
    """

    def __init__(self, worker: str, running: str, home: str, organization_id: str | None) -> None:
        to = f"organization '{brief(organization_id)}'" if organization_id else "no organization"
        super().__init__(
            f"a job of {running!r} for organization '{brief(home)}' enqueues {worker!r} for {to}. "
            "Pass **tenant_args(scope) to stay in it, or cross_tenant=True to .new() to cross over."
        )
        self.worker, self.organization_id = worker, organization_id
        self.running_worker, self.running_organization_id = running, home


class EnqueueError(SigraError):
    """Report that a backend did not take a job; nothing was recorded as sent.

    Attributes: ``backend`` (name), ``reason``, ``unsure`` (ids of the jobs that may have been
    sent all the same, because the answer is missing). ``__cause__`` is the native error where
    there is one.
    """

    def __init__(self, backend: str, reason: str, unsure: tuple[str, ...] = ()) -> None:
        did = "did not confirm" if unsure else "did not take"
        super().__init__(f"backend {backend!r} {did} the job: {reason}")
        self.backend, self.reason, self.unsure = backend, reason, unsure


class JobFailedError(SigraError):
    """Report that a job ended with ``Failure``. Attributes: ``job_id``, ``worker``, ``reason``."""

    def __init__(self, job_id: str, worker: str, reason: object) -> None:
        what = f"job {brief(job_id)} of worker {worker!r} returned Failure: {brief(reason)}"
        super().__init__(what)
        self.job_id, self.worker, self.reason = job_id, worker, reason


class JobCancelledError(SigraError):
    """Report that a job ended with ``Cancel``. Attributes: ``job_id``, ``worker``, ``reason``."""

    def __init__(self, job_id: str, worker: str, reason: object) -> None:
        super().__init__(f"job {brief(job_id)} of worker {worker!r} was cancelled: {brief(reason)}")
        self.job_id, self.worker, self.reason = job_id, worker, reason


class PoisonedJobError(SigraError):
    """Report that a job has no attempt left, because its consumer died each time.

    Attributes: ``job_id``, ``worker``, ``deliveries`` (how many never came to an end).
    """

    def __init__(self, job_id: str, worker: str, deliveries: int) -> None:
        super().__init__(
            f"job {brief(job_id)} of worker {worker!r} never finished (deliveries: {deliveries}) "
            "and has no attempt left: its process died each time, because of the job, a time limit "
            "or the host. Look at the consumer's log, then enqueue it again with .new()."
        )
        self.job_id, self.worker, self.deliveries = job_id, worker, deliveries


class UnsupportedError(SigraError, NotImplementedError):
    """Refuse a question that the backend cannot answer. Attributes: ``backend``, ``feature``."""

    def __init__(self, backend: str, feature: str) -> None:
        super().__init__(
            f"backend {backend!r} cannot tell {feature}: ask the queue's own tools, "
            "or use a backend that has the capability 'result'"
        )
        self.backend, self.feature = backend, feature


class MissingArgError(SigraError, KeyError):
    """End a job for good because its args lack a key that it needs.

    Attributes: ``key``, ``worker`` (name, or None).
    """

    def __init__(self, key: str, worker: str | None = None) -> None:
        of = f" of worker {worker!r}" if worker is not None else ""
        super().__init__(
            f"the job{of} has no arg {key!r}. A retry could not supply it, so the job ends here: "
            "enqueue it again with .new() and that key."
        )
        self.key, self.worker = key, worker


class EnvelopeError(SigraError, ValueError):
    """Refuse an unreadable payload. Attributes: ``reason``, ``version`` (found, or None)."""

    def __init__(self, reason: str, version: int | None = None) -> None:
        super().__init__(f"unreadable job envelope: {reason}")
        self.reason, self.version = reason, version


class UnknownWorkerError(SigraError, LookupError):
    """Report that a consumer has not imported the worker of a job. Attribute: ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no worker is named '{brief(name)}' in this process: import the module that defines "
            "it in the consumer, or set name= to the name that producers use"
        )
        self.name = name


class AuditOnlyScopeError(SigraError):
    """Refuse the use of a worker's scope for anything but auditing.

    Attributes: ``attribute`` (what was read, or the function that was given the scope).
    """

    def __init__(self, attribute: str, reason: str | None = None) -> None:
        what = reason or f"a worker's scope has no {attribute!r}"
        super().__init__(
            f"{what}: it has only ids (user, active_organization, impersonating_from), for audits, "
            "and no authority. Authorize before .new(), or load the host's own scope in the job."
        )
        self.attribute = attribute


class AuditRejectedError(SigraError, ValueError):
    """Refuse an audit event that is not well formed. Attributes: ``field``, ``reason``."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"audit event rejected at {field!r}: {reason}")
        self.field, self.reason = field, reason


class UnknownBackendError(SigraError, LookupError):
    """Refuse a backend name that nothing provides. Attributes: ``name``, ``known`` (tuple)."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"no backend is named {name!r}; known are {', '.join(known)}. A package adds one "
            "through the entry-point group 'sigra.backends'."
        )
        self.name, self.known = name, known


class MissingExtraError(SigraError, ImportError):
    """Name the extra that brings a missing package. Attributes: ``extra``, ``package``."""

    def __init__(self, extra: str, package: str) -> None:
        since = " on Python 3.12 or newer" if extra in ("django", "oban") else ""
        super().__init__(f"{package!r} is not installed; run pip install 'sigra[{extra}]'{since}")
        self.extra, self.package = extra, package
