"""`medplus report`."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.cli.panel import panel_options
from medplus.errors import UsageError
from medplus.naming import printable

if TYPE_CHECKING:
    from medplus.analysis.document import Document
    from medplus.analysis.verdict import Verdict
    from medplus.reporting.report import Report

_IN_PERCENT = ("acc", "paper_acc", "paper_std", "difference", "tolerance")
"""Columns that tables for readers have in percent, and JSON, as everywhere, as fractions."""

_ABOUT_RUNS = ("against", "only", "title", "tuned", "positive", "prevalence", "by", "table")
_FEW = 3
"""Of more verdicts the tables stand in files only."""


def _condition(text: str) -> tuple[str, str]:
    key, equals, wanted = text.partition("=")
    if not (key and equals and wanted):
        raise UsageError(f"--only: '{text}' is not of the form KEY=VALUE, such as k=5")
    return key.strip(), wanted.strip()


@click.command()
@click.argument("runs", required=False, type=options.PATH)
@click.option(
    "--out",
    type=options.PATH,
    help="Folder of the report; an earlier one is replaced.  [required]",
)
@click.option(
    "--baseline",
    type=click.Choice(["paper"]),
    help="Report on the paper's published numbers; needs no RUNS.",
)
@click.option(
    "--against",
    metavar="paper|FILE.csv",
    help="Set RUNS beside the paper, or any table of results, cell by cell.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="With --against: percent points of ACC within which a cell passes.  [default: 2]",
)
@click.option(
    "--strict",
    is_flag=True,
    help="With --against: exit with 1 unless every cell that it has passes.",
)
@click.option(
    "--only",
    type=_condition,
    metavar="KEY=VALUE",
    multiple=True,
    help="Take only runs with this condition, as k=5, fit=native, data=official, size=28; repeat.",
)
@click.option(
    "--tuned",
    type=click.Choice(["fixed", "val"]),
    help="fixed: one k, learning rate and weight decay for all; val: in each cell the best on val. "
    " [default: val; with --against paper, fixed]",
)
@click.option("--title", help="Title of the report.")
@panel_options
@options.data_root
@click.option(
    "--compare",
    nargs=2,
    type=options.PATH,
    metavar="RUN RUN",
    help="Compare two runs on the same test images by a paired bootstrap, and write no report.",
)
@options.common
def report(
    output: Output,
    runs: Path | None,
    out: Path | None,
    compare: tuple[Path, Path] | None,
    **settings: Any,
) -> int:
    """Turn RUNS, a folder of runs, into tables, figures, tests and one page.

    Without RUNS it is the paper's own benchmark, rebuilt from its published numbers.

    \b
    medplus report --out paper
    medplus report runs --out report --against paper
    medplus report runs --out report --against results.csv
    """  # noqa: D301 - click wants the control character
    if compare is not None:
        beside = {f"--{name}": value for name, value in settings.items() if name != "data_root"}
        for flag, value in {"RUNS": runs, "--out": out, **beside}.items():
            if value not in (None, False, ()):
                raise UsageError(f"--compare takes two runs and nothing else; leave out {flag}")
        _compare(output, *compare)
        return 0
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    return _report(output, runs, out, **settings)


def _report(
    output: Output, runs: Path | None, out: Path, baseline: str | None, strict: bool, **asked: Any
) -> int:
    if runs is None:
        remedy = "is about runs; name their folder: medplus report RUNS --out DIR"
        _refuse(remedy, **{name: asked[name] for name in _ABOUT_RUNS})
    else:
        asked["against"] = asked["against"] or baseline
    if asked["against"] is None:
        remedy = "judges runs by others' numbers; add --against paper, or a CSV file"
        _refuse(remedy, strict=strict, tolerance=asked["tolerance"] is not None)
    from medplus.analysis.against import TOLERANCE
    from medplus.reporting.report import report as write

    gc.freeze()  # what was imported stays: looking through it took a tenth of a report's time
    by, tolerance = asked.pop("by") or (), asked.pop("tolerance")
    tolerance = TOLERANCE if tolerance is None else tolerance
    written = write(runs, out, by=by, tolerance=tolerance, **asked)
    failure = _failure(written) if strict else None
    document = _document(written)
    if strict:
        document["strict"] = {"passed": failure is None, "failure": failure}
    output.result(document, lambda: _show(written, runs))
    if failure is not None:
        click.echo(printable(f"Error: {failure}"), err=True)
    return 0 if failure is None else 1


def _compare(output: Output, first: Path, second: Path) -> None:
    from medplus.analysis.format import difference, p_equals
    from medplus.analysis.paired import N_RESAMPLES
    from medplus.reporting.report import compare_runs

    pair = compare_runs(first, second)
    found = {"acc": pair.accuracy(), "auc": pair.auc()}
    defined = {name: one for name, one in found.items() if one.value == one.value}  # not NaN
    document = {
        "runs": [str(first), str(second)],
        "n_images": pair.n_images,
        "n_resamples": N_RESAMPLES,
        **{
            name: {
                "difference": one.value / 100,
                "ci95": [one.low / 100, one.high / 100],
                "p_value": one.p_value,
            }
            for name, one in defined.items()
        },
    }

    def show() -> None:
        say(f"{first}\n  less {second}, on {pair.n_images} test images")
        for name, one in defined.items():
            bounds = f"{difference(one.low)} to {difference(one.high)}"
            say(
                f"  {name.upper()} {difference(one.value)} points, 95 % interval {bounds}, "
                f"{p_equals(one.p_value)}"
            )

    output.result(document, show)


def _refuse(remedy: str, **given: Any) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} {remedy}")


def _document(written: Report) -> dict[str, Any]:
    analysis = written.analysis
    benchmark, tables = analysis.benchmark, analysis.tables
    document: dict[str, Any] = {
        "out": str(written.out),
        "files": [str(path) for path in written.files],
        "verdict": [verdict.to_dict() for verdict in analysis.verdicts],
        "findings": list(analysis.findings),
        "notes": [{"where": where, "text": text} for where, text in analysis.notes],
        "conditions": dict(benchmark.conditions),
        "datasets": tables["datasets"].frame.to_dict("records"),
        "cells": len(benchmark.cells),
        "skipped": [{"path": path, "reason": reason} for path, reason in benchmark.skipped],
        "left_out": len(benchmark.unlike),
    }
    for name in filter(tables.__contains__, ("against", "newcomers")):
        frame = tables[name].frame
        in_percent = [column for column in _IN_PERCENT if column in frame]
        fractions = frame.assign(**{column: frame[column] / 100 for column in in_percent})
        # By way of pandas, which writes null for NaN.
        document[name] = json.loads(fractions.to_json(orient="records", double_precision=15))
    return document


def _show(written: Report, runs: Path | None) -> None:
    analysis = written.analysis
    if runs is None:
        say("The paper's benchmark as published; for runs of yours, name their folder.")
    show_answer(analysis)
    say(*analysis.findings, *(f"Note ({where}): {text}" for where, text in analysis.notes))
    for path, reason in analysis.benchmark.skipped:
        click.echo(printable(f"Skipped {path}: {reason}"), err=True)
    figures = {path.stem for path in written.files if path.suffix == ".png"}
    tables = {path.stem for path in written.files if path.suffix == ".csv"}
    click.echo(f"{len(tables)} tables, {len(figures)} figures, one page: {written.files[0]}")


def show_answer(analysis: Document) -> None:
    """Print all verdicts, the one over all datasets last; and of a few the candidates."""
    from medplus.cli.tables import print_block

    show_verdicts(analysis.verdicts)
    if 0 < len(analysis.verdicts) <= _FEW:
        for block in analysis.tables["verdict"].blocks:
            print_block(block)


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts."""
    for verdict in verdicts:
        run = [
            f"Its run, which panel, predict and package take: {one}" for one in verdict.best.runs
        ]
        lines = [*verdict.sentences, *run[:1]]
        say(f"Verdict on {verdict.dataset}:", *(f"  {line}" for line in lines))


def _failure(written: Report) -> str | None:
    """Return why ``--strict`` fails, or None."""
    against = written.analysis.tables["against"].frame
    reference = written.analysis.benchmark.reference
    assert reference is not None
    name = reference.name
    if against.empty:
        return f"--strict: none of the runs has a counterpart in {name}"
    failed = against[~against["passed"].astype(bool)]
    if failed.empty:
        return None
    worst = failed.loc[failed["difference"].abs().idxmax()]
    return (
        f"--strict: {len(failed)} of {len(against)} cells differ from {name} by more than "
        f"{worst['tolerance']:g} points; the most: {worst['dataset']}, {worst['protocol']}, "
        f"{worst['backbone']}, {worst['size']} px ({worst['difference']:+.2f}); all of them "
        f"stand in {written.out / 'tables' / 'against.csv'}"
    )
