"""Warn of a worker that returns its queue's own word, which is a value to Sigra as any other."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sigra.backends.external import Consumed
from sigra.conclude import named_in_logs

_log = logging.getLogger("sigra.job")


def warn_of_native_word(consumed: Consumed, instead: Mapping[type, str]) -> None:
    """Log a warning if the job has returned one. ``instead``: by its type, what to return."""
    kind = type(consumed.verdict.value)
    if kind in instead and consumed.delivery is not None:
        name, facts = named_in_logs(consumed.delivery.job)
        what = "%s returned %s.%s, a value as any other here: it is completed. Return %s instead"
        word = kind.__module__.partition(".")[0], kind.__name__
        _log.warning(what, name, *word, instead[kind], extra=facts)
