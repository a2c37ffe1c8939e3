"""`medplus --help` against importing click, as whole processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Result, compare, interleave

ROUNDS = 15


def run() -> list[Result]:
    def start(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    times = interleave(
        {
            "help": lambda: start("-m", "medplus", "--help"),
            "click": lambda: start("-c", "import click"),
        },
        ROUNDS,
    )
    return [
        compare("medplus --help ÷ python -c 'import click'", times["help"], times["click"], "≤ 3")
    ]
