"""`python -m benchmarks [--only NAME] [--json FILE]`: run the benchmarks and print the ratios."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from medplus.device import cpu_has_native_bf16, describe_device, resolve_device

NAMES = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=NAMES, action="append", help="run just this one")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    machine = {
        "device": describe_device(resolve_device()),
        "cpu": describe_device(torch.device("cpu")),
        "native_bf16_cpu": cpu_has_native_bf16(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    results = []
    for name in arguments.only or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        results += importlib.import_module(f"benchmarks.bench_{name}").run()
    table = Table("what", "median", "min–max", "goal", "medians", title=str(machine))
    for result in results:
        spread = f"{min(result.ratios):.3g}–{max(result.ratios):.3g}"
        table.add_row(result.name, f"{result.median:.3g}", spread, result.goal, result.detail)
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    if arguments.json:
        document = {"machine": machine, "results": [vars(result) for result in results]}
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
