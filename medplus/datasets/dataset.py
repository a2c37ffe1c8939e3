"""The types that hold images: what a name means, a split, and a dataset of three splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medplus.datasets.card import Card
from medplus.jsonfile import digest_of
from medplus.reading import Reading
from medplus.vocabulary import Split, Task

Provenance = Literal["official", "unofficial", "phantom", "custom"]
"""Where the images come from: the official MedMNIST file (MD5 checked), another file of the same
name, a synthetic stand-in, or the user's own data."""


@dataclass(frozen=True)
class DatasetRef:
    """What a dataset's name was resolved to.

    Attributes
    ----------
    source : {"medmnist", "npz", "folder"}
        The module of `medplus.datasets.sources` that reads it.
    spelling : str
        The flag, or the absolute path: it names the dataset again from anywhere.
    name : str
        The name under which stores and records know it.
    any_size : bool
        False for an npz file, which has the size of its images.
    """

    source: str
    spelling: str
    name: str
    any_size: bool


@dataclass(frozen=True)
class Outline:
    """What is known of a dataset before its images are read.

    Attributes
    ----------
    n_samples : dict
        Number of images per split.
    n_classes, n_labels : int
        Classes or labels, and columns of the label array; of an npz file's classes, at least so
        many.
    size : int
        Height and width of the images in pixels.
    """

    n_samples: Mapping[Split, int]
    n_classes: int
    n_labels: int
    size: int


class Names(Sequence[str]):
    """The names of a split's rows, made or read when the first is asked for.

    Parameters
    ----------
    n : int
    read : callable
        Returns all of them.

    Examples
    --------
    >>> Names(2, lambda: ["a.png", "b.png"])[1]
    'b.png'
    """

    def __init__(self, n: int, read: Callable[[], list[str]]) -> None:
        self._n = n
        self._read = read

    @cached_property
    def _all(self) -> list[str]:
        return self._read()

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        return self._all[index]


@dataclass(frozen=True)
class ImageSplit:
    """One split of a dataset.

    Attributes
    ----------
    images : ndarray of uint8, shape (n_samples, size, size) or (n_samples, size, size, 3)
        Memory-mapped; slices are read from disk when they are used.
    labels : ndarray of uint8 or int64, shape (n_samples, n_labels)
        Class indices in one column, or 0/1 flags in one column per label.
    names : sequence of str, length n_samples
        Where each row came from: the path of its file in a folder, with slashes, else ``train/0``,
        …; read when they are used. Empty for a split that was made by hand.
    groups : sequence of str, length n_samples
        What each row belongs to, such as a patient; empty where nothing is known to belong
        together.
    index : ndarray of int64, shape (n_samples,), or None
        The positions of the rows in the source split, where some of it were left out.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]
    names: Sequence[str] = ()
    groups: Sequence[str] = ()
    index: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The position of every row in the source split."""
        return np.arange(len(self)) if self.index is None else self.index

    def take(self, rows: npt.NDArray[np.integer]) -> ImageSplit:
        """Return some rows, copied into memory."""
        names, groups = (
            [column[row] for row in rows.tolist()] if len(column) else ()
            for column in (self.names, self.groups)
        )
        return ImageSplit(self.images[rows], self.labels[rows], names, groups, self.positions[rows])


@dataclass(frozen=True)
class ImageDataset:
    """Images and labels of one dataset at one size.

    Attributes
    ----------
    name : str
        The MedMNIST flag, or the name of the user's file or folder.
    size : int
        Height and width of the images in pixels.
    digest : str
        SHA-256 of the arrays, the task and the classes, in hex: the identity of the data.
    path : str
        The file or folder the data were read from.
    licence, citation : str
        Under what the data may be used, and what their owner asks to be cited; may be empty.
    reading : Reading or None
        How its files became pixels, settled: `medplus.datasets.build.read_files` reads others in
        the same way. None for images that were made by hand.
    card : Card
        What was read, and what to be careful of.
    """

    name: str
    size: int
    task: Task
    classes: tuple[str, ...]
    source: Provenance
    licence: str
    digest: str
    path: str
    splits: Mapping[Split, ImageSplit]
    reading: Reading | None = None
    citation: str = ""
    card: Card = field(default_factory=Card)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return 1 if self.splits["train"].images.ndim == 3 else 3

    @property
    def n_classes(self) -> int:
        """Number of classes, or of labels if the task is multi-label."""
        return len(self.classes)


def data_digest(arrays: str, task: Task, classes: Sequence[str]) -> str:
    """Return what identifies a dataset: its arrays, by their digest, and what its labels mean."""
    return digest_of({"arrays": arrays, "task": task, "classes": list(classes)})
