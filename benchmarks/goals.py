"""The table of goals: what is measured, against what, and how much it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks import byhand, jobs, logs, scale, sealing, startup, store
from benchmarks.measure import Effort, Measured, paired


@dataclass(frozen=True, slots=True)
class Goal:
    """One row: measured is ``work`` divided by ``floor``, and at most ``limit`` (None: shown)."""

    number: str
    work: str
    floor: str
    limit: float | None
    measure: Callable[[Effort], Measured]
    codec: Literal["compiled", "stdlib"] = "compiled"
    unit: Literal["s", "B"] = "s"


_flat = paired(lambda: jobs.inline(byhand.FLAT, byhand.compiled()))
_nested = paired(lambda: jobs.inline(byhand.NESTED, byhand.compiled()))
_strict = paired(lambda: jobs.inline(byhand.NESTED, byhand.compiled(strict=True)))
_flat_stdlib = paired(lambda: jobs.inline(byhand.FLAT, byhand.stdlib()))
_nested_stdlib = paired(lambda: jobs.inline(byhand.NESTED, byhand.stdlib()))
_import = paired(lambda: startup.imports("import sigra"))
_import_used = paired(lambda: startup.imports("from sigra import tenant_worker, log_safe"))
_sink = paired(lambda: logs.raising_sink(written=False))
_sink_written = paired(lambda: logs.raising_sink(written=True))
_pool_16 = paired(lambda: jobs.thread_sizes(16))
_pool_64 = paired(lambda: jobs.thread_sizes(64))
_raw_64 = paired(lambda: jobs.raw_sizes(64))
_job, _many = paired(jobs.thread_job), paired(jobs.thread_batch)
_producers = paired(jobs.thread_producers)

GOALS: tuple[Goal, ...] = (
    Goal("1", "sync .new(), ten scalars", "H_c", 0.9, _flat),
    Goal("1b", "sync .new(), 3 KB nested", "H_c, as strict", 1.2, _strict),
    Goal("1b+", "sync .new(), 3 KB nested", "H_c that takes NaN", None, _nested),
    Goal("2", "sync .new(), ten scalars", "H_s", 1.0, _flat_stdlib, "stdlib"),
    Goal("2b", "sync .new(), 3 KB nested", "H_s", 1.1, _nested_stdlib, "stdlib"),
    Goal("5", "calling the worker", "forwarding FunctionWrapper", 0.4, paired(jobs.direct_call)),
    Goal("6", "binding the job's context", "bound_contextvars", 0.15, paired(jobs.binding)),
    Goal("7", "thread backend, one job", "raw submit", 1.8, _job),
    Goal("7s", "the same, stdlib json", "raw submit", 3.0, _job, "stdlib"),
    Goal("7p", "the same, four enqueue", "raw submit, four too", 1.8, _producers),
    Goal("8", ".new_many on threads, a job", "raw submit", 0.6, _many),
    Goal("10", "log_safe, shipped renderer", "structlog, as its page", 0.95, paired(logs.rendered)),
    Goal("10m", "log_safe, 10^6 keys", "50 ms", 1.0, paired(logs.largest)),
    Goal("11", "log_safe, user's chain", "that chain", 1.3, paired(logs.through_chain)),
    Goal("13", "log_safe below the level", "log_safe emitted", 0.15, paired(logs.filtered)),
    Goal("13b", "log_safe, raising sink", "log_safe, writing sink", 1.0, _sink),
    Goal("13b+", "the same, failure logged", "log_safe, writing sink", None, _sink_written),
    Goal("14", "log_safe to the SQLite store", "log_safe to a table", 1.25, paired(store.chained)),
    Goal("14c", "the same", "the sink, without a chain", 1.25, paired(store.chained_alike)),
    Goal("14s", "sign and verify an envelope", "itsdangerous", 0.4, paired(sealing.sealed)),
    Goal("15", "SQLite store, one event", "one bare row", 1.3, paired(store.immediate)),
    Goal("15+", "the same", "one row, indexed alike", None, paired(store.immediate_indexed)),
    Goal("15b", "SQLite store, a batch", "a bare batch", 2.0, paired(store.batched)),
    Goal("15v", "verifying one row", "10 us", 1.0, paired(store.verifying)),
    Goal("15p", "a page, of 2 x 10^5 rows", "of 10^4 rows", 1.0, paired(store.page)),
    Goal("17", "import sigra", "import structlog, wrapt", 1.1, _import),
    Goal("17+", "import and use its names", "import structlog, wrapt", None, _import_used),
    Goal("s1", "a job after 10^6", "a job after 10^3", 1.0, scale.cost_of_jobs),
    Goal("s2", "a job, 10^3 organizations", "1 organization", 1.0, scale.thousand_organizations),
    Goal("s3", "a job, 10^5 organizations", "1 organization", 1.0, scale.organizations),
    Goal("s4", "a job, 16 threads", "1 thread", 1.0, _pool_16),
    Goal("s5", "a job, 64 threads", "1 thread", 1.0, _pool_64),
    Goal("s5+", "raw submit, 64 threads", "1 thread", None, _raw_64),
    Goal("s6", "RSS after 10^6 jobs", "after 10^3", 1.0, scale.resident, unit="B"),
    Goal("s7", "peak while 10^5 jobs run", "while 10^3 run", 1.0, scale.traced, unit="B"),
    Goal("s8", "a kept job, of 10^5", "of 10^3", 1.0, scale.kept, unit="B"),
)
