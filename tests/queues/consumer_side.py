"""What every consumer's app module imports before its backend: the suite's workers, recorded.

``note`` is the body of a task of the application's own, which Sigra knows nothing of; ``held``
is a worker that the test lets end, ``sleeps`` one that its queue's time limit cuts off,
``stands_still`` one that it strikes later, and after ``one_thread`` a second plain function waits
for the first.
"""

from __future__ import annotations

import asyncio
import os
import pkgutil
import time
from concurrent.futures import ThreadPoolExecutor

if os.environ.get("SIGRA_TEST_OLDER"):
    import older_release

    older_release.be_older()

from email.message import EmailMessage  # noqa: E402
from pathlib import Path  # noqa: E402

from sigra import AuditEvent, Snooze, tenant_worker  # noqa: E402
from sigra.testing.contract_workers import record, record_events  # noqa: E402
from sigra.workers import EmailSettings, TokenTable, set_up  # noqa: E402

if os.environ.get("SIGRA_TEST_CONSUMER"):
    record_events()

URL = os.environ.get("SIGRA_TEST_URL", "")
QUEUE = os.environ.get("SIGRA_TEST_QUEUE", "")


@tenant_worker(name="queues.held", audit_schema=AuditEvent, action="queues.held")
def held(scope, args, until):
    """Run until there is a file of that name."""
    record(scope, args)
    while not Path(until).exists():
        time.sleep(0.02)


@tenant_worker(name="queues.sleeps")
async def sleeps(scope, args):
    """Take longer than any test has time for; if asked to, fail where that is cut off."""
    record(scope, args)
    try:
        await asyncio.sleep(300)
    finally:
        if args.get("fails"):
            raise OSError("the connection was used by two at once")


@tenant_worker(name="queues.stands_still")
def stands_still(scope, args, job, marker, place, seconds):
    """Snooze once; the first time, its process stands still where it comes to ``place`` then."""
    record(scope, args)
    if job.snoozes:
        return None
    if not Path(marker).exists():
        Path(marker).touch()
        _stand_still_once(seconds, *place.rsplit(".", 1))
    return Snooze(1)


def _stand_still_once(seconds, module, name):
    in_module = pkgutil.resolve_name(module)
    then = getattr(in_module, name)

    def late(*args, **kwargs):
        setattr(in_module, name, then)
        time.sleep(seconds)
        return then(*args, **kwargs)

    setattr(in_module, name, late)


@tenant_worker(name="queues.one_thread")
async def one_thread(scope, args):
    """Have one thread for all plain functions that this consumer begins from now on."""
    record(scope, args)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


def note(text: str) -> None:
    """Append a line to the file that the test reads."""
    with open(os.environ["SIGRA_TEST_NOTES"], "a") as notes:
        notes.write(f"{text}\n")


def _greet(user: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = f"hello {user}"
    return message


def tokens_of(notes: str) -> TokenTable:
    """Return the token table that lies beside the notes."""
    from sqlalchemy import create_engine  # which takes half as long as all the rest

    return TokenTable(create_engine(f"sqlite:///{notes}.db"))


if notes := os.environ.get("SIGRA_TEST_NOTES"):
    set_up(email=EmailSettings(str, {"greet": _greet}, lambda message: note(message["Subject"])))
    if Path(f"{notes}.db").exists():
        set_up(tokens=tokens_of(notes))
