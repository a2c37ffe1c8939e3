"""The images that a run has learned from, and how far another one is from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medplus.embeddings.transform import Fit, Transform, transformed
from medplus.heads.features import Features, Rows
from medplus.heads.knn.search import Neighbours, search
from medplus.vocabulary import Metric

_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Reference:
    """Embeddings of train to compare others with.

    Attributes
    ----------
    train : Features
        float32, shape (n_train, dim), made of those of the backbones as `fit` and `transform` say.
    names : sequence of str, length n_train
        Paths within the dataset; ``train/0``, … where images have none.
    val : Rows or None
        Of the images that are known not to be train's; None where every image was learned from, as
        by the heads of all folds.
    fit : Fit
    transform : Transform or None
    metric : {"l2", "cosine"}
        The run's own, for kNN; else Euclidean.
    device : str
        What searches.
    """

    train: Features
    names: Sequence[str]
    val: Rows | None
    fit: Fit
    transform: Transform | None
    metric: Metric
    device: str

    def find(self, embeddings: Sequence[np.ndarray], k: int) -> Neighbours:
        """Return the `k` train images nearest to each image, or all if they are fewer.

        Parameters
        ----------
        embeddings : sequence of ndarray of float32, shape (n_samples, dim)
            Of each backbone of the run.
        """
        x = transformed(embeddings, self.fit, self.transform)
        return self._search(x, min(k, len(self.train)))

    @cached_property
    def limit(self) -> float:
        """The distance beyond which an image is unlike anything in train.

        It is the largest that any image of val has to its nearest train image. Without val it is
        the largest that any train image has to its nearest other.
        """
        if self.val is not None:
            return float(self._search(self.val, 1).distances.max())
        found = self._search(self.train, min(2, len(self.train)))
        itself = found.indices[:, 0] == np.arange(len(self.train))
        # Where copies stand first, the image itself may come second: its nearest other is at 0.
        return float(np.where(itself, found.distances[:, -1], found.distances[:, 0]).max())

    def is_unlike(self, distances: np.ndarray) -> np.ndarray:
        """Tell which distances to the nearest train image exceed `limit`, by more than rounding."""
        exceeds: np.ndarray = distances > self.limit * (1 + _ROUNDING)
        return exceeds

    @property
    def limit_defined(self) -> str:
        """What `limit` is, in words."""
        if self.val is not None:
            return "the largest distance of an image of val to its nearest train image"
        return "the largest distance of a train image to its nearest other"

    def _search(self, queries: np.ndarray | Rows, k: int) -> Neighbours:
        return search(self.train, queries, k, metric=self.metric, device=self.device)
