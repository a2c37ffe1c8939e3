"""Shortcuts: how well facts that are no medicine predict the label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from medplus.auditing.facts import Facts
from medplus.auditing.pool import Pool
from medplus.metrics import score

_DEPTH, _LEAST_LEAF = 4, 0.02
TOGETHER = "all of these together"


@dataclass(frozen=True)
class Shortcut:
    """What one kind of fact tells of the label.

    Attributes
    ----------
    name : str
    auc : float
        Out of fold, over all classes; chance is 0.5.
    low, high : float
        Its 95 % interval.
    """

    name: str
    auc: float
    low: float
    high: float

    @property
    def usable(self) -> bool:
        """Whether a network could cheat by it: above chance by more than the interval."""
        return self.low > 0.5


def find_shortcuts(pool: Pool, facts: Facts, fold: np.ndarray) -> list[Shortcut]:
    """Predict the label by a small tree on each kind of fact, and on all.

    Parameters
    ----------
    fold : ndarray of int64, shape (n,)
        The fold that each image is held out in.
    """
    columns = dict(facts.groups)
    if len(columns) > 1:
        columns[TOGETHER] = np.concatenate(list(facts.groups.values()), axis=1)
    found = []
    for name, values in columns.items():
        scores = score(pool.labels, _predict(pool, values, fold), pool.task)
        if scores.auc_ci95 is not None:
            found.append(Shortcut(name, scores.auc_present, *scores.auc_ci95))
    return sorted(found, key=lambda one: -one.auc)


def _predict(pool: Pool, values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return out-of-fold probabilities of a small tree, shape (n, n_classes)."""
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=_DEPTH, min_samples_leaf=_LEAST_LEAF, class_weight="balanced", random_state=0
    )
    predict = partial(
        cross_val_predict, tree, values, cv=PredefinedSplit(fold), method="predict_proba"
    )
    probabilities = np.zeros((len(pool), len(pool.classes)), np.float32)
    if not pool.multi_label:
        probabilities[:, np.unique(pool.strata)] = predict(pool.strata)
        return probabilities
    for at, labels in enumerate(pool.labels.T):
        if labels.any():
            probabilities[:, at] = predict(labels)[:, -1]
    return probabilities
