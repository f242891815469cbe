"""Run a job in Dramatiq's consumer, and tell Dramatiq what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sigra.backends.direct import refuse_direct
from sigra.backends.dramatiq_limit import Interrupt, execute, interrupt_no_more
from sigra.backends.dramatiq_notes import BEGUN, RUN, begun_no_more, counted
from sigra.backends.dramatiq_send import millis
from sigra.backends.external import Consumed, consume, native, refuse_positional
from sigra.backends.none_known import warn_if_none
from sigra.errors import brief

CurrentMessage = native("dramatiq.middleware", "dramatiq").CurrentMessage
_Middleware = native("dramatiq.middleware", "dramatiq").Middleware

_log = logging.getLogger("sigra.job")

_RECONNECT = 2.0

_NOTHING_FOLLOWS = {
    "pipe_target": None,
    "group_completion_uuid": None,
    "on_success": None,
    "store_results": False,
}
"""Options of a message whose job goes on: what follows the job comes after its last run."""


class Named(native("dramatiq", "dramatiq").Actor):  # type: ignore[misc]
    """An actor that keeps its worker's name where a middleware names actors by their functions."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "actor_name" or not hasattr(self, name):
            super().__setattr__(name, value)


class WarnAtStart(_Middleware):  # type: ignore[misc, valid-type]
    """Have a consumer warn if it starts without a worker."""

    def before_worker_boot(self, *_: Any) -> None:
        """Warn, once all modules are imported."""
        consequence = "jobs of one wait, or are dead letters if a native actor has their queue"
        warn_if_none(consequence, "name the workers' modules to the command dramatiq")


def run(broker: Any, name: str, args: Sequence[Any], payload: Mapping[str, Any]) -> None:
    """Run a job: the body of every worker's actor."""
    message = CurrentMessage.get_current_message()
    ours = message and message.actor_name == name
    id = refuse_direct(name, message.message_id if ours else None)
    try:
        if args:
            consumed = refuse_positional(name, id)
        else:
            with counted(broker, message) as before:
                if before is None:
                    what = "job %s is skipped: another consumer ran it while this one was stalled"
                    _log.warning(what, brief(id))
                    message.options.update(_NOTHING_FOLLOWS)
                    return
                facts: Any = {"native_id": id, "execute": execute, "deliveries": before}
                consumed = consume(payload, name, "dramatiq", **facts)
        interrupt_no_more(broker, message)
    except Interrupt:
        interrupt_no_more(broker, message)
        what = "job %s was cut off outside its body: it runs again, as if its consumer had died"
        _log.exception(what, brief(id))
        died = {BEGUN: message.options.get(BEGUN, 0) + 1}
        _send_again(broker, message, message.copy(options=died), None)
    else:
        _settle(broker, message, consumed)


def _settle(broker: Any, message: Any, consumed: Consumed) -> None:
    error = consumed.take_error()
    match consumed.verdict.state:
        case "retryable" | "scheduled":
            number = message.options.get(RUN, 0) + 1
            again = message.copy(kwargs=consumed.following(), options={BEGUN: 0, RUN: number})
            _send_again(broker, message, again, millis(consumed.verdict.delay))
        case "cancelled" | "discarded":
            begun_no_more(broker, message)
            message.fail()  # it goes to the dead letters
            raise error.pop()


def _send_again(broker: Any, message: Any, again: Any, delay: int | None) -> None:
    """Send the next run before this one is acknowledged; try until the broker takes it."""
    while True:
        try:
            broker.enqueue(again, delay=delay)
            break
        except Exception:
            what = "could not send the next run of job %s to the broker: trying again"
            _log.exception(what, brief(message.message_id))
            time.sleep(_RECONNECT)
    message.options.update(_NOTHING_FOLLOWS)
