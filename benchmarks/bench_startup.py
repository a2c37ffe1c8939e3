"""Commands as whole processes, against python alone, click and torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Result, compare, interleave

ROUNDS = 9
HELP = ("extract", "knn", "probe", "finetune", "sweep", "report", "doctor")


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return _in(Path(folder))


def _in(folder: Path) -> list[Result]:
    def start(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)

    def medplus(*words: str) -> None:
        start("-m", "medplus", *words)

    store = ("--dataset", "breastmnist", "--size", "28", "--backbone", "pixels")
    medplus("phantom", "--dataset", "breastmnist", "--samples", "100", "--out", "data")
    medplus("extract", *store)
    medplus("knn", *store)
    times = interleave(
        {
            "help": lambda: medplus("--help"),
            "click": lambda: start("-c", "import click"),
            "pass": lambda: start("-c", "pass"),
            "helps": lambda: [medplus(command, "--help") for command in HELP],
            "knn": lambda: medplus("knn", *store),
            "numpy": lambda: start("-c", "import numpy, click, pydantic"),
            "torch": lambda: start("-c", "import torch"),
        },
        ROUNDS,
    )
    commands = len(HELP)
    return [
        compare("medplus --help ÷ python -c 'import click'", times["help"], times["click"], "≤ 2"),
        compare("medplus --help ÷ python -c pass", times["help"], times["pass"], ""),
        compare(f"--help of a command (mean of {commands}) ÷ python -c 'import click'",
                [taken / commands for taken in times["helps"]], times["click"], "≤ 2"),
        compare("medplus knn that is done ÷ python -c 'import numpy, click, pydantic'",
                times["knn"], times["numpy"], ""),
        compare("medplus knn that is done ÷ python -c 'import torch'",
                times["knn"], times["torch"], "≤ 1"),
    ]  # fmt: skip
