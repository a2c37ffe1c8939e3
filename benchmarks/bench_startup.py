"""Commands as whole processes, against python alone, click and torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

import click

from benchmarks.measure import Result, compare, interleave
from medplus.cli.main import medplus as group

ROUNDS = 9


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return _in(Path(folder))


def _in(folder: Path) -> list[Result]:
    def start(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)

    def medplus(*words: str) -> None:
        start("-m", "medplus", *words)

    commands = group.list_commands(click.Context(group))
    store = ("--dataset", "breastmnist", "--size", "28", "--backbone", "pixels")
    medplus("phantom", "--dataset", "breastmnist", "--samples", "100", "--out", "data")
    medplus("extract", *store)
    medplus("knn", *store)
    small = ("--dataset", "breastmnist", "--data-root", "few", "--backbone", "resnet18",
             "--weights", "none")  # fmt: skip
    medplus("phantom", "--dataset", "breastmnist", "--samples", "6", "--out", "few")
    made = count()
    times = interleave(
        {
            "help": lambda: medplus("--help"),
            "click": lambda: start("-c", "import click"),
            "pass": lambda: start("-c", "pass"),
            **{f"{name} --help": partial(medplus, name, "--help") for name in commands},
            "knn": lambda: medplus("knn", *store),
            "numpy": lambda: start("-c", "import numpy, click, pydantic"),
            "torch": lambda: start("-c", "import torch"),
            "timm": lambda: start("-c", "import timm"),
            "lean timm": lambda: start("-c", "from medplus.backbones.lean import timm"),
            "extract": lambda: medplus("extract", *small, "--store", f"new{next(made)}"),
            "extracted": lambda: medplus("extract", *small, "--store", "new0"),
        },
        ROUNDS,
    )
    helps = {name: times[f"{name} --help"] for name in commands}
    slowest = max(helps, key=lambda name: statistics.median(helps[name]))
    mean = [statistics.mean(taken) for taken in zip(*helps.values(), strict=True)]
    return [
        compare("medplus --help ÷ python -c 'import click'", times["help"], times["click"], "≤ 2"),
        compare("medplus --help ÷ python -c pass", times["help"], times["pass"], ""),
        compare(f"--help of a command (mean of all {len(helps)}) ÷ python -c 'import click'",
                mean, times["click"], "≤ 2"),
        compare(f"--help of the slowest command, {slowest} ÷ python -c 'import click'",
                helps[slowest], times["click"], "≤ 2"),
        compare("medplus knn that is done ÷ python -c 'import numpy, click, pydantic'",
                times["knn"], times["numpy"], ""),
        compare("medplus knn that is done ÷ python -c 'import torch'",
                times["knn"], times["torch"], "≤ 1"),
        compare("import of timm as medplus imports it ÷ python -c 'import torch'",
                times["lean timm"], times["torch"], "≤ 1.5"),
        compare("import of timm as medplus imports it ÷ python -c 'import timm'",
                times["lean timm"], times["timm"], "≤ 0.7"),
        compare("medplus extract of six images, resnet18 ÷ python -c 'import torch'",
                times["extract"], times["torch"], "≤ 1.5"),
        compare("medplus extract that is done, resnet18 ÷ python -c 'import torch'",
                times["extracted"], times["torch"], "≤ 1"),
    ]  # fmt: skip
