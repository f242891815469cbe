"""Tell the story of ``sigra demo``: run its jobs, then show what can be known of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sigra.audit.event import AuditEvent
from sigra.backends.thread import ThreadBackend
from sigra.cli import story
from sigra.cli.failures import FailureLog
from sigra.cli.output import muted_structlog
from sigra.cli.show import Bar, PlainConsole, counted, listing, printable, stderr_console, stdout
from sigra.config import configure
from sigra.errors import AuditOnlyScopeError, MissingTenantKeysError
from sigra.job import FINISHED, Job
from sigra.testing import AuditLog

_WIDEST = 96
_GRACE = 0.5
_HOME = "books"
"""The organization whose audit lines are shown: the small one."""


def tell() -> None:
    """Run the story and print it to standard output, with a bar on stderr meanwhile."""
    console = PlainConsole(file=stdout())
    console.width = min(console.width, _WIDEST)
    steps = list(story.steps())
    _say(
        console,
        f"Three organizations hand {len(steps):,} jobs to eight threads. Every job says for "
        "which organization and on whose behalf it runs.",
    )
    trail, log = AuditLog(), FailureLog(lambda _: None)
    backend = ThreadBackend(max_workers=8)
    with configure(backend=backend, sinks=[trail]), muted_structlog(), log.attached():
        jobs, seconds = _run(steps, backend)
        refusal = _refused_args()
        backend.close()
    _show_outcomes(console, jobs, trail, seconds)
    _show_trail(console, trail)
    _show_failures(console, log)
    _show_refusals(console, refusal, jobs)


def _run(steps: list[story.Step], backend: ThreadBackend) -> tuple[list[Job], float]:
    began = time.monotonic()
    try:
        return _finished(steps), time.monotonic() - began
    except KeyboardInterrupt:
        # Here, where nothing is logged: the interpreter's exit would name each job.
        left = backend.close(_GRACE)
        for job in left:
            with suppress(Exception):
                job.result()  # what has begun ends here too, and what has not is over
        stderr_console().print(f"Stopped; {counted(len(left), 'job')} had not finished.")
        raise


def _finished(steps: list[story.Step]) -> list[Job]:
    with Bar(stderr_console(), len(steps), "jobs") as bar:
        jobs = [worker.new(args) for worker, args in steps]
        done = 0
        while done < len(jobs):
            time.sleep(0.02)
            done = sum(job.state in FINISHED for job in jobs)
            bar.move(done, done)
    return jobs


def _refused_args() -> MissingTenantKeysError:
    try:
        story.issue_invoice.new({"organization_id": _HOME, "invoice": 11})
    except MissingTenantKeysError as error:
        return error
    raise AssertionError("args without an actor_id were accepted")


def _show_outcomes(
    console: Console, jobs: list[Job], events: list[AuditEvent], seconds: float
) -> None:
    _head(console, "What became of the jobs")
    rows = []
    for organization, name in story.ORGANIZATIONS.items():
        own = [job for job in jobs if job.args["organization_id"] == organization]
        audited = sum(event.organization_id == organization for event in events)
        rows.append([name, *_numbers(own), f"{audited:,}"])
    rows.append(["all", *_numbers(jobs), f"{len(events):,}"])
    columns = ["", "jobs", "compl.", "disc.", "canc.", "retries", "snoozes", "events"]
    table = listing(columns, rows)
    _to_the_right(table)
    table.rows[-2].end_section = True
    console.print(table)
    _say(
        console,
        f"It took {seconds:.1f} seconds, of which one is the snooze: a busy mail server puts a "
        "receipt off without using up an attempt. A failed charge is tried once more, and what "
        "fails again is discarded; the ledgers of an unfinished month cancel themselves.",
    )


def _numbers(jobs: list[Job]) -> list[str]:
    states = Counter(job.state for job in jobs)
    retries = sum(getattr(job.ticket, "failures", 0) for job in jobs)
    snoozes = sum(getattr(job.ticket, "snoozes", 0) for job in jobs)
    counts = (states["completed"], states["discarded"], states["cancelled"], retries, snoozes)
    return [f"{number:,}" for number in (len(jobs), *counts)]


def _to_the_right(table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"


def _show_trail(console: Console, events: list[AuditEvent]) -> None:
    _head(console, f"The audit lines of {story.ORGANIZATIONS[_HOME]}")
    own = [event for event in events if event.organization_id == _HOME]
    own.sort(key=lambda event: event.occurred_at)
    rows = [
        [_who(event), event.action, event.target_id or "", event.outcome, _when(event)]
        for event in own
    ]
    console.print(listing(["who", "what", "no.", "outcome", "when (UTC)"], rows))
    redacted = next(event for event in own if event.action == "receipt.send")
    _say(
        console,
        "Each line names who did it: a person, support acting as a customer, or the system "
        "where there is nobody. Lines of other organizations cannot get in. The metadata of "
        f"a receipt reads {json.dumps(redacted.metadata)}: secrets are taken out by the names of "
        "their keys.",
    )


def _who(event: AuditEvent) -> str:
    if event.actor_id is None:
        return "the system"
    name = story.NAMES[event.actor_id]
    if event.actor_id == event.effective_user_id or event.effective_user_id is None:
        return name
    return f"{name}, as {story.NAMES[event.effective_user_id]}"


def _when(event: AuditEvent) -> str:
    return f"{event.occurred_at:%H:%M:%S.%f}"[:-3]


def _show_failures(console: Console, log: FailureLog) -> None:
    _head(console, "What the log says")
    kinds = sorted(log.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    console.print(listing(["times", "what"], [[f"{count:,}", kind] for kind, count in kinds]))
    _say(
        console,
        "Every failed attempt is logged with its traceback and the ids of its job, and none "
        "of them ends a thread.",
    )


def _show_refusals(console: Console, refusal: Exception, jobs: list[Job]) -> None:
    _head(console, "What is refused")
    _say(
        console,
        "A job that does not say on whose behalf it runs is not enqueued; None would do, for "
        "that is a statement:",
    )
    _quote(console, refusal)
    wrong = next(job for job in jobs if job.definition is story.delete_ledger.definition)
    try:
        wrong.result()
    except AuditOnlyScopeError as error:
        _say(console, "A job's scope is good for audit lines and for no decision:")
        _quote(console, error)
    _say(console, 'Run your own: see "sigra run --help" and "sigra workers sigra.cli.story".')


def _head(console: Console, title: str) -> None:
    console.print(Text(f"\n{title}", style="bold"))


def _say(console: Console, text: str) -> None:
    console.print(Text(printable(text)))


def _quote(console: Console, error: Exception) -> None:
    text = f"{type(error).__name__}: {error}"
    console.print(Padding(Text(printable(text), style="red"), (0, 0, 1, 4), expand=False))
