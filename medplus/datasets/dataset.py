"""The types that hold images: a split, and a dataset of three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medplus.vocabulary import Split, Task

Source = Literal["official", "unofficial", "phantom", "custom"]
"""Where the images come from: the official MedMNIST file (MD5 checked), another file of the same
name, a synthetic stand-in, or the user's own data."""


@dataclass(frozen=True)
class ImageSplit:
    """One split of a dataset.

    Attributes
    ----------
    images : ndarray of uint8, shape (n_samples, size, size) or (n_samples, size, size, 3)
        Memory-mapped; slices are read from disk when they are used.
    labels : ndarray of uint8 or int64, shape (n_samples, n_labels)
        Class indices in one column, or 0/1 flags in one column per label.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.images)


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
        SHA-256 over the bytes of all arrays, in hex: the identity of the data.
    path : str
        The file or folder the data were read from.
    licence, citation : str
        Under what the data may be used, and what their owner asks to be cited; may be empty.
    """

    name: str
    size: int
    task: Task
    classes: tuple[str, ...]
    channels: int
    source: Source
    licence: str
    digest: str
    path: str
    splits: Mapping[Split, ImageSplit]
    citation: str = ""

    @property
    def n_classes(self) -> int:
        """Number of classes, or of labels if the task is multi-label."""
        return len(self.classes)
