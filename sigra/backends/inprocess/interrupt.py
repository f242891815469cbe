"""Which Ctrl-C was the user's own."""

from __future__ import annotations

from opcode import opmap


def was_pressed(error: KeyboardInterrupt) -> bool:
    """Tell Ctrl-C, which is the caller's to see, from a body's own ``raise``.

    The signal's handler is no Python frame: the innermost one was at some other
    instruction than a raise. asyncio's runner passes the signal on by a raise of its own.
    """
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    frame = innermost.tb_frame
    raised = frame.f_code.co_code[innermost.tb_lasti] == opmap["RAISE_VARARGS"]
    return not raised or frame.f_globals.get("__name__") == "asyncio.runners"
