"""Run the command as ``python -m sigra.cli``."""

from __future__ import annotations

from sigra.cli import main

if __name__ == "__main__":
    main()
