"""What must hold where threads run at the same time, as they do in Python without the GIL."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from racing import at_once

from sigra import AuditEvent, AuditScope, frozen, log_safe, tenant_worker
from sigra import json as strict_json
from sigra.audit import emit
from sigra.errors import InvalidArgsError
from sigra.store.batch import Batch, Batching
from sigra.testing.strategies import json_args

SCOPE = AuditScope.build(actor_id="7", organization_id="42")


def test_no_two_events_of_a_body_have_one_id_wherever_its_threads_are_switched() -> None:
    """At each instruction by which an event is numbered, another thread may log the same event."""
    ids: list[str] = []

    def log() -> None:
        ids.append(log_safe("a.b", SCOPE).event.event_id)  # type: ignore[union-attr]

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is not emit._log.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            other = threading.Thread(target=copy_context().run, args=(log,))
            other.start()
            other.join()
        return trace

    @tenant_worker(name="tests.threads_of_a_body", audit_schema=AuditEvent)
    def body(scope: AuditScope) -> None:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            log()
        finally:
            sys.settrace(before)

    body.new({"organization_id": "42", "actor_id": "7"}).result()
    assert len(ids) > 8
    assert len(ids) == len(set(ids))


def test_a_batch_can_be_written_while_threads_add_to_it() -> None:
    """Each event is written once, in the order of its thread, and no flush fails."""
    written: list[tuple[int, int]] = []
    batch = Batch(Batching(size=500, seconds=3_600), written.extend, print, object)
    numbers = iter(range(4))

    def work() -> None:
        me = next(numbers)
        for number in range(1_000):
            batch.add((me, number))
            if number % 20 == 0:
                batch.flush()

    at_once(work)
    batch.close()
    for me in range(4):
        assert list(range(1_000)) == [number for who, number in written if who == me]


# These are what Python 3.14 and later do by themselves where there is no GIL; the versions before
# have no such options, and pass over them.
OPTIONS = ("-X", "thread_inherit_context=1", "-X", "context_aware_warnings=1")

HOLDS_NO_JOB = """
import contextvars, gc, sys, weakref
from sigra import AuditEvent, ThreadBackend, worker
from sigra.store import Batching, SqlAuditSink

batching = SqlAuditSink(f"sqlite:///{sys.argv[1]}/a.db", batch=Batching(seconds=3_600))
pool = ThreadBackend(1)

@worker(name="tests.nothing", backend=pool)
def nothing():
    pass

held = contextvars.ContextVar("held")

class Held:
    pass

def begins(start):
    held.set(one := Held())
    start()
    return weakref.ref(one)

starts = {
    "batch": lambda: batching.write(AuditEvent(action="a.b")),
    "pool": lambda: nothing.new({}).result(60),
    "alarm": lambda: nothing.new({}, delay=3_600),
}
for name, start in starts.items():
    one = contextvars.copy_context().run(begins, start)
    gc.collect()
    print(name, one() is None)
pool.close(0)
batching.close()
"""

WARNS_IN_EACH_BLOCK = """
import warnings
from sigra import AuditScope, log_safe

for _ in range(2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            log_safe("a.b", AuditScope.build(actor_id="7", organization_id="42"))
    print(len(caught))
"""


def run(program: str, *args: object) -> list[str]:
    """Run a program as Python without the GIL would run it, and return its lines."""
    command = [sys.executable, *OPTIONS, "-c", program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


@pytest.mark.programs
def test_no_thread_of_ours_keeps_the_job_in_which_it_began(tmp_path: Any) -> None:
    """Where threads inherit a context, those that outlive the job are started in none."""
    assert ["batch True", "pool True", "alarm True"] == run(HOLDS_NO_JOB, tmp_path)


@pytest.mark.programs
def test_a_block_that_catches_warnings_gets_its_own_where_each_context_has_filters() -> None:
    """A scope without a job warns once in each block, whoever keeps the filters."""
    assert ["1", "1"] == run(WARNS_IN_EACH_BLOCK)


@contextmanager
def without_gil() -> Iterator[None]:
    """Freeze args as without the GIL, where other ways would stop all threads for a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(frozen._WRAPPERS, dict, frozen._dict_of)
        patch.setattr(strict_json, "get_referents", strict_json._held_by)
        yield


def all_frozen(tree: Any) -> bool:
    """Tell whether every dict is of the one read-only kind, which no read turns into another."""
    if isinstance(tree, dict):
        return type(tree) is frozen.FrozenDict and all(map(all_frozen, dict.values(tree)))
    return not isinstance(tree, list) or all(map(all_frozen, list.__iter__(tree)))


@given(args=json_args())
@without_gil()
def test_args_are_read_only_from_the_start(args: dict[str, Any]) -> None:
    """They are what a JSON round trip gives, and frozen at all levels before anybody reads them."""
    got = strict_json.freeze(args, 1 << 20)
    assert all_frozen(got)
    assert json.loads(json.dumps(args)) == got


@pytest.mark.parametrize(
    "wrap", [lambda x: {"a": x}, lambda x: [x], lambda x: (x,), lambda x: [x, x]]
)
@without_gil()
def test_depth_is_bounded_whoever_looks_into_containers(wrap: Callable[[Any], Any]) -> None:
    """64 levels pass, one more does not, and neither does a cycle; what doubles is too large."""
    tree: Any = None
    limit = 1 << 17
    doubles = wrap(0) == [0, 0]
    for _ in range(8 if doubles else 63):
        tree = wrap(tree)
    strict_json.freeze({"a": tree}, limit)
    for _ in range(56):
        tree = wrap(tree)
    cycle: dict[str, Any] = {"a": None}
    cycle["a"] = wrap(cycle)
    reason = f"over {limit} bytes" if doubles else "deeper than 64 levels"
    for deep in ({"a": tree}, cycle):
        with pytest.raises(InvalidArgsError, match=reason):
            strict_json.freeze(deep, limit)
