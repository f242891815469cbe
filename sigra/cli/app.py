"""The commands and what their ``--help`` says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import sigra as library
from sigra.cli.audit import audit
from sigra.cli.output import FULL, PIPE_STATUS, give_up_stdout, is_closed
from sigra.cli.paths import NEW_FILE, NEW_FILE_OR_STDOUT
from sigra.cli.target import Once

_LIMITS = "raise what limits them (ulimit -u or -v, the pids or memory limit of a container)"


class _Commands(click.Group):
    """Exit with the status that a shell expects after Ctrl-C and after a closed pipe.

    If standard output cannot be written, or no thread be started, say so in one line and exit
    with 1.
    """

    command_class = Once

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in FULL:
                raise
            click.echo(f"Error: standard output cannot be written: {error.strerror}", err=True)
            give_up_stdout()
            sys.exit(1)
        except RuntimeError as error:
            if str(error) != "can't start new thread":
                raise
            click.echo(f"Error: no thread can be started: {_LIMITS}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                if sys.stdout is not None:  # None where it was closed
                    sys.stdout.flush()  # a later failure would be reported by nobody
        except KeyboardInterrupt as error:
            ctx.exit(getattr(error, "status", 130))
        except OSError as error:  # before click, which would end with 1
            if not is_closed(error):
                raise
            give_up_stdout()
            ctx.exit(PIPE_STATUS)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 88,
        "show_default": True,
    },
)
@click.version_option(library.__version__, prog_name="sigra")
def sigra() -> None:
    """Run and inspect background jobs that know on whose behalf they run.

    Start with "sigra demo".
    """


@sigra.command()
@click.argument("target", metavar="MODULE:WORKER")
@click.option(
    "--args",
    "source",
    metavar="FILE",
    help="The jobs: one JSON object of args per line, in UTF-8. Use - for standard input. "
    "Without --args, run the jobs that an earlier run left in the file of the backend huey.",
)
@click.option(
    "--backend",
    metavar="NAME",
    help="sync, thread, asyncio, or an installed one. Default: the worker's own choice, else "
    "what its module configures, else sync. huey keeps the jobs in an SQLite file "
    "(SIGRA_HUEY_FILE, or sigra-huey.db in the current folder), which outlives the command.",
)
@click.option(
    "--workers",
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many jobs run at a time: for thread, asyncio, and huey on a file (default 1).",
)
@click.option(
    "--audit-log",
    type=NEW_FILE_OR_STDOUT,
    metavar="FILE",
    help="Append the audit events to FILE. Default: -, standard output.",
)
@click.option(
    "--rejects",
    type=NEW_FILE,
    metavar="FILE",
    help="Set bad lines aside in FILE, byte for byte; it must not exist yet. Default: "
    "<name of the args file>.rejects.jsonl in the current folder, with a number if that name "
    "is taken. Made only when there is a bad line.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=1000,
    metavar="N",
    help="Read no further while N jobs are unfinished, snoozed ones included. Bounds the memory.",
)
def run(
    target: str,
    source: str | None,
    backend: str | None,
    workers: int | None,
    audit_log: Path | None,
    rejects: Path | None,
    in_flight: int,
) -> None:
    """Run a worker once for each line of a file.

    MODULE is imported with the current folder on the path; WORKER is a function in it
    that is decorated with @tenant_worker or @worker.

    \b
      sigra run app.jobs:close --args jobs.jsonl --backend thread > audit.jsonl

    Standard output carries the audit events, one JSON object a line, and nothing else:
    what the worker prints goes to standard error. A worker without an audit schema gets
    AuditEvent. The progress bar (on a terminal only), bad lines, failures and the summary
    go to standard error.

    A bad line is reported by number and reason and set aside; the rest still run. Retries
    and snoozes are waited for in real time; the backend sync moves its clock ahead instead.
    On a backend that cannot tell what becomes of a job, jobs are enqueued and not waited for.

    At the end the sinks that MODULE has configured are closed. Ctrl-C stops reading; jobs, and
    then sinks, have 5 seconds to end. A second Ctrl-C ends the command at once.

    \b
    Exit status:
      0    every line was run and every job completed or cancelled itself
      1    a job was discarded or not finished, a line was bad or unreadable, an
           audit event failed, a sink was not closed, or the queue took no more
      2    the command was called in a way that cannot work
      130  Ctrl-C (143: SIGTERM; 129: SIGHUP; 141: standard output was closed)
    """  # noqa: D301
    from sigra.cli.run.order import Order, carry_out

    sys.exit(carry_out(Order(target, source, backend, audit_log, rejects, workers, in_flight)))


@sigra.command()
@click.argument("module")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def workers(module: str, as_json: bool) -> None:
    """List the workers that MODULE, or a submodule it imports, defines."""
    from sigra.cli.workers import list_workers

    list_workers(module, as_json=as_json)


@sigra.command()
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of text.")
def check(paths: tuple[Path, ...], as_json: bool) -> None:
    """Find where a worker's scope reaches an authorization function.

    Reads every Python file below PATH, except in virtual environments and hidden folders,
    and runs none of them. Starts at the functions that @tenant_worker decorates, and follows
    the scope through calls, variables, returned values and objects to the functions marked
    with @request_scope_only.

    It cannot see everything: a call by a name that is made at run time, or through code
    outside PATH, escapes it. @request_scope_only itself refuses those too, at run time.

    To accept a false alarm, end the line that it names with the comment "# sigra: allow" and
    a reason.

    \b
    Exit status:
      0    no such flow was found
      1    there is one
      2    a PATH does not exist, a file in it is not Python, or a decorator may
           come from a star import of a module outside PATH
    """  # noqa: D301
    from sigra.cli.check.report import report

    sys.exit(report(list(paths), as_json=as_json))


@sigra.command()
def demo() -> None:
    """Tell a story of three organizations in about a thousand jobs.

    Needs no file, no queue and no network, and takes a few seconds.
    """
    from sigra.cli.demo import tell

    tell()


sigra.add_command(audit)
