"""Pairs about audit events: log_safe inside a job, and structlog called by hand."""

from __future__ import annotations

import itertools
import logging
import os
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import structlog

import sigra
from benchmarks import byhand
from benchmarks.jobs import make_worker
from benchmarks.measure import Pair, Timed, clock

JOB_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
METADATA = {"amount": 1299.5, "currency": "EUR", "lines": 3}
Chain = dict[str, Any]


def page_chain(level: int = logging.INFO) -> Chain:
    """Return structlog's settings as its page on performance gives them."""
    import orjson

    return {
        "processors": [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="occurred_at"),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        **_bytes(level),
    }


def shipped_chain(level: int = logging.INFO) -> Chain:
    """Return settings with the one processor that Sigra ships."""
    from sigra.audit.line import JSONRenderer

    return {"processors": [JSONRenderer()], **_bytes(level)}


def users_chain() -> Chain:
    """Return the settings of structlog's own defaults, made for production."""
    return {
        "processors": [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        "wrapper_class": structlog.make_filtering_bound_logger(logging.INFO),
        "logger_factory": structlog.WriteLoggerFactory(null("w")),
        "cache_logger_on_first_use": True,
    }


def rendered() -> Pair:
    """Compare log_safe through the shipped processor with structlog as its page says."""
    # TimeStamper makes the moment on the other side: by hand it is not made twice.
    return Pair(audited(shipped_chain()), _by_hand(page_chain(), moment=False), reset)


def through_chain() -> Pair:
    """Compare log_safe through the user's chain with that chain called directly."""
    return Pair(audited(users_chain()), _by_hand(users_chain(), moment=True), reset)


def filtered() -> Pair:
    """Compare an event below the level with one that is written."""
    quiet = audited(shipped_chain(logging.WARNING), status="disabled")
    return Pair(quiet, audited(shipped_chain()), reset)


def raising_sink(written: bool) -> Pair:
    """Compare a sink that raises with one that writes its line.

    ``written``: the host's handler writes what ``sigra.audit`` says of the failure; else
    it drops it, as a handler for another level would.
    """
    from sigra.store.lines import JSONLinesSink

    logger = logging.getLogger("sigra.audit")
    handler = logging.StreamHandler(null("w")) if written else logging.NullHandler()
    logger.addHandler(handler)
    logger.propagate = False
    working = JSONLinesSink(null("wb"))

    def close() -> None:
        logger.removeHandler(handler)
        logger.propagate = True
        reset()

    bad = audited(shipped_chain(), sinks=[RaisingSink()], status="failed")
    return Pair(bad, audited(shipped_chain(), sinks=[working]), close)


def largest() -> Pair:
    """Compare an event whose metadata has a million keys with 50 milliseconds."""
    metadata = dict.fromkeys(map(str, range(1_000_000)), 1)
    return Pair(audited(shipped_chain(), metadata=metadata), lambda loops: loops * 0.05, reset)


class RaisingSink:
    """A sink whose store is gone."""

    def write(self, event: Any, record: Any) -> None:
        raise ConnectionError("the store is gone")

    def close(self) -> None:
        """Nothing is held."""


def _bytes(level: int) -> Chain:
    return {
        "wrapper_class": structlog.make_filtering_bound_logger(level),
        "logger_factory": structlog.BytesLoggerFactory(null("wb")),
        "cache_logger_on_first_use": True,
    }


def null(mode: str) -> Any:
    """Open what takes all and keeps nothing; it lives as long as the process."""
    return open(os.devnull, mode)


def reset() -> None:
    """Put structlog's settings back."""
    structlog.reset_defaults()


def audited(
    chain: Chain, sinks: Any = (), status: str = "emitted", metadata: Any = METADATA
) -> Timed:
    """Time log_safe in a job's body, under these settings of structlog."""

    def log(scope: Any) -> Any:
        return sigra.log_safe(
            "invoice.close",
            scope,
            target_id="inv_1042",
            target_type="invoice",
            metadata=metadata,
        )

    in_job = _in_job(log, status)

    def timed(loops: int) -> float:
        structlog.configure(**chain)
        with sigra.configure(sinks=sinks):
            return in_job(loops)

    return timed


def _by_hand(chain: Chain, *, moment: bool) -> Timed:
    """Time the same line, logged by hand by a logger with these settings."""
    settings = {key: value for key, value in chain.items() if key != "logger_factory"}
    logger: Any = structlog.wrap_logger(chain["logger_factory"](), **settings)
    logger.info("warm-up")
    return written_by(logger.info, moment=moment)


def written_by(info: Callable[..., object], *, moment: bool = True) -> Timed:
    """Time an event's fields given to a logger by hand; ``moment``: with the time made here."""
    utc = timezone.utc

    def log(scope: Any) -> None:
        fields = {"occurred_at": datetime.now(utc).isoformat()} if moment else {}
        user, organization = scope.user.id, scope.active_organization.id
        info(
            "invoice.close",
            outcome="success",
            event_id=str(uuid.uuid4()),
            organization_id=organization,
            actor_id=user,
            effective_user_id=user,
            actor_type="user",
            target_id="inv_1042",
            target_type="invoice",
            ip_address=None,
            user_agent=None,
            metadata=METADATA,
            worker="invoices.close",
            job_id=JOB_ID,
            attempt=1,
            **fields,
        )

    return _in_job(log)


def _in_job(log: Callable[[Any], Any], status: str | None = None) -> Timed:
    """Time calls inside the body of one running job."""
    seconds: list[float] = []

    def body(scope: Any, args: Any) -> None:
        result = log(scope)
        if status is not None and result.status != status:
            raise RuntimeError(f"the event is {result.status} ({result.reason}), not {status}")
        turns = itertools.repeat(None, args["loops"])
        start = clock()
        for _ in turns:
            log(scope)
        seconds.append(clock() - start)

    worker = make_worker(body, backend=sigra.SyncBackend(), audit_schema=sigra.AuditEvent)

    def timed(loops: int) -> float:
        ids = {key: byhand.FLAT[key] for key in ("organization_id", "actor_id")}
        worker.new({**ids, "loops": loops}).result()
        return seconds.pop()

    return timed
