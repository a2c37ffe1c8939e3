"""Choosing the stores that `knn` and `probe` work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medplus.cli import options

if TYPE_CHECKING:
    from medplus.embeddings.store import EmbeddingStore

Command = TypeVar("Command", bound=Callable[..., Any])


def selectors(command: Command) -> Command:
    """Add the selectors of `extract`; what is not given matches any store."""
    for option in reversed(
        (
            options.names(default_size="any"),
            click.option("--weights", help="pretrained, none, or the file.  [default: any]"),
            click.option(
                "--precision",
                type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
                help="Precision of the extraction.  [default: any, as is auto]",
            ),
            click.option(
                "--dtype",
                type=click.Choice(["float32", "float16"]),
                help="How embeddings are stored.  [default: any]",
            ),
            click.option(
                "--fit",
                type=click.Choice(["pad", "resize", "native"]),
                help="How images were fitted.  [default: any]",
            ),
            click.option(
                "--key", help="The start of a store's key, as `medplus store ls` shows it."
            ),
            click.option(
                "--data-root",
                type=click.Path(path_type=Path, file_okay=False),
                help="Only stores of the datasets in this folder.  [default: any]",
            ),
            options.store_root,
        )
    ):
        command = option(command)
    return command


def find_stores(
    *,
    datasets: tuple[str, ...],
    sizes: tuple[str, ...] | None,
    backbones: tuple[str, ...],
    store_root: Path,
    data_root: Path | None,
    **filters: str | None,
) -> list[EmbeddingStore]:
    """Return one store for every dataset, size and backbone that is asked for."""
    from medplus.embeddings.select import StoreQuery, find_store

    stores = []
    for dataset in options.expand_datasets(datasets):
        for size in options.expand_sizes(sizes):
            digest = _digest(dataset, size, data_root)
            for backbone in options.expand_backbones(backbones):
                query = StoreQuery(dataset, size, backbone, dataset_digest=digest, **filters)
                stores.append(find_store(store_root, query))
    return stores


def _digest(dataset: str, size: int | None, data_root: Path | None) -> str | None:
    """Return what identifies the data that are meant, or None if any of that name will do."""
    from medplus.datasets.load import is_path, load_dataset

    if is_path(dataset):
        # Files in different folders may share a name; one that is gone is known by its name only.
        return load_dataset(dataset, size).digest if Path(dataset).is_file() else None
    return load_dataset(dataset, size, data_root).digest if data_root else None
