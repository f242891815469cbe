"""A lock, so that one process at a time writes to a file."""

from __future__ import annotations

import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[bytes]) -> None:
        """Wait for the lock of an open file, and hold it until the file is closed."""
        file.seek(1 << 30)  # where nobody reads: a lock on what is read keeps readers out
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def lock_file(file: IO[bytes]) -> None:
        """Wait for the lock of an open file, and hold it until the file is closed."""
        fcntl.flock(file, fcntl.LOCK_EX)
