"""A report on disk: the page, the tables, the figures, all of them or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medplus import atomic
from medplus._version import __version__
from medplus.analysis.document import Document
from medplus.errors import RunError
from medplus.jsonfile import parse_json
from medplus.lock import hold
from medplus.reporting.figures import write_figures
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.render import render_page
from medplus.reporting.tables import write_tables

PAGE = "index.html"
MANIFEST = "report.json"
"""What a report consists of; a folder without it is not ours to replace."""


def write_report(document: Document, out: Path) -> list[Path]:
    """Write a report into a folder of its own; an earlier report there is replaced.

    Everything is written beside it first, so that a failure or an interrupt leaves what was there.

    Parameters
    ----------
    document : Document
    out : Path
        Must be new, empty, or hold an earlier report and nothing else.

    Returns
    -------
    list of Path
        The files, `index.html` first.

    Raises
    ------
    RunError
        If the folder holds anything else, or cannot be written.
    LockHeldError
        If another process writes there.
    """
    out = out.resolve()  # of a link, its target is replaced
    check_folder(out)
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with hold(lock, f"the report {out}"), _new_folder(out) as folder:
            tables = write_tables(document.tables.values(), folder / "tables")
            figures = write_figures(document.figures, folder / "figures")
            drawings = {p.stem: p.read_text("utf-8") for p in figures if p.suffix == ".svg"}
            links = PageLinks(_linked((*tables, *figures), folder), _runs(document, out))
            (folder / PAGE).write_text(render_page(document, links, drawings), encoding="utf-8")
            files = [PAGE, *(_relative(path, folder) for path in (*tables, *figures))]
            manifest = {
                "medplus": __version__,
                "created": document.benchmark.created,
                "files": files,
            }
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            if out.exists():
                check_folder(out)  # again, as all this took a while
                atomic.remove_folder(out)  # only now: a failure above costs nothing
    except FileExistsError:
        raise RunError(
            f"{out}: another process has just written there; choose another --out"
        ) from None
    except OSError as error:
        raise RunError(
            f"the report {out} cannot be written: {error.strerror or error}; nothing was changed"
        ) from error
    return [out / name for name in files]


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Fill a folder beside `out`, where those that died of it may have left theirs."""
    atomic.remove_leftovers(out)
    with atomic.new_folder(out) as folder:
        yield folder


def check_folder(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier report.

    Raises
    ------
    RunError
    """
    try:
        for place in (out, *out.parents):
            if place.exists() and not place.is_dir():
                raise RunError(f"{place} is a file; name a folder for the report with --out")
        if not out.exists():
            return
        present = {_relative(path, out) for path in out.rglob("*")}
        ours = _manifest(out) if present else set()
    except OSError as error:
        raise RunError(f"{out} cannot be read: {error.strerror}") from None
    ours |= {parent.as_posix() for name in ours for parent in Path(name).parents}
    foreign = sorted(present - ours)
    if foreign:
        raise RunError(
            f"{out} holds files that are not of a report ({foreign[0]}"
            f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}); they would be lost, "
            "so choose another --out or move them"
        )


def _manifest(out: Path) -> set[str]:
    try:
        manifest = parse_json((out / MANIFEST).read_bytes())
        return {MANIFEST, *map(str, manifest["files"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()


def _runs(document: Document, out: Path) -> dict[str, str]:
    """Return where the page finds the folder of each run."""
    benchmark = document.benchmark
    frames = [frame for frame in (benchmark.cells, benchmark.unlike) if "runs" in frame]
    runs = {run for frame in frames for group in frame["runs"] for run in group}
    return {run: os.path.relpath(Path(run).resolve(), out) for run in sorted(runs)}


def _linked(files: Sequence[Path], folder: Path) -> dict[str, dict[str, str]]:
    """Return what the page links to: of tables the CSV files, of figures all."""
    found: dict[str, dict[str, str]] = {}
    for path in files:
        if path.suffix not in (".md", ".tex"):
            found.setdefault(path.stem, {})[path.suffix[1:]] = _relative(path, folder)
    return found


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
