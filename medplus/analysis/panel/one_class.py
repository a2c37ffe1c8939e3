"""One class against the rest, or one label: its operating points, curves and probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.errors import RunError
from medplus.metrics import Predictions, auc_interval, auc_present, check
from medplus.metrics.calibration import Reliability, reliability
from medplus.metrics.decision_curve import net_benefit
from medplus.metrics.operating_points import (
    UNDEFINED,
    Estimate,
    OperatingPoint,
    operating_point,
    threshold_at,
)
from medplus.metrics.ranking import average_precision
from medplus.vocabulary import MULTI_LABEL

AS_PREDICTED = "as predicted"
TARGETS = (("specificity", 0.9), ("specificity", 0.95), ("sensitivity", 0.9), ("sensitivity", 0.95))
"""Rates that a threshold is chosen for on val; the other rate is then what it costs."""

FEWEST = 10
"""Positives and negatives of val below which no threshold is chosen."""
THRESHOLDS: NDArray[np.float64] = np.arange(0.0, 0.991, 0.01)
"""The threshold probabilities of a decision curve."""


@dataclass(frozen=True, eq=False)
class ClassPanel:
    """One class against the rest, or one label, on the test images.

    Attributes
    ----------
    name : str
        Of the class that counts as positive.
    target : ndarray of bool, shape (n_test,)
        Which images are of it.
    score : ndarray of float64, shape (n_test,)
        Its predicted probability.
    scaled : ndarray of float64, shape (n_test,), or None
        The same at the temperature that val asks for; None without val.
    points : mapping of str to OperatingPoint
        What calling images positive amounts to: as the run predicts, and at thresholds that keep a
        rate on val.
    auc : Estimate
    average_precision : float
    """

    name: str
    target: NDArray[np.bool_]
    score: NDArray[np.float64]
    scaled: NDArray[np.float64] | None
    points: Mapping[str, OperatingPoint]
    auc: Estimate
    average_precision: float

    @property
    def n_positive(self) -> int:
        """Images of the class."""
        return int(self.target.sum())

    @property
    def defined(self) -> bool:
        """Whether there are images of it and others."""
        return 0 < self.n_positive < len(self.target)

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return 1 − specificity and sensitivity at every threshold."""
        from sklearn.metrics import roc_curve

        fpr, tpr, _ = roc_curve(self.target, self.score)
        return fpr, tpr

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return recall, which is sensitivity, and precision, PPV, at every threshold."""
        from sklearn.metrics import precision_recall_curve

        precision, recall, _ = precision_recall_curve(self.target, self.score)
        return recall, precision

    def reliability(self, *, scaled: bool = False) -> Reliability:
        """Return how often its probabilities come true."""
        return reliability(self.target, self.probability(scaled))

    def net_benefit(self, *, scaled: bool = False) -> NDArray[np.float64]:
        """Return the decision curve at `THRESHOLDS`."""
        return net_benefit(self.target, self.probability(scaled), THRESHOLDS)

    def probability(self, scaled: bool) -> NDArray[np.float64]:
        """Return `score`, or `scaled`."""
        if not scaled:
            return self.score
        if self.scaled is None:
            raise RunError("there are no predictions of val to fit a temperature on")
        return self.scaled

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        precision = self.average_precision
        return {
            "class": self.name,
            "n_positive": self.n_positive,
            "auc": self.auc.to_dict(),
            "average_precision": None if math.isnan(precision) else precision,
            "points": [
                {"decision": name, **point.to_dict()} for name, point in self.points.items()
            ],
        }


def class_scores(cases: Predictions) -> NDArray[np.float64]:
    """Return the probability of every class or label, shape (n_samples, n_classes)."""
    if cases.task == "binary-class":
        return np.hstack([1 - cases.scores, cases.scores])
    return cases.scores


def one_against_rest(
    cases: Predictions, i: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Return who is of class `i`, how probable that is, and who is predicted to be."""
    score = class_scores(cases)[:, i]
    if cases.task == MULTI_LABEL:
        return cases.targets[:, i], score, cases.predicted[:, i] == 1
    return cases.true[:, 0] == i, score, cases.predicted[:, 0] == i


def class_panel(
    name: str,
    i: int,
    test: Predictions,
    val: Predictions | None,
    scaled: NDArray[np.float64] | None,
    prevalence: float | None,
    groups: NDArray[Any] | None,
) -> ClassPanel:
    """Return the panel of class `i`: thresholds from val, all else of test."""
    target, score, called = one_against_rest(test, i)
    point = partial(operating_point, target, prevalence=prevalence, groups=groups)
    points = {AS_PREDICTED: point(called)}
    if val is not None:
        known, val_score, _ = one_against_rest(val, i)
        if min(known.sum(), (~known).sum()) >= FEWEST:
            for rate, least in TARGETS:
                threshold = threshold_at(known, val_score, rate, least)
                decision = f"{rate} ≥ {100 * least:.0f} % on val"
                points[decision] = point(score >= threshold, threshold=threshold)
    return ClassPanel(
        name,
        target,
        score,
        None if scaled is None else scaled[:, i],
        points,
        auc_estimate(check(target, score, "binary-class"), groups),
        average_precision(target, score),
    )


def auc_estimate(cases: Predictions, groups: NDArray[Any] | None = None) -> Estimate:
    """Return the mean AUC of the classes that have images and others, with its interval."""
    found = auc_interval(cases, groups)
    if found is None:
        return UNDEFINED
    return Estimate(auc_present(cases.true, cases.scores, cases.task), *found)
