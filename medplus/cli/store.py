"""`medplus store`: ls, info, verify, export, import, rm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.errors import StoreError, UsageError

if TYPE_CHECKING:
    from medplus.embeddings.container import Place
    from medplus.embeddings.info import StoreInfo


@click.group()
def store() -> None:
    """Look after embedding stores."""


@store.command("ls")
@options.store_root
@options.common
def ls(output: Output, store_root: Path) -> None:
    """List the stores under the root, complete or not."""
    from medplus.embeddings.store import list_stores, read_info

    rows: list[dict[str, Any]] = []
    for path in list_stores(store_root):
        try:
            rows.append(_summary(path, read_info(path)))
        except StoreError as error:
            rows.append({"path": str(path), "status": "damaged", "reason": str(error)})

    output.result({"stores": rows}, lambda: _show_list(rows, store_root))


def _summary(path: Path, info: StoreInfo) -> dict[str, Any]:
    return {
        "path": str(path),
        "status": "complete" if info.complete else "incomplete",
        **{name: getattr(info, name) for name in ("key", "dataset", "size", "backbone", "weights")},
        "precision": "" if info.spec.is_imported else info.spec.precision or "fp32",
        "dtype": info.spec.dtype,
        "fit": info.preprocess.get("fit") or "",
        "feature": info.spec.feature or info.backbone,
        "corruption": info.spec.corruption,
        "dim": info.dim,
        "splits": dict(info.n_samples),
        "data_source": info.data_source,
        "bytes": sum(layout.nbytes for layout in info.all_layouts()),
    }


def _show_list(rows: list[dict[str, Any]], root: Path) -> None:
    from medplus.cli.tables import Column, print_rows

    if not rows:
        say(f"no stores under {root}; make one with: medplus extract")
        return
    readable = [row for row in rows if row["status"] != "damaged"]
    # Where nothing is corrupted, nobody wonders what the column is.
    corrupted = any(row["corruption"] for row in readable)
    if readable:
        print_rows(
            readable,
            (Column("dataset"), lambda row: row["dataset"]),
            (Column("size", right=True), lambda row: row["size"]),
            (Column("backbone"), lambda row: row["backbone"]),
            (Column("dim", right=True, rank=1), lambda row: row["dim"]),
            (Column("images", right=True, rank=2), lambda row: sum(row["splits"].values())),
            (Column("weights", rank=5), lambda row: Path(row["weights"]).name),
            (Column("precision", rank=7), lambda row: row["precision"]),
            (Column("dtype", rank=4), lambda row: row["dtype"]),
            (Column("fit", rank=6), lambda row: row["fit"]),
            (Column("data", rank=3), lambda row: row["data_source"]),
            *([(Column("corruption"), lambda row: row["corruption"])] if corrupted else []),
            (Column("key"), lambda row: row["key"][:8]),
            (Column("MB", right=True, rank=8), lambda row: f"{row['bytes'] / 1e6:.1f}"),
            (Column("status"), lambda row: row["status"]),
        )
    say(*(row["reason"] for row in rows if row["status"] == "damaged"))


@store.command("info")
@click.argument("path", type=options.place)
@options.common
def info(output: Output, path: Place) -> None:
    """Show everything that is recorded of the store at PATH, a folder, a .zarr.zip or a URL."""
    from medplus.embeddings.store import read_info

    found = read_info(path)
    document = {"path": str(path), **found.model_dump(mode="json")}

    def show() -> None:
        from medplus.cli.tables import make_console

        chunks = {layout.path: layout.n_chunks for layout in found.all_layouts()}
        shown = {name: value for name, value in document.items() if name != "metadata"}
        make_console().print_json(data={**shown, "chunks": chunks})

    output.result(document, show)


@store.command("verify")
@click.argument("paths", type=options.place, nargs=-1)
@options.store_root
@options.common
def verify(output: Output, paths: tuple[Place, ...], store_root: Path) -> None:
    """Check every byte of the stores at PATHS, or of all under the root.

    A path may be a folder, a .zarr.zip or the URL of an object store. Ends with exit code 1 if
    anything is damaged or incomplete, and says what repairs it.
    """
    from medplus.embeddings.store import list_stores

    _check_there(paths)
    targets: list[Place] = [*paths] or [*list_stores(store_root)]
    if not targets:
        raise UsageError(f"no stores under {store_root}; name another root with --store")
    results = [_verify_one(path) for path in targets]

    def show() -> None:
        for result in results:
            say(f"{result['status']:10} {result['path']}")
            for part in result["damage"]:
                chunk = "metadata" if part["chunk"] is None else f"chunk {part['chunk']}"
                say(f"           {part['array']}: {chunk}")
            if result["remedy"]:
                say(f"           {result['remedy']}")

    output.result({"stores": results}, show)
    bad = sum(result["status"] != "intact" for result in results)
    if bad:
        raise click.exceptions.Exit(StoreError.exit_code)


def _check_there(paths: Sequence[Place]) -> None:
    for path in paths:
        if isinstance(path, Path) and not path.exists():
            raise StoreError(f"there is no embedding store at {path}; medplus store ls lists all")


def _verify_one(path: Place) -> dict[str, Any]:
    from medplus.embeddings.store import find_damage, read_info, remedy

    status, damage, mend = "intact", [], ""
    try:
        found = read_info(path)
        damage = find_damage(path, found)
        if not found.complete:
            status, damage, mend = "incomplete", [], remedy(path, found, "completes")
        elif damage:
            status, mend = "damaged", remedy(path, found)
    except StoreError as error:
        status, mend = "damaged", str(error)
    parts = [part.model_dump() for part in damage]
    return {"path": str(path), "status": status, "damage": parts, "remedy": mend}


@store.command("export")
@click.argument("path", type=options.place)
@click.argument("target", type=options.PATH, required=False)
@click.option("--to", type=options.PATH, metavar="TARGET", help="The same as TARGET.")
@options.common
def export(output: Output, path: Place, target: Path | None, to: Path | None) -> None:
    """Write the store at PATH to TARGET, a .npz, .parquet or .zarr.zip file.

    A .zarr.zip is the store itself in one file, which every command that reads a store reads too.
    """
    from medplus.embeddings.export import export_store
    from medplus.embeddings.store import open_store

    file = target or to
    if file is None or (target and to):
        raise UsageError("name one file to export to: medplus store export PATH TARGET")
    export_store(open_store(path), file)
    nbytes = file.stat().st_size
    document = {"path": str(path), "target": str(file), "bytes": nbytes}
    output.result(document, lambda: say(f"{file} ({nbytes / 1e6:.1f} MB)"))


@store.command("import")
@click.argument("path", type=options.PATH)
@click.option("--dataset", required=True, metavar="NAME", help="What the images are called.")
@click.option(
    "--backbone",
    required=True,
    metavar="NAME",
    help="What the encoder is called; the store's backbone is imported:NAME.",
)
@click.option(
    "--size",
    type=options.AT_LEAST_1,
    help="Height and width of the images in pixels.  [default: 224]",
)
@click.option(
    "--table",
    type=options.PATH,
    metavar="FILE",
    help="CSV or parquet file with the labels.  [default: what PATH itself tells, else the "
    "labels.csv beside it]",
)
@click.option("--task", metavar="TASK", help="What the labels mean.  [default: by the labels]")
@click.option(
    "--group-column",
    metavar="NAME",
    help="Column whose groups, such as patients, stay in one split, or none.",
)
@click.option(
    "--rows",
    type=click.Choice(["slides", "patches"]),
    default="slides",
    help="Of a folder of slides: the mean of each, or every patch with its slide as its group.",
)
@options.store_root
@options.common
def import_(output: Output, path: Path, store_root: Path, **chosen: Any) -> None:
    """Make a store of embeddings that were made elsewhere.

    PATH is a .npz, .parquet, .h5 or .pt file, or a folder with one .h5 or .pt file per slide, as
    TRIDENT, CLAM and eva write them. The same command again goes on where it stopped.
    """
    from medplus.embeddings.imported.importing import import_store

    made = import_store(path, store=store_root, progress=output.progress, **chosen)
    document = made.to_dict()

    def show() -> None:
        splits = " + ".join(f"{n:,}" for n in document["splits"].values())
        say(f"{made.status} {made.store.path} ({splits} × {document['dim']:,})")

    output.result(document, show)


@store.command("rm")
@click.argument("paths", type=options.PATH, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.common
def rm(output: Output, paths: tuple[Path, ...], yes: bool) -> None:
    """Delete the stores at PATHS."""
    from medplus.embeddings.writer import remove_store

    _check_there(paths)
    removed = []
    for path in paths:
        if yes or _confirmed(path):
            remove_store(path)
            removed.append(str(path))
        else:
            output.note(f"kept {path}")
    output.result({"removed": removed}, lambda: say(*(f"removed {path}" for path in removed)))


def _confirmed(path: Path) -> bool:
    try:
        return click.confirm(f"delete {path}?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError(f"nobody answers whether to delete {path}; --yes deletes it") from None
