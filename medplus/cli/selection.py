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
            click.option(
                "--weights", help="pretrained, none, or the file or folder.  [default: any]"
            ),
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
                "--feature",
                help="prelogits, cls, avg, cls+avg or layer:NAME, as extracted.  [default: any]",
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
    from medplus.datasets import sources
    from medplus.embeddings.select import StoreQuery, find_store

    stores = []
    for dataset in options.expand_datasets(datasets):
        for size in options.expand_sizes(sizes):
            # Files in different folders may share a name.
            ref = sources.find(dataset)
            known = ref and (ref.source != "medmnist" or data_root is not None)
            digests = sources.digests(ref, size, data_root or "") if ref and known else None
            for backbone in options.expand_backbones(backbones):
                query = StoreQuery(dataset, size, backbone, dataset_digests=digests, **filters)
                stores.append(find_store(store_root, query))
    return stores
