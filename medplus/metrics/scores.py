"""All metrics of one split at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from medplus.errors import RunError
from medplus.metrics.bootstrap import affordable_resamples, percentile_interval, replicates
from medplus.metrics.calibration import ece
from medplus.metrics.decisions import accuracy, balanced_accuracy, macro_f1, qwk
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
    acc_ci95, auc_ci95 : tuple of float or None
        Percentile bootstrap intervals; None without resamples, or without any defined AUC. A
        resample's AUC is the mean over the classes present in it, so where classes are missing
        the interval belongs to `auc_present`.
    n_bootstrap : int
        Number of resamples.
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
    qwk: float | None = None
    map: float | None = None
    acc_ci95: tuple[float, float] | None = None
    auc_ci95: tuple[float, float] | None = None
    n_bootstrap: int = 0
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
        if self.acc_ci95 is not None:
            record["acc_ci95"] = list(self.acc_ci95)
        if self.auc_ci95 is not None:
            record["auc_ci95"] = list(self.auc_ci95)
        record |= {"n": self.n, "n_bootstrap": self.n_bootstrap}
        if self.missing_classes:
            record["missing_classes"] = list(self.missing_classes)
            record["auc_present"] = _finite(self.auc_present)
        return record


def score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    task: Task,
    *,
    bootstrap: int | None = 1000,
    seed: int = 0,
) -> Scores:
    """Compute every metric that the task has, with bootstrap confidence intervals.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), (n_samples, 1) or (n_samples, n_labels)
        Integer labels, as MedMNIST stores them.
    y_score : array-like of float, shape (n_samples, n_classes) or (n_samples, n_labels)
        Probabilities; for the binary task the last column counts, and one column or a vector
        will do.
    task : Task
        MedMNIST's task type.
    bootstrap : int or None, default 1000
        Number of resamples; 0 for no intervals, None for as many (200 to 1000) as can be scored
        in around a second.
    seed : int, default 0
        Seed of the resamples; heads scored with one seed share them.

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
    >>> result = score([0, 1, 1], [0.2, 0.9, 0.4], "binary-class", bootstrap=0)
    >>> round(result.acc, 3), result.auc
    (0.667, 1.0)
    """
    cases = check(y_true, y_score, task)
    n_resamples = affordable_resamples(*cases.targets.shape) if bootstrap is None else bootstrap
    if n_resamples < 0 or seed < 0:
        raise RunError(f"bootstrap={bootstrap} and seed={seed} must not be negative.")
    resampled = replicates(cases, n_resamples, seed) if n_resamples else None
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
        acc_ci95=percentile_interval(resampled.acc) if resampled else None,
        auc_ci95=percentile_interval(resampled.auc) if resampled else None,
        n_bootstrap=n_resamples,
        missing_classes=cases.missing_classes,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
