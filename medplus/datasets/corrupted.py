"""A dataset whose test images are made worse as they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medplus.corruptions import Corruption
from medplus.corruptions.apply import CorruptedImages
from medplus.datasets.dataset import ImageDataset


def corrupted(images: ImageDataset, corruption: Corruption) -> ImageDataset:
    """Return a dataset with its test images corrupted, and all else as it is.

    Parameters
    ----------
    images : ImageDataset
    corruption : Corruption
        Settled.
    """
    test = images.splits["test"]
    worse: Any = CorruptedImages(test.images, corruption, test.positions)
    return replace(images, splits={**images.splits, "test": replace(test, images=worse)})
