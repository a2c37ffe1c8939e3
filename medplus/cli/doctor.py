"""`medplus doctor`."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medplus.cli import options
from medplus.cli.output import Output
from medplus.naming import counted

if TYPE_CHECKING:
    from medplus.doctor.finding import Finding, Mark

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
_SHOWN = 3
"""Findings of one kind that are shown in full, so that all fits on a screen."""

_MARGIN = " " * 15
_PIPE = (1000, 24)
"""Columns and lines where there is no terminal."""


@click.command()
@click.argument("grid", required=False, type=options.FILE)
@options.data_root
@options.store_root
@options.runs_root
@click.option("--deep", is_flag=True, help="Read every byte of data, stores and runs.")
@click.option("--fix", is_flag=True, help="Remove leftovers and locks of processes that died.")
@options.common
def doctor(
    output: Output,
    grid: Path | None,
    data_root: Path,
    store_root: Path,
    runs: Path,
    deep: bool,
    fix: bool,
) -> int:
    """Tell what is wrong with this installation, its data, stores and runs.

    GRID is the YAML file of a sweep: what is left of it is compared with the free disk. Nothing is
    written without --fix, and nothing is asked of the network. Ends with exit code 1 if anything
    is wrong; warnings (!) are worth knowing, and leave it at 0.
    """
    from medplus.doctor import Places, examine

    places = Places(data_root, store_root, runs)
    removed: list[Path] = []
    kept: list[Finding] = []
    if fix:
        from medplus.doctor.leftovers import remove_leftovers

        removed, kept = remove_leftovers(places)
    findings = [*examine(places, grid, deep), *kept]
    count = Counter(finding.mark for finding in findings)
    document = {
        "healthy": not count["problem"],
        "problems": count["problem"],
        "warnings": count["warning"],
        "findings": [asdict(finding) for finding in findings],
        "removed": [str(path) for path in removed],
    }
    output.result(document, lambda: _show(findings, removed, count))
    return 1 if count["problem"] else 0


def _show(findings: Sequence[Finding], removed: Sequence[Path], count: Counter[Mark]) -> None:
    # Without rich, which may be what is broken.
    for group, members in groupby(findings, lambda finding: finding.group):
        head: str = group
        seen: Counter[Mark] = Counter()
        for finding in members:
            seen[finding.mark] += 1
            if seen[finding.mark] <= _SHOWN:
                _print(head, finding)
                head = ""
        more = sum((seen - Counter(dict.fromkeys(seen, _SHOWN))).values())
        if more:
            click.echo(f"{_MARGIN}and {more} more of these (--json lists all)")
    for path in removed:
        click.echo(f"removed      {path}")
    parts = [(count["problem"], "problem"), (count["warning"], "warning")]
    told = " and ".join(counted(n, noun) for n, noun in parts if n)
    click.echo(f"\n{told or 'nothing is wrong'}")


def _print(head: str, finding: Finding) -> None:
    sign, colour = _MARKS[finding.mark]
    text = ": ".join(filter(None, (finding.subject, finding.text)))
    first, *rest = _wrapped(text, f"{head:13}{sign} ")
    click.echo(first.replace(sign, click.style(sign, fg=colour, bold=True), 1))
    for line in rest + _wrapped(finding.remedy, f"{_MARGIN}→ "):
        click.echo(line)


def _wrapped(text: str, start: str) -> list[str]:
    """Return lines that fit the terminal; a path or a word of a command stays in one piece."""
    width = shutil.get_terminal_size(_PIPE).columns
    rest = _MARGIN + "  " * start.endswith("→ ")
    return textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
