"""Tell what interrupts the caller of ``.new()`` from what a body raised."""

from __future__ import annotations

from opcode import opmap

from sigra.audit.read import mro_of, type_name

_members = BaseExceptionGroup.__dict__["exceptions"].__get__
_OF_TESTS = {
    "_pytest.outcomes.OutcomeException",  # of pytest.fail and pytest.skip, and of pytest-timeout
    "_pytest.outcomes.Exit",
    "hypothesis.errors.StopTest",
    "hypothesis.errors.UnsatisfiedAssumption",
    "unittest.case.SkipTest",
}
"""By name: none of these tools needs to be installed."""


def interrupts(error: BaseException) -> bool:
    """Tell whether Ctrl-C raised it, or a testing tool in order to end the test.

    It is told by its exact type, and by what a group holds: no code of an odd error runs.
    """
    errors = [error]
    for one in errors:
        kind = type(one)
        if issubclass(kind, BaseExceptionGroup):  # of a body's tasks
            errors += _members(one)
        elif kind is KeyboardInterrupt:
            if _was_pressed(one):
                return True
        elif not _OF_TESTS.isdisjoint(map(type_name, mro_of(kind))):
            return True
    return False


def _was_pressed(error: BaseException) -> bool:
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
