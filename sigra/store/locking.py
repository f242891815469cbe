"""One process at a time writes to a file."""

from __future__ import annotations

import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[bytes]) -> None:
        """Wait until nobody else holds the open file's lock, and hold it until it is closed."""
        file.seek(1 << 30)  # where nobody reads: there a lock would keep readers out
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def lock_file(file: IO[bytes]) -> None:
        """Wait until nobody else holds the open file's lock, and hold it until it is closed."""
        fcntl.flock(file, fcntl.LOCK_EX)
