"""`python -m benchmarks`: run the benchmarks, keep or check their ratios, and write the page."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.check import regressions
from benchmarks.document import write_page
from benchmarks.measure import Result

NAMES = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=NAMES, action="append", help="run just this one")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the results under benchmarks/results, and renew docs/performance.md",
    )
    parser.add_argument(
        "--check", action="store_true", help="fail if a ratio is worse than it was recorded here"
    )
    parser.add_argument(
        "--page", action="store_true", help="only renew docs/performance.md from what is recorded"
    )
    arguments = parser.parse_args()
    if arguments.page:
        write_page()
        return
    machine = record.describe_machine()
    path = record.results_file(machine)
    recorded = _recorded(path)
    results: list[Result] = []
    for name in arguments.only or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = importlib.import_module(f"benchmarks.bench_{name}").run()
        results += found
        if arguments.record:  # at once: a later benchmark may be interrupted
            record.write(path, machine, name, found)
    _show(machine, results)
    if arguments.json:
        document = {"machine": machine, "results": [record.as_document(r) for r in results]}
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if arguments.record:
        write_page()
    if arguments.check:
        sys.exit(_check(path, results, recorded))


def _recorded(path: Path) -> dict[str, list[float]]:
    benchmarks = record.read(path)["results"].values()
    return {entry["name"]: entry["ratios"] for kept in benchmarks for entry in kept["ratios"]}


def _show(machine: dict, results: list[Result]) -> None:
    table = Table("what", "median", "min–max", "goal", "medians", title=str(machine))
    for result in results:
        spread = f"{min(result.ratios):.3g}–{max(result.ratios):.3g}"
        table.add_row(result.name, f"{result.median:.3g}", spread, result.goal, result.detail)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _check(path: Path, results: list[Result], recorded: dict[str, list[float]]) -> int:
    if not recorded:
        print(f"nothing was recorded on this machine ({path.name}): use --record first")
        return 2
    worse = regressions(results, recorded)
    for one in worse:
        print(f"worse: {one.name}: {one.found:.3g}, recorded at worst {one.worst_recorded:.3g}")
    judged = sum(result.name in recorded and result.sense is not None for result in results)
    print(f"{len(worse)} of {judged} ratios are worse than recorded")
    return 1 if worse else 0


if __name__ == "__main__":
    main()
