"""Pairs about starting: what an import takes in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Pair, Timed


def imports(ours: str, floor: str = "import structlog, wrapt") -> Pair:
    """Compare two import statements, each in interpreters of its own."""
    return Pair(_fresh(ours), _fresh(floor), most=1)


def _fresh(statement: str) -> Timed:
    code = (
        f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    )

    def timed(loops: int) -> float:
        spent = 0.0
        for _ in range(loops):
            command = [sys.executable, "-c", code]
            spent += float(subprocess.run(command, check=True, capture_output=True).stdout)
        return spent

    return timed
