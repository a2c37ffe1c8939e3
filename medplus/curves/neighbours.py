"""kNN on subsets of train, its k chosen without a look at test."""

from __future__ import annotations

import numpy as np

from medplus.curves.points import Data, Point, Subsets, Tune, inner_folds
from medplus.heads.knn.search import search
from medplus.heads.knn.vote import vote_shares
from medplus.progress import Advance

NEIGHBOURS = (1, 3, 5, 7, 11, 15, 21)
"""Numbers of neighbours that kNN chooses from, as far as there are so many rows."""


def knn_points(
    data: Data, backbone: str, subsets: Subsets, tune: Tune, advance: Advance
) -> list[Point]:
    """Classify by the nearest rows of every subset; k is chosen as the learning rate of probes is.

    By val accuracy, or with ``tune="shots"`` by accuracy over the folds within the subset; of equal
    ones the smallest.
    """
    queries = np.concatenate([data.embeddings["val"], data.embeddings["test"]])
    boundary = len(data.embeddings["val"])
    points = []
    for (episode, amount), rows in subsets.items():
        shares = _shares(data, rows, queries)
        val = {k: data.accuracy("val", share[:boundary]) for k, share in shares.items()}
        merit = val if tune == "val" else _fold_accuracy(data, rows)
        k = max(merit, key=lambda one: (merit[one], -one))
        test = data.accuracy("test", shares[k][boundary:])
        points.append(
            Point(backbone, "knn", amount, episode, None, None, k, val[k], test, rows)
        )  # fmt: skip
        advance(1)
    return points


def _shares(data: Data, rows: np.ndarray, queries: np.ndarray) -> dict[int, np.ndarray]:
    """Return the vote shares of every k, from one search."""
    ks = [k for k in NEIGHBOURS if k <= len(rows)]
    found = search(data.embeddings["train"][rows], queries, ks[-1], device=data.device)
    labels = data.labels["train"][rows]
    return {
        k: vote_shares(
            labels, found.indices[:, :k], found.distances[:, :k], data.n_classes,
            multi_label=data.multi_label,
        )
        for k in ks
    }  # fmt: skip


def _fold_accuracy(data: Data, rows: np.ndarray) -> dict[int, float]:
    """Return the mean accuracy over the folds of every k that all folds have rows for."""
    folds = inner_folds(data.labels["train"][rows], data.multi_label)
    found = []
    for kept, held in folds:
        shares = _shares(data, rows[kept], data.embeddings["train"][rows[held]])
        found.append({k: data.accuracy("train", s, rows[held]) for k, s in shares.items()})
    common = set.intersection(*(set(one) for one in found))
    return {k: float(np.mean([one[k] for one in found])) for k in sorted(common)}
