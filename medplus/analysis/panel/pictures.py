"""The images of cases, small, with their nearest train images: read again from where they lie."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.errors import Case
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings import provenance
from medplus.embeddings.derived import view_of
from medplus.embeddings.info import read_info
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.errors import MedplusError, StoreError
from medplus.heads.folded import deal_store, sample_names
from medplus.heads.saved import derived
from medplus.heads.stored import leaves_out
from medplus.run.folds import Folds, parts_of
from medplus.run.record import RunRecord

LARGEST = 96
"""Pixels of a thumbnail's side at most."""
N_NEIGHBOURS = 3


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    r"""Return an image as a PNG whose sides have at most `LARGEST` pixels.

    Smaller ones are enlarged by a whole number, so that their pixels stay square.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)

    Examples
    --------
    >>> thumbnail(np.zeros((28, 28), np.uint8))[:4]
    b'\x89PNG'
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    zoom = LARGEST // max(image.size)
    if zoom > 1:
        size = (image.width * zoom, image.height * zoom)
        image = image.resize(size, Image.Resampling.NEAREST)
    image.thumbnail((LARGEST, LARGEST))
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    return content.getvalue()


def images_of(
    panel: Panel, cases: Sequence[Case], data_root: str | Path = "data"
) -> list[NDArray[np.uint8]]:
    """Read the images of cases from the dataset, as the run saw them.

    Raises
    ------
    MedplusError
        If the data are not there any more, or are not those of the run.
    """
    loaded = _load(panel.record, data_root)
    index = panel.predictions["test_index"]
    origin = panel.predictions.get("test_split", ["test"] * len(index))  # out of fold, any split
    splits = {str(split): own for split, own in loaded.splits.items()}
    found = []
    for case in cases:
        own = splits[str(origin[case.row])]
        found.append(np.asarray(own.images[np.searchsorted(own.positions, index[case.row])]))
    return found


def _load(record: RunRecord, data_root: str | Path) -> ImageDataset:
    """Return a run's images from a folder of data, or from where they were extracted."""
    try:
        return provenance.images_of(record, record.path, data_root, say=False)
    except MedplusError:
        with suppress(MedplusError):
            if record.parts:
                made = read_info(record.parts[0].path)
                return provenance.images_of(made, record.path, say=False)
        raise


def neighbours_of(panel: Panel, cases: Sequence[Case], k: int = N_NEIGHBOURS) -> list[list[str]]:
    """Return names and classes of the train images nearest to each case, nearest first.

    Raises
    ------
    StoreError
        If the store that the run was made on is not there any more, or is another one.
    """
    store = _open_again(panel.record)
    rows = [case.row for case in cases]
    if panel.record.folds is None:
        place = {int(index): row for row, index in enumerate(store.index("test"))}
        tested = [place[int(panel.predictions["test_index"][row])] for row in rows]
        return _nearest(store, tested, sample_names(store, ("train",)), panel.record, k)
    folds = Folds(panel.record.folds.n, pool=panel.record.folds.pool)
    names = np.array(sample_names(store, folds.splits))
    found: dict[int, list[str]] = {}
    dealt = deal_store(store, folds, panel.record.folds.repeat)
    for number in range(folds.n):
        parts = parts_of(dealt, number)
        own = [row for row in rows if row in parts["test"]]
        if own:
            tested = np.searchsorted(parts["test"], own).tolist()
            fold, learned = view_of(store, parts), names[parts["train"]].tolist()
            near = _nearest(fold, tested, learned, panel.record, k)
            found |= dict(zip(own, near, strict=True))
    return [found[row] for row in rows]


def _open_again(record: RunRecord) -> EmbeddingStore:
    """Return the embeddings that a run was made on, made of others again where they were."""
    if record.store is None:
        raise StoreError("the run was made on images, without a store")
    if record.folds is not None and leaves_out(record):
        raise StoreError("the folds were dealt without the images that are left out")
    stores = []
    for part in record.parts:
        stores.append(open_store(part.path))
        if stores[-1].key != part.key:
            raise StoreError(f"{part.path} is not the store that the run was made on")
    return derived(record, stores)


def _nearest(
    store: EmbeddingStore, tested: Sequence[int], names: Sequence[str], record: RunRecord, k: int
) -> list[list[str]]:
    """Return the names and classes of the train rows nearest to some rows of test."""
    # scikit-learn's search needs no torch, which would take longer to import than all this.
    from sklearn.neighbors import NearestNeighbors

    train = store.embeddings("train").astype(np.float32)
    queries = store.embeddings("test")[tested].astype(np.float32)
    metric = "cosine" if record.metric == "cosine" else "euclidean"
    search = NearestNeighbors(n_neighbors=min(k, len(train)), metric=metric, algorithm="brute")
    found = search.fit(train).kneighbors(queries, return_distance=False)
    labels = store.labels("train")
    return [[f"{names[i]} ({_labels(labels[i], record.classes)})" for i in row] for row in found]


def _labels(labels: NDArray[np.integer], classes: Sequence[str]) -> str:
    """Return what a train image is of."""
    if len(labels) == 1:
        return classes[int(labels[0])]
    return ", ".join(name for name, holds in zip(classes, labels, strict=True) if holds) or "none"
