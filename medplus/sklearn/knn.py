"""`medplus.knn` as a classifier of scikit-learn."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from medplus.config import KnnRecipe, make_recipe
from medplus.device import check_device_name
from medplus.heads.knn.backends import check_backend
from medplus.heads.knn.vote import vote_shares
from medplus.sklearn.classifier import HeadClassifier
from medplus.vocabulary import MULTI_LABEL, PAPER_K, Metric, Vote


class KNNProbe(HeadClassifier):
    """Classify by the nearest embeddings, exactly and in a defined order, as `medplus.knn` does.

    Equal distances are ordered by row, equal votes go to the first class: what is predicted depends
    neither on the device nor on the number of threads.

    Parameters
    ----------
    k : int, default=11
        Number of neighbours.
    metric : {"l2", "cosine"}, default="l2"
    vote : {"majority", "distance"}, default="majority"
        Whether every neighbour counts the same, or by 1 / distance.
    backend : {"auto", "faiss", "torch", "bf16"}, default="auto"
        What searches; it decides the speed and nothing else.
    device : str, default="auto"
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Attributes
    ----------
    rows_ : ndarray of float32, shape (n_samples, n_features)
        The embeddings that were given to fit.
    labels_ : ndarray of int64, shape (n_samples, n_labels)
        Their classes, as numbers of `classes_`, or 0 and 1 for each label.
    classes_, task_, n_features_in_
        See `HeadClassifier`.

    Examples
    --------
    >>> head = KNNProbe(k=1).fit([[0.0], [1.0]], ["normal", "malignant"])
    >>> head.predict([[0.2], [0.9]]).tolist()
    ['normal', 'malignant']
    """

    def __init__(
        self,
        k: int = PAPER_K,
        *,
        metric: Metric = "l2",
        vote: Vote = "majority",
        backend: str = "auto",
        device: str = "auto",
    ) -> None:
        self.k = k
        self.metric = metric
        self.vote = vote
        self.backend = backend
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep embeddings, shape (n, dim), and classes, shape (n,), or labels, (n, n_labels).

        Raises
        ------
        ValueError
            If they cannot be used, or are fewer than `k`.
        UsageError
            If a parameter is not allowed.
        """
        make_recipe(KnnRecipe, {"k": (self.k,), "metric": self.metric, "vote": self.vote})
        check_backend(self.backend)
        check_device_name(self.device)
        self.rows_, self.labels_ = self._read(X, y)
        if self.k > len(self.rows_):
            raise ValueError(f"k = {self.k} exceeds n_samples = {len(self.rows_)}; use a smaller k")
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        from medplus.heads.knn.search import search

        found = search(
            self.rows_,
            X,
            self.k,
            metric=self.metric,
            backend=self.backend,
            device=self.device,
            exact_distances=self.vote == "distance",
        )
        return vote_shares(
            self.labels_,
            found.indices,
            found.distances,
            len(self.classes_),
            self.vote,
            multi_label=self.task_ == MULTI_LABEL,
        )
