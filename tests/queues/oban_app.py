"""The app that the tests' consumer loads: ``oban start --cron-modules=oban_app``."""

from __future__ import annotations

import os

import consumer_side
import oban

from sigra import configure, tenant_worker
from sigra.backends.oban import ObanBackend
from sigra.testing import contract_workers


@oban.job()
def note(text):
    consumer_side.note(text)


@tenant_worker(name="oban_app.parent")
def parent(scope, args):
    """Enqueue from a thread of the consumer."""
    contract_workers.echo.new({**args, "by": "thread"})


@tenant_worker(name="oban_app.parent_async")
async def parent_async(scope, args):
    """Enqueue by the consumer's own pool, and from its loop without awaiting."""
    await contract_workers.echo.anew({**args, "by": "loop"})
    contract_workers.echo.new({**args, "by": "blocking"})


@tenant_worker(name="oban_app.says")
def says(scope, text):
    raise ValueError(text.encode().decode("unicode-escape"))


@tenant_worker(name="oban_app.returns_obans_word")
def returns_obans_word(scope, word):
    return oban.Snooze(60) if word == "Snooze" else oban.Cancel("said so")


if os.environ.get("SIGRA_TEST_CONSUMER"):
    configure(backend=ObanBackend())
