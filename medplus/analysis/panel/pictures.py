"""The images of cases, small, with their nearest train images: read again from where they lie."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.errors import Case
from medplus.datasets import sources as datasets
from medplus.embeddings.store import open_store, read_info
from medplus.errors import DatasetError, MedplusError, StoreError
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
    DatasetError
        If the data are not there any more, or are not those of the run.
    """
    record = panel.record
    if record.spec.is_imported:
        raise DatasetError(f"{record.backbone} was imported without its images")
    ref = datasets.find(record.spec.dataset)
    roots = [Path(data_root), *_root_of_store(record)]
    there = [root for root in roots if ref and datasets.path(ref, record.size, root).exists()]
    if ref is None or not there:
        raise DatasetError(f"the images of {record.dataset} are not at hand")
    loaded = datasets.load(ref, record.size, there[0], say=False)  # it was said of the run
    if loaded.digest != record.dataset_digest:
        raise DatasetError(f"{loaded.path} holds other images than those of the run")
    index = panel.predictions["test_index"]
    origin = panel.predictions.get("test_split", ["test"] * len(index))  # out of fold, any split
    images = {str(split): own.images for split, own in loaded.splits.items()}
    return [np.asarray(images[str(origin[case.row])][int(index[case.row])]) for case in cases]


def _root_of_store(record: RunRecord) -> list[Path]:
    """Return where the images lay when they were extracted."""
    if record.store is None:
        return []
    try:
        return [Path(read_info(record.store.path).dataset_path).parent]
    except MedplusError:
        return []


def neighbours_of(panel: Panel, cases: Sequence[Case], k: int = N_NEIGHBOURS) -> list[list[str]]:
    """Return names and classes of the train images nearest to each case, nearest first.

    Raises
    ------
    StoreError
        If the store that the run was made on is not there any more, or is another one.
    """
    from sklearn.neighbors import NearestNeighbors

    record = panel.record
    if record.store is None:
        raise StoreError("the run was made on images, without a store")
    if record.folds is not None:
        raise StoreError("each fold has train images of its own")
    store = open_store(record.store.path)
    if store.key != record.store.key:
        raise StoreError(f"{store.path} is not the store that the run was made on")
    place = {int(index): row for row, index in enumerate(store.index("test"))}
    rows = [place[int(panel.predictions["test_index"][case.row])] for case in cases]
    train = store.embeddings("train")
    queries = store.embeddings("test")[rows]
    metric = "cosine" if record.metric == "cosine" else "euclidean"
    search = NearestNeighbors(n_neighbors=min(k, len(train)), metric=metric, algorithm="brute")
    # scikit-learn's search needs no torch, which would take longer to import than all this.
    found = search.fit(train.astype(np.float32)).kneighbors(
        queries.astype(np.float32), return_distance=False
    )
    names = [
        name or f"train/{i}"
        for name, i in zip(store.names("train"), store.index("train"), strict=True)
    ]
    labels = store.labels("train")
    return [[f"{names[i]} ({_labels(labels[i], record.classes)})" for i in row] for row in found]


def _labels(labels: NDArray[np.integer], classes: Sequence[str]) -> str:
    """Return what a train image is of."""
    if len(labels) == 1:
        return classes[int(labels[0])]
    return ", ".join(name for name, holds in zip(classes, labels, strict=True) if holds) or "none"
