"""Train, val and test as one pool, and their embeddings brought to few dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.provenance import images_of
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import MedplusError, UsageError
from medplus.heads.features import JoinedRows, Rows, read_features
from medplus.run.scoring import Samples
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split, Task

_COMPONENTS = 128
_SAMPLE = 20_000
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Pool:
    """Train, val and test, one after the other.

    Attributes
    ----------
    dataset : str
    task : Task
    classes : tuple of str
    split : ndarray of int8, shape (n,)
        0, 1 or 2: train, val or test.
    index : ndarray of int64, shape (n,)
        Position in the source split.
    names : list of str
    labels : ndarray of int, shape (n, n_labels)
    images : ImageDataset or None
        Where they are at hand.
    groups : ndarray of int64, shape (n,), or None
        What belongs together, such as the images of a patient.
    """

    dataset: str
    task: Task
    classes: tuple[str, ...]
    split: np.ndarray
    index: np.ndarray
    names: list[str]
    labels: np.ndarray
    images: ImageDataset | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.split)

    @property
    def multi_label(self) -> bool:
        """Whether several labels may hold."""
        return self.task == MULTI_LABEL

    @cached_property
    def strata(self) -> np.ndarray:
        """One number per image by which folds are stratified, int64, shape (n,)."""
        if not self.multi_label:
            return self.labels[:, 0].astype(np.int64)
        return np.asarray(self.labels.sum(1, dtype=np.int64))

    def split_of(self, row: int) -> Split:
        """Return the name of a row's split."""
        return SPLITS[int(self.split[row])]

    def name_of(self, row: int) -> str:
        """Return the name of a row, as the dataset gives it, or made of split and index."""
        return self.names[row] or f"{self.split_of(row)}/{self.index[row]}"

    def label_of(self, row: int) -> str:
        """Return the given label in words; several are joined by commas."""
        return self.in_words(self.labels[row])

    def in_words(self, label: Iterable[int]) -> str:
        """Return a row of labels in words."""
        values = [int(value) for value in label]
        if not self.multi_label:
            return self.classes[values[0]]
        return ",".join(name for name, on in zip(self.classes, values, strict=True) if on)

    def image(self, row: int) -> np.ndarray:
        """Return one image, uint8, shape (size, size) or (size, size, 3); copied from the disk."""
        assert self.images is not None
        place = row - int(np.searchsorted(self.split, self.split[row]))
        return np.array(self.images.splits[self.split_of(row)].images[place])

    def pixels(self, rows: slice) -> np.ndarray:
        """Return the images of consecutive rows, uint8, shape (n, size, size[, 3])."""
        numbers = np.arange(len(self))[rows]
        return np.stack([self.image(row) for row in numbers])


def pool_of(store: EmbeddingStore) -> Pool:
    """Return the samples of a store, without images."""
    info = store.info
    parts = [
        Samples(
            store.labels(split), store.index(split),
            names=store.names(split), groups=store.groups(split),
        )
        for split in SPLITS
    ]  # fmt: skip
    every = Samples.joined(parts)
    return Pool(
        info.dataset,
        info.task,
        tuple(info.classes),
        np.repeat(np.arange(3, dtype=np.int8), [len(part.index) for part in parts]),
        every.index,
        list(every.names),
        every.labels,
        groups=numbered(list(every.groups)) if every.groups else None,
    )


def with_images(
    pool: Pool, store: EmbeddingStore, data_root: str | Path | None = None
) -> tuple[Pool, str | None]:
    """Return the samples of a store with their images, or without them and why.

    Parameters
    ----------
    data_root : str or Path, optional
        Folder of the datasets' npz files; by default where the images of the store lay.
    """
    try:
        return replace(pool, images=images_of(store.info, store.path, data_root)), None
    except (MedplusError, OSError) as error:
        return pool, str(error)


def numbered(names: list[str]) -> np.ndarray:
    """Return one number per distinct name, int64, shape (n,)."""
    numbers: np.ndarray = np.unique(np.array(names), return_inverse=True)[1]
    return np.asarray(numbers, np.int64)


def check_alike(stores: list[EmbeddingStore]) -> None:
    """Refuse stores that are not all of the same images.

    Raises
    ------
    UsageError
    """
    first = stores[0]
    for other in stores[1:]:
        if other.info.dataset_digest != first.info.dataset_digest:
            raise UsageError(
                f"{other.path} is of other images than {first.path}; audit the stores of one "
                "dataset at one size together"
            )


def reduce(store: EmbeddingStore) -> np.ndarray:
    """Return all embeddings of a store on their first principal components.

    Near neighbours stay near, and what is computed on them takes a fraction of time and memory.

    Returns
    -------
    ndarray of float32, shape (n, min(dim, 128))
        Centred; train, val and test, one after the other.

    Raises
    ------
    MedplusError
        If the store is damaged, or its embeddings are not finite.
    """
    rows = JoinedRows(tuple(read_features(store, split, hold=False) for split in SPLITS))
    return project(rows, _COMPONENTS)


def project(rows: Rows, components: int) -> np.ndarray:
    """Return rows on their first principal components, found on evenly spaced blocks of them."""
    n = len(rows)
    keep_every = max(1, n // _SAMPLE)
    sample = np.concatenate(
        [block[(-first) % keep_every :: keep_every].copy() for first, block in rows.blocks(_BLOCK)]
    )
    mean = sample.mean(0, dtype=np.float64)
    sample -= mean.astype(np.float32)
    _, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    axes = axes[:, ::-1][:, :components].astype(np.float32)
    reduced = np.empty((n, axes.shape[1]), np.float32)
    for first, block in rows.blocks(_BLOCK):
        reduced[first : first + len(block)] = (block - mean.astype(np.float32)) @ axes
    return reduced
