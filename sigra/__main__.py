"""Run the command as ``python -m sigra``."""

from __future__ import annotations

from sigra.cli import main

if __name__ == "__main__":
    main()
