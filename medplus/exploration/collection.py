"""What there is to be seen of a store: images, maps, neighbours, categories, predictions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medplus.auditing.pool import Pool, pool_of, reduce, with_images
from medplus.auditing.twins import nearest
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import UsageError
from medplus.exploration import columns, maps
from medplus.exploration.columns import Column, Labels
from medplus.exploration.predictions import Scored, read_scored
from medplus.exploration.thumbnails import Sheets, make_sheets
from medplus.heads.features import JoinedRows, read_features
from medplus.naming import safe_name
from medplus.progress import SAID
from medplus.spec import PIXELS
from medplus.vocabulary import SPLITS, Metric

log = logging.getLogger(__name__)

N_NEIGHBOURS = 12


@dataclass(frozen=True, eq=False)
class Collection:
    """What there is to be seen.

    Attributes
    ----------
    pool : Pool
        All images: train, val and test, one after the other.
    backbone : str
    size, dim : int
    metric : {"l2", "cosine"}
        Of the neighbours.
    features : ndarray of float32, shape (n, at most 128)
        The embeddings on their principal components.
    maps : dict of str to ndarray of float32, shape (n, 2)
        By their names, as people read them; the first is shown first.
    neighbours, distances : ndarray, shape (n, k)
        The nearest other images over all splits, exactly, nearest first.
    columns : list of Column
    flags : dict of int to str
        Per row that an audit has flagged, what it says.
    runs : list of Scored
    labels : Labels
    sheets : Sheets or None
        None where no images are at hand, or none are shown.
    notes : list of str
        What could not be done, or was chosen unasked.
    """

    pool: Pool
    backbone: str
    size: int
    dim: int
    metric: Metric
    features: np.ndarray
    maps: dict[str, np.ndarray]
    neighbours: np.ndarray
    distances: np.ndarray
    columns: list[Column]
    flags: dict[int, str]
    runs: list[Scored]
    labels: Labels
    sheets: Sheets | None
    notes: list[str]

    @property
    def places(self) -> np.ndarray:
        """The map that is shown first, float32, shape (n, 2)."""
        return next(iter(self.maps.values()))


def collect(
    store: EmbeddingStore,
    runs: Sequence[str | Path] | None,
    suspects: str | Path | None,
    data_root: str | Path | None,
    clusters: int | Literal["hdbscan"] | None,
    with_pictures: bool,
    advance: Callable[[], None],
) -> Collection:
    """Return what there is to be seen of a store, on its PCA.

    Parameters
    ----------
    store : EmbeddingStore
    runs, suspects, data_root, clusters
        As for `medplus.exploration.explore.explore`.
    with_pictures : bool
    advance : callable
        Called after each of three steps.

    Raises
    ------
    MedplusError
        If the store, a run or a table cannot be read.
    """
    info, notes = store.info, list[str]()
    pool = pool_of(store)
    places = [Path(run) for run in (("runs",) if runs is None else runs)]
    scored, left = read_scored(pool, info.dataset_digest, places, by_default=runs is None)
    notes += left
    labels = columns.label_words(pool, scored)
    flagged, flags = _flags(pool, info.size, suspects, notes)
    sheets = _sheets(pool, store, data_root, notes) if with_pictures else None
    advance()
    metric: Metric = "l2" if info.backbone == PIXELS else "cosine"
    rows = JoinedRows(tuple(read_features(store, split) for split in SPLITS))
    neighbours, distances = nearest(rows, N_NEIGHBOURS, metric)
    advance()
    features = reduce(store)
    how = maps.how_many(len(pool.classes)) if clusters is None else clusters
    found = maps.cluster(features, how)
    advance()
    group = columns.group_column(store)
    return Collection(
        pool, info.backbone, info.size, info.dim, metric, features,
        {"PCA": maps.pca_map(features)}, neighbours, distances,
        [
            *columns.label_columns(pool, labels),
            columns.split_column(pool),
            *([] if group is None else [group]),
            columns.cluster_column(pool, found),
            *([] if flagged is None else [flagged]),
            *columns.run_columns(labels, scored),
        ],
        flags, scored, labels, sheets, notes,
    )  # fmt: skip


def _flags(
    pool: Pool, size: int, suspects: str | Path | None, notes: list[str]
) -> tuple[Column | None, dict[int, str]]:
    """Return what an audit says; a table that was not named may be missing, or of others."""
    if suspects is not None:
        return columns.flag_column(pool, Path(suspects))
    table = Path("audit") / safe_name(pool.dataset) / str(size) / "suspects.csv"
    if not table.exists():
        return None, {}
    try:
        flagged = columns.flag_column(pool, table)
    except UsageError as error:
        notes.append(f"left out: {error}")
        return None, {}
    notes.append(f"audit flags are those of {table}")
    return flagged


def _sheets(
    pool: Pool, store: EmbeddingStore, data_root: str | Path | None, notes: list[str]
) -> Sheets | None:
    seen, missing = with_images(pool, store, data_root)
    if missing is not None or seen.images is None:
        notes.append(f"without thumbnails, since the images are not at hand: {missing}")
        log.log(SAID, "%s: %s", pool.dataset, notes[-1])
        return None
    return make_sheets(seen.image, len(seen), seen.images.size)
