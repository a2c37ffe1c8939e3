"""`medplus download`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output

if TYPE_CHECKING:
    from medplus.datasets.download import OfficialFile


@click.command()
@click.argument("datasets", metavar="DATASET...", nargs=-1, required=True)
@options.pixel_sizes
@options.data_root
@click.option(
    "--base-url",
    help="A mirror: the folder, by http or https, that holds the files under their official names.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    default=3,
    help="Files that are fetched at once.",
)
@click.option(
    "--stall",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    help="Seconds without a byte after which a connection counts as broken.",
)
@click.option(
    "--attempts",
    type=options.AT_LEAST_1,
    default=6,
    help="Failures in a row, with nothing received between them, until a file is given up.",
)
@click.option("--dry-run", is_flag=True, help="Ask for the sizes, and fetch nothing.")
@click.option(
    "--list",
    "as_list",
    is_flag=True,
    help="List addresses, largest sizes and MD5, to fetch them elsewhere; needs no network.",
)
@click.option("--verify", is_flag=True, help="Check the files that are there; needs no network.")
@options.common
def download(
    output: Output,
    datasets: tuple[str, ...],
    sizes: tuple[int, ...],
    data_root: Path,
    base_url: str | None,
    as_list: bool,
    verify: bool,
    **settings: Any,
) -> int:
    """Fetch the official files of each DATASET (or all), checked by their MD5.

    An interrupted download goes on where it stopped. Files that are there are left as they are.
    """
    from medplus.datasets.download import official_files
    from medplus.datasets.sources import expand

    if as_list and verify:
        raise click.UsageError("--list and --verify do different things; give one of them")
    names = expand([part for name in datasets for part in name.split(",")])
    files = official_files(names, sizes, data_root, base_url)
    if as_list:
        lines = [f"{file.md5}  {file.path.name}  {_size(file)}  {file.url}" for file in files]
        lines.append(
            "Put them into one folder, name it with --data-root, and check them there with "
            "medplus download … --verify."
        )
        return _told(output, [_row(file) for file in files], lines)
    if verify:
        return _verify(output, files)
    return _download(output, files, data_root, **settings)


def _download(
    output: Output,
    files: Sequence[OfficialFile],
    data_root: Path,
    workers: int,
    stall: float,
    attempts: int,
    dry_run: bool,
) -> int:
    from medplus.datasets.download import ask_sizes, check_room, missing_files
    from medplus.datasets.download import download as fetch_all
    from medplus.remotefile import Patience

    patience = Patience(stall_s=stall, attempts=attempts)
    missing = {file.path: file for file in ask_sizes(missing_files(files), patience)}
    files = [missing.get(file.path, file) for file in files]
    if dry_run:
        rows = [_row(f, "missing" if f.path in missing else "present") for f in files]
        lines = [f"{f.path}: {_size(f) if f.path in missing else 'present'}" for f in files]
        left = sum(file.bytes_left for file in missing.values())
        lines.append(f"{left / 1e6:,.1f} MB are to be fetched at most")
        return _told(output, rows, lines)
    check_room([*missing.values()], data_root)
    done = fetch_all(files, workers=workers, patience=patience, progress=output.progress)
    rows = [{**_row(file, file.outcome or "failed"), "error": file.error} for file in done]
    lines = [f"{file.path}: {file.outcome or 'failed'}" for file in done]
    errors = [file.error for file in done if file.outcome is None]
    fault = f"{len(errors)} of {len(done)} files are missing: {errors[0]}" if errors else ""
    return _told(output, rows, lines, fault)


def _verify(output: Output, files: Sequence[OfficialFile]) -> int:
    states = {file: file.state() for file in files}
    said = {"official": "official", "missing": "missing", "other": "not the official file"}
    wrong = [file.path for file, state in states.items() if state != "official"]
    rows = [_row(file, state) for file, state in states.items()]
    lines = [f"{file.path}: {said[state]}" for file, state in states.items()]
    fault = wrong and (
        f"{len(wrong)} of {len(files)} files are missing or not the official ones, first "
        f"{wrong[0]}; delete what is wrong and run medplus download again"
    )
    return _told(output, rows, lines, fault or "")


def _told(output: Output, rows: list[dict[str, Any]], lines: Sequence[str], fault: str = "") -> int:
    """Print what is known of the files, and return the exit code."""
    output.result({"files": rows}, lambda: click.echo("\n".join(lines)))
    if fault:
        click.echo(f"Error: {fault}", err=True)
    return 1 if fault else 0


def _row(file: OfficialFile, status: str = "") -> dict[str, Any]:
    row = {
        "dataset": file.dataset,
        "size": file.size,
        "path": str(file.path),
        "url": file.url,
        "md5": file.md5,
        "most_bytes": file.most_bytes,
        "bytes": file.n_bytes,
        "status": status or None,
    }
    return {key: value for key, value in row.items() if value is not None}


def _size(file: OfficialFile) -> str:
    bound = "≤ " if file.n_bytes is None else ""
    return f"{bound}{(file.n_bytes or file.most_bytes) / 1e6:,.1f} MB"
