"""Let go of a failed job: its error holds the frames that ran it, these the job, and it the error.

All that the body had in hand would otherwise be kept until the garbage is collected.
"""

from __future__ import annotations

from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType

_MAY_WAIT = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
_WAIT_NO_MORE = {"aexecute", "aexecute_apart", "_perform"}
"""Coroutines of ours that end at once when a job has ended. To empty one that waits would end it:
an error that is raised again and again leads to frames of other jobs, and these to what waits."""

_EMPTIED = ("sigra.", "asyncio.", "concurrent.futures.")


def empty_frames(error: BaseException | None) -> None:
    """Empty the frames that ran a job, once they have ended.

    Those of the application keep what they have, for whoever looks at the error.
    """
    trace = None if error is None else error.__traceback__
    while trace is not None:
        frame: FrameType | None = trace.tb_frame
        while frame is not None and _emptied(frame):
            frame = frame.f_back
        trace = trace.tb_next


def _emptied(frame: FrameType) -> bool:
    """Empty a frame if it is to be emptied; tell whether those that called it may be too."""
    if not frame.f_globals.get("__name__", "").startswith(_EMPTIED):
        return False
    if frame.f_code.co_flags & _MAY_WAIT and frame.f_code.co_name not in _WAIT_NO_MORE:
        return True
    try:
        frame.clear()
    except RuntimeError:  # it runs
        return False
    return True
