"""Fuzzing guided by coverage, by hand: one parser, as long as you like.

    pip install atheris
    python -m tests.hostile.fuzz record.json -max_total_time=600

The first argument is a name of `parsers`; the others are libFuzzer's. It ends at the first file
that is neither read nor refused with a `MedplusError`, and leaves that as ``crash-…``.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
import timm  # noqa: F401 - to import it takes longer than any file may

with atheris.instrument_imports(include=["medplus", "yaml", "zipfile", "json"]):
    from medplus.errors import MedplusError
    from tests.hostile.parsers import parsers


def main() -> None:
    """Fuzz the parser that the command line names."""
    program, name, *options = sys.argv
    parser = parsers()[name]
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        (seeds / "valid").write_bytes(parser.content())
        home = Path(folder) / "home"
        home.mkdir()

        def try_one(data: bytes) -> None:
            with contextlib.suppress(MedplusError):
                parser.try_on(home, data)

        arguments = [program, "-rss_limit_mb=4096", "-timeout=30", *options, str(seeds)]
        atheris.Setup(arguments, try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
