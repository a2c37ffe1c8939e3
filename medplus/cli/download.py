"""`medplus download`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.options import Output

if TYPE_CHECKING:
    from medplus.datasets.download import Download, OfficialFile


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
    show_default=True,
    help="Files that are fetched at once.",
)
@click.option(
    "--stall",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds without a byte after which a connection counts as broken.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
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
    sizes: tuple[str, ...],
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
    wanted = [size for size in options.expand_sizes(sizes) if size is not None]
    files = official_files(names, wanted, data_root, base_url)
    if as_list:
        output.result({"files": [_row(file) for file in files]}, lambda: _show_list(files))
        return 0
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
    from medplus.progress import bytes_on_console, silent
    from medplus.transfer import Patience

    patience = Patience(stall_s=stall, attempts=attempts)
    sized = {file.path: file for file in ask_sizes(missing_files(files), patience)}
    files = [sized.get(file.path, file) for file in files]
    if dry_run:
        output.result(
            {
                "files": [
                    _row(file, "present" if file.path.exists() else "missing") for file in files
                ]
            },
            lambda: _show_plan(files),
        )
        return 0
    missing = missing_files(files)
    check_room(missing, data_root)
    console = output.console
    progress = silent if console is None else bytes_on_console(console)
    done = fetch_all(files, workers=workers, patience=patience, progress=progress)
    rows = [{**_row(one.file, one.outcome or "failed"), "error": one.error} for one in done]
    output.result({"files": rows}, lambda: _show_done(done))
    failed = [one for one in done if one.outcome is None]
    if not failed:
        return 0
    click.echo(
        f"Error: {len(failed)} of {len(done)} files are missing: {failed[0].error}", err=True
    )
    return 1


def _verify(output: Output, files: Sequence[OfficialFile]) -> int:
    states = [(file, file.state()) for file in files]
    said = {"official": "official", "missing": "missing", "other": "not the official file"}

    def show() -> None:
        for file, state in states:
            click.echo(f"{file.path}: {said[state]}")

    output.result({"files": [_row(file, state) for file, state in states]}, show)
    wrong = [file for file, state in states if state != "official"]
    if not wrong:
        return 0
    click.echo(
        f"Error: {len(wrong)} of {len(files)} files are missing or not the official ones, first "
        f"{wrong[0].path}; delete what is wrong and run medplus download again",
        err=True,
    )
    return 1


def _row(file: OfficialFile, status: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": file.dataset,
        "size": file.size,
        "path": str(file.path),
        "url": file.remote.url,
        "md5": file.remote.digest,
        "most_bytes": file.most_bytes,
    }
    if file.n_bytes is not None:
        row["bytes"] = file.n_bytes
    return {**row, "status": status} if status else row


def _show_list(files: Sequence[OfficialFile]) -> None:
    for file in files:
        click.echo(f"{file.remote.digest}  {file.path.name}  {_size(file)}  {file.remote.url}")
    click.echo(
        "Put them into one folder, name it with --data-root, and check them there with "
        "medplus download … --verify."
    )


def _show_plan(files: Sequence[OfficialFile]) -> None:
    for file in files:
        click.echo(f"{file.path}: {'present' if file.path.exists() else _size(file)}")
    left = sum(file.bytes_left for file in files if not file.path.exists())
    click.echo(f"{left / 1e6:,.1f} MB are to be fetched at most")


def _show_done(done: Sequence[Download]) -> None:
    for one in done:
        click.echo(f"{one.file.path}: {one.outcome or 'failed'}")


def _size(file: OfficialFile) -> str:
    if file.n_bytes is not None:
        return f"{file.n_bytes / 1e6:,.1f} MB"
    return f"≤ {file.most_bytes / 1e6:,.1f} MB"
