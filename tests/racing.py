"""Work that threads do at the same time."""

import sys
import threading
from collections.abc import Callable


def at_once(work: Callable[[], object], threads: int = 4) -> None:
    """Do the same work in threads, which are switched often, and raise what one of them raised."""
    start, raised = threading.Barrier(threads), list[BaseException]()

    def run() -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        each = [threading.Thread(target=run) for _ in range(threads)]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if raised:
        raise raised[0]
