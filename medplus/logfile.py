"""Sending what a block logs and prints to a file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Append to a file what medplus logs and what is printed, also by libraries in C."""
    logger = logging.getLogger("medplus")
    before = logger.level, logger.propagate
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        kept = os.dup(1), os.dup(2)
        try:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            _print_to(file.fileno(), file.fileno())
            yield
        finally:
            _print_to(*kept)
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]
            for descriptor in kept:
                os.close(descriptor)


def _print_to(*files: int) -> None:
    """Send what is printed from now on, but not what has been, to other files."""
    for number, (stream, file) in enumerate(zip((sys.stdout, sys.stderr), files, strict=True), 1):
        stream.flush()
        os.dup2(file, number)
