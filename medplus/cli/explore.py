"""`medplus explore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.cli.specs import SELECT, choices
from medplus.naming import in_bytes

if TYPE_CHECKING:
    from medplus.embeddings.store import EmbeddingStore
    from medplus.exploration.explore import Exploration


def _clusters(value: object) -> int | str:
    """Return the number, or ``hdbscan``."""
    text = str(value)  # a config file may hold a number
    if text.lower() == "hdbscan":
        return "hdbscan"
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number from 1 on nor hdbscan")
    return int(text)


_shown = options.together(
    click.option(
        "--runs",
        multiple=True,
        type=options.PATH,
        envvar="MEDPLUS_RUNS",
        show_envvar=True,
        help="A run, or a root of runs, of which each protocol and backbone gives its best on val; "
        "repeat.  [default: runs]",
    ),
    click.option(
        "--suspects",
        type=options.FILE,
        help="A suspects.csv of medplus audit.  [default: audit/DATASET/SIZE/suspects.csv]",
    ),
    click.option(
        "--map",
        "kind",
        type=click.Choice(["tsne", "pca"]),
        default="tsne",
        help="t-SNE and PCA; or PCA alone, at once.",
    ),
    click.option(
        "--clusters",
        type=_clusters,
        metavar="N|hdbscan",
        help="So many by k-means, or as HDBSCAN finds.  [default: twice the classes, from 8 to 24]",
    ),
    click.option(
        "--data-root",
        type=options.FOLDER,
        help="Folder of the datasets' npz files, for the thumbnails.  [default: where they lay]",
    ),
    click.option(
        "--out", type=options.FOLDER, help="Of the page.  [default: explore/DATASET/SIZE]"
    ),
)
"""The options that say what is shown."""


@click.command()
@click.argument("what", metavar="STORE|DATASET")
@click.option(
    "--backbone",
    help="Of a DATASET with several stores; a+b joins two.  [default: the newest of a network]",
)
@click.option("--size", type=options.AT_LEAST_1, help="Of a DATASET, in pixels.  [default: any]")
@choices(*SELECT, default="any")
@options.store_root
@options.transform
@_shown
@options.common
def explore(
    output: Output, what: str, store_root: Path, runs: tuple[Path, ...], **settings: Any
) -> None:
    """Put a map of all images on one page, to be looked at offline.

    Colour by class, split, group, cluster, audit flag or mistakes; click an image for its nearest
    neighbours and what every run predicts; draw round some and take their names away as CSV. Of
    more than 20,000 images a parquet file for embedding-atlas is written instead.

    \b
    medplus explore breastmnist
    medplus explore embeddings/…/resnet18-….zarr --runs runs --suspects audit/…/suspects.csv
    """  # noqa: D301 - click wants the control character
    from medplus.exploration.explore import explore as put_on_page

    chosen = {name: settings.pop(name) for name in ("backbone", "size", "transform", *SELECT)}
    store = _find(output, what, store_root, **chosen)
    found = put_on_page(store, runs=runs or None, progress=output.progress, **settings)
    output.result(found.to_dict(), lambda: _show(found))


def _find(
    output: Output,
    what: str,
    root: Path,
    backbone: str | None,
    size: int | None,
    transform: str | None,
    **chosen: Any,
) -> EmbeddingStore:
    from medplus.cli.specs import select_stores
    from medplus.embeddings.derived import DerivedStore
    from medplus.embeddings.store import is_store, open_store
    from medplus.embeddings.transform import Transform
    from medplus.exploration.choice import newest_store

    is_one = is_store(what) or what.endswith((".zarr", ".zarr.zip"))
    chosen_by = {"backbone": backbone, "size": size, **chosen}
    idle = [f"--{name}" for name, value in chosen_by.items() if value is not None]
    if is_one and idle:
        raise click.UsageError(
            f"{what} is one store, so {idle[0]} has nothing to choose: leave it out, or name a "
            "dataset"
        )
    if backbone is not None:
        sizes = None if size is None else [size]
        named: dict[str, Any] = {"datasets": [what], "sizes": sizes, "backbones": [backbone]}
        return select_stores(store_root=root, transform=transform, **named, **chosen)[0]
    done = None if transform is None else Transform.parse(transform)
    if is_one:
        store = open_store(what)
    else:
        store, taken = newest_store(root, what, size, **chosen)
        if taken is not None:
            output.note(taken)
    return store if done is None else DerivedStore([store], done)


def _show(found: Exploration) -> None:
    view = found.collection
    say(*(f"Note: {note}" for note in view.notes))
    size = in_bytes(found.path.stat().st_size)
    what = f"{len(view.pool):,} images of {view.pool.dataset}, {view.backbone}, {size}"
    if found.is_page:
        say(f"{found.path}  {what}; open it in a browser, it needs no network")
        return
    say(
        f"{found.path}  {what}: too many for a page, so for embedding-atlas:",
        f"  pip install embedding-atlas && {found.to_dict()['show']}",
    )
