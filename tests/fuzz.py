"""Look with atheris for bytes that break a parser: ``python tests/fuzz.py NAME -max_total_time=600``.

``pip install atheris`` first. NAME is one of those in parsers.py; the rest goes to libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sigra"]):
    from parsers import PARSERS


def main(program: str, name: str, *options: str) -> None:
    """Start from the samples."""
    check, samples = PARSERS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, sample in enumerate(samples):
            (Path(corpus) / str(number)).write_text(sample)
        atheris.Setup([program, *options, corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv)
