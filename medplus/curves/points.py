"""The points of a curve, and the data that they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medplus.curves.subsets import Amount
from medplus.metrics import accuracy
from medplus.vocabulary import MULTI_LABEL, Split, Task

Tune = Literal["val", "shots"]
"""Who chooses the learning rate or k: the val split, or folds within the images drawn."""
_FOLDS = 5
Subsets = Mapping[tuple[int, Amount], np.ndarray]
"""The train rows of every episode and amount."""


@dataclass(frozen=True)
class Data:
    """The embeddings and labels of one store.

    Attributes
    ----------
    embeddings : mapping of split to ndarray of float32, shape (n_samples, dim)
    labels : mapping of split to ndarray of int, shape (n_samples, n_labels)
    n_classes : int
    task : Task
    device : str
    """

    embeddings: Mapping[Split, np.ndarray]
    labels: Mapping[Split, np.ndarray]
    n_classes: int
    task: Task
    device: str = "cpu"

    @property
    def multi_label(self) -> bool:
        """Whether several labels may hold."""
        return self.task == MULTI_LABEL

    def accuracy(self, split: Split, scores: np.ndarray, rows: Any = slice(None)) -> float:
        """Score some rows' predictions as every run is scored."""
        return accuracy(self.labels[split][rows], scores, self.task)


@dataclass(frozen=True)
class Point:
    """One head on one subset.

    Attributes
    ----------
    backbone : str
    protocol : {"probe", "knn"}
    amount : Amount
    episode, seed : int
        Which subset, and which initial weights and order of rows; kNN has no seed.
    lr, k
        What was chosen.
    val_acc, test_acc : float
        Fractions.
    rows : ndarray of int64
        The rows learned from: of train, or with folds of train, val and test one after the other.
    repeat, fold : int or None
        Which dealing out, and which of its folds.
    """

    backbone: str
    protocol: str
    amount: Amount
    episode: int
    seed: int | None
    lr: float | None
    k: int | None
    val_acc: float
    test_acc: float
    rows: np.ndarray
    repeat: int | None = None
    fold: int | None = None

    @property
    def draw(self) -> tuple[int, ...]:
        """What intervals are over: the episode, or the fold, whose episodes are averaged."""
        if self.repeat is None or self.fold is None:
            return (self.episode,)
        return self.repeat, self.fold

    def to_dict(self) -> dict[str, Any]:
        """Return the point for JSON; `fraction` and `k` only where they are its own."""
        own: dict[str, Any] = {"backbone": self.backbone, "protocol": self.protocol}
        own["shots"] = self.amount.shots
        if self.amount.fraction is not None:
            own["fraction"] = self.amount.fraction
        if self.fold is not None:
            own |= {"repeat": self.repeat, "fold": self.fold}
        own |= {"episode": self.episode, "seed": self.seed, "lr": self.lr}
        if self.k is not None:
            own["k"] = self.k
        return own | {
            "val_acc": self.val_acc,
            "test_acc": self.test_acc,
            "rows": self.rows.tolist(),
        }


def inner_folds(
    labels: np.ndarray, multi_label: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds within a subset: five, or as many as its smallest class has images.

    Parameters
    ----------
    labels : ndarray of int, shape (n_rows, n_labels)

    Returns
    -------
    list of (kept, held)
        scikit-learn's `StratifiedKFold`, or `KFold` of multi-label data, shuffled with 0.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    n, blank = len(labels), np.zeros(len(labels))
    if multi_label:
        return list(KFold(min(_FOLDS, n), shuffle=True, random_state=0).split(blank))
    counts = np.unique(labels[:, 0], return_counts=True)[1]
    folds = StratifiedKFold(min(_FOLDS, int(counts.min())), shuffle=True, random_state=0)
    return list(folds.split(blank, labels[:, 0]))
