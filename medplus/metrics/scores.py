"""All metrics of one split at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medplus.errors import RunError
from medplus.metrics.calibration import ece
from medplus.metrics.decisions import accuracy, balanced_accuracy, macro_f1, qwk
from medplus.metrics.intervals import Interval, acc_interval, auc_interval
from medplus.metrics.predictions import check
from medplus.metrics.ranking import auc_per_class, mean_average_precision, mean_of_defined
from medplus.vocabulary import MULTI_LABEL, Task


@dataclass(frozen=True)
class Scores:
    """Metrics of one split.

    Attributes
    ----------
    n : int
        Number of samples.
    acc, auc : float
        As MedMNIST's evaluator; `auc` is NaN where `missing_classes` is not empty.
    auc_present : float
        AUC over the classes that have positives and negatives; NaN if none has.
    balanced_accuracy, macro_f1, ece : float
        See the functions of the same names.
    qwk : float or None
        Quadratic weighted kappa, for the ordinal task; NaN where undefined.
    map : float or None
        Mean average precision, for the multi-label task; NaN where no label has a positive.
    acc_ci95, auc_ci95 : tuple of float
        95 % intervals over samples, see `medplus.metrics.intervals`. Where classes are missing that
        of the AUC is of `auc_present`, and None if there is none.
    n_groups : int or None
        Groups that the samples were taken in for the intervals, if any.
    missing_classes : tuple of int
        Classes without a sample; for multi-label, labels without a positive or a negative.
    """

    n: int
    acc: float
    auc: float
    auc_present: float
    balanced_accuracy: float
    macro_f1: float
    ece: float
    acc_ci95: Interval
    auc_ci95: Interval | None
    qwk: float | None = None
    map: float | None = None
    n_groups: int | None = None
    missing_classes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the scores for JSON: NaN as None, intervals as lists, absent metrics left out.

        `missing_classes` and `auc_present` are there only if classes are missing.
        """
        record: dict[str, Any] = {
            "acc": self.acc,
            "auc": _finite(self.auc),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
        }
        if self.qwk is not None:
            record["qwk"] = _finite(self.qwk)
        if self.map is not None:
            record["map"] = _finite(self.map)
        record["acc_ci95"] = list(self.acc_ci95)
        record["auc_ci95"] = None if self.auc_ci95 is None else list(self.auc_ci95)
        record["n"] = self.n
        if self.n_groups is not None:
            record["n_groups"] = self.n_groups
        if self.missing_classes:
            record["missing_classes"] = list(self.missing_classes)
            record["auc_present"] = _finite(self.auc_present)
        return record


def score(
    y_true: ArrayLike, y_score: ArrayLike, task: Task, *, groups: ArrayLike | None = None
) -> Scores:
    """Compute every metric that the task has, and the intervals of accuracy and AUC.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), (n_samples, 1) or (n_samples, n_labels)
        Integer labels, as MedMNIST stores them.
    y_score : array-like of float, shape (n_samples, n_classes) or (n_samples, n_labels)
        Probabilities; for the binary task the last column counts, and one column or a vector
        will do.
    task : Task
        MedMNIST's task type.
    groups : array-like of shape (n_samples,), optional
        What each sample belongs to, such as a patient; the intervals are then over groups.

    Returns
    -------
    Scores
        The metrics.

    Raises
    ------
    RunError
        If the arrays do not fit each other or the task, or the scores are not probabilities.

    Examples
    --------
    >>> result = score([0, 1, 1], [0.2, 0.9, 0.4], "binary-class")
    >>> round(result.acc, 3), result.auc
    (0.667, 1.0)
    """
    cases = check(y_true, y_score, task)
    if groups is not None and np.shape(groups) != (cases.n_samples,):
        raise RunError(
            f"groups has shape {np.shape(groups)}; name one group for each of {cases.n_samples} "
            "samples."
        )
    of_classes = auc_per_class(y_true, y_score, task)
    return Scores(
        n=cases.n_samples,
        acc=accuracy(y_true, y_score, task),
        auc=float(of_classes.mean()),
        auc_present=mean_of_defined(of_classes),
        balanced_accuracy=balanced_accuracy(y_true, y_score, task),
        macro_f1=macro_f1(y_true, y_score, task),
        ece=ece(y_true, y_score, task),
        qwk=qwk(y_true, y_score) if task == "ordinal-regression" else None,
        map=mean_average_precision(y_true, y_score) if task == MULTI_LABEL else None,
        acc_ci95=acc_interval(cases, groups),
        auc_ci95=auc_interval(cases, groups),
        n_groups=None if groups is None else len(np.unique(np.asarray(groups))),
        missing_classes=cases.missing_classes,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
