"""Tell a ``KeyboardInterrupt`` from the user's Ctrl-C from one that a body raised."""

from __future__ import annotations

from opcode import opmap


def was_pressed(error: KeyboardInterrupt) -> bool:
    """Tell whether Ctrl-C was pressed; if not, a body raised the exception by ``raise``.

    Python's signal handler has no frame: the innermost frame was then at another instruction
    than a raise. Only asyncio's runner passes a Ctrl-C on by a raise of its own.
    """
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    frame = innermost.tb_frame
    raised = frame.f_code.co_code[innermost.tb_lasti] == opmap["RAISE_VARARGS"]
    return not raised or frame.f_globals.get("__name__") == "asyncio.runners"
