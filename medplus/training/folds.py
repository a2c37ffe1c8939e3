"""The images of a fold: those of another split each, as the folds deal them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from medplus.datasets.dataset import ImageDataset, ImageSplit
from medplus.run.folds import Fold, Folds, deal, parts_of
from medplus.run.scoring import Samples
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

Rows = Mapping[Split, np.ndarray]
"""Of each split, rows counted over the dataset's own splits one after the other; ascending."""


def pooled(images: ImageDataset, folds: Folds) -> Samples:
    """Return what is known of the images that are dealt out, one split after the other."""
    return Samples.joined(Samples.of(images.splits[split]) for split in folds.splits)


def rows_of(images: ImageDataset, fold: Fold) -> Rows:
    """Return the rows of a fold's splits: those that `medplus.heads.folded` deals embeddings to."""
    samples = pooled(images, fold.folds)
    many = images.task == MULTI_LABEL
    dealt = deal(samples.labels, samples.groups, fold.folds, fold.repeat, multi_label=many)
    return parts_of(dealt, fold.number)


def described(images: ImageDataset, rows: Rows) -> ImageDataset:
    """Return a dataset whose card counts the images of a fold, and whose images are its own."""
    labels = np.concatenate([images.splits[split].labels for split in SPLITS])
    own = {split: labels[rows[split]] for split in SPLITS}
    return replace(images, card=images.card.recounted(images.classes, own))


def images_of(images: ImageDataset, rows: Rows) -> ImageDataset:
    """Return the images of a fold, copied into memory."""
    splits = {split: _gathered(images, rows[split]) for split in SPLITS}
    return replace(described(images, rows), splits=splits)


def _gathered(images: ImageDataset, rows: np.ndarray) -> ImageSplit:
    parts, begin = [], 0
    for split in SPLITS:
        whole = images.splits[split]
        own = rows[(rows >= begin) & (rows < begin + len(whole))] - begin
        begin += len(whole)
        if len(own):
            parts.append(whole.take(own))
    known = Samples.joined(Samples.of(part) for part in parts)
    pixels = np.concatenate([part.images for part in parts])
    return ImageSplit(pixels, known.labels, known.names, known.groups, known.index)
