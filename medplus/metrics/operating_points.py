"""One class against the rest at a threshold: sensitivity, specificity and predictive values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medplus.metrics.intervals import proportion_interval


class Estimate(NamedTuple):
    """A number with its 95 % interval; all three are NaN where it is not defined."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any] | None:
        """Return it as JSON has it; None where it is not defined."""
        if math.isnan(self.value):
            return None
        return {"value": self.value, "ci95": [self.low, self.high]}


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class OperatingPoint:
    """What calling some samples positive amounts to.

    Attributes
    ----------
    tp, fp, tn, fn : int
        Samples that are true or false, positive or negative.
    threshold : float
        The score from which on a sample was called positive; NaN where something else decided, and
        infinite where none was.
    prevalence : float
        The one that the predictive values are for.
    sensitivity, specificity : Estimate
        With intervals as `share` has them.
    ppv, npv : Estimate
        Positive and negative predictive value: at the samples' own prevalence as other shares, at
        another one as `predictive_values` gives them.
    """

    tp: int
    fp: int
    tn: int
    fn: int
    threshold: float
    prevalence: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; a threshold that is no number is None."""
        rates = {name: getattr(self, name).to_dict() for name in RATES}
        threshold = self.threshold if math.isfinite(self.threshold) else None
        counts = {name: getattr(self, name) for name in ("tp", "fp", "tn", "fn")}
        return {**counts, "threshold": threshold, "prevalence": self.prevalence, **rates}


RATES = ("sensitivity", "specificity", "ppv", "npv")


def operating_point(
    target: NDArray[np.bool_],
    called: NDArray[np.bool_],
    prevalence: float | None = None,
    threshold: float = math.nan,
    groups: NDArray[Any] | None = None,
) -> OperatingPoint:
    """Compare who was called positive with who is.

    Parameters
    ----------
    target, called : ndarray of bool, shape (n_samples,)
    prevalence : float, optional
        Of the population that the predictive values are for, between 0 and 1; by default the
        samples' own.
    threshold : float, optional
        That called them.
    groups : ndarray of shape (n_samples,), optional
        What samples belong to, such as patients.

    Examples
    --------
    >>> target = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    >>> called = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    >>> point = operating_point(target, called)
    >>> point.sensitivity.value, point.ppv.value
    (0.75, 0.75)
    >>> round(operating_point(target, called, prevalence=0.02).ppv.value, 3)
    0.058
    """

    def of(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Estimate:
        return share(hits[among], None if groups is None else groups[among])

    sensitivity, specificity = of(called, target), of(~called, ~target)
    if prevalence is None:
        ppv, npv = of(target, called), of(~target, ~called)
    else:
        ppv, npv = predictive_values(sensitivity, specificity, prevalence)
    return OperatingPoint(
        tp=int((target & called).sum()),
        fp=int((~target & called).sum()),
        tn=int((~target & ~called).sum()),
        fn=int((target & ~called).sum()),
        threshold=threshold,
        prevalence=float(target.mean()) if prevalence is None else prevalence,
        sensitivity=sensitivity,
        specificity=specificity,
        ppv=ppv,
        npv=npv,
    )


def share(hits: NDArray[np.bool_], groups: NDArray[Any] | None = None) -> Estimate:
    """Return the share of hits with its interval; undefined of none.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_samples,) or (n_samples, n_trials)
    groups : ndarray of shape (n_samples,), optional
        What samples belong to, such as patients.

    Examples
    --------
    >>> [round(number, 3) for number in share(np.arange(40) < 30)]
    [0.75, 0.598, 0.858]
    """
    if not len(hits):
        return UNDEFINED
    table = hits.reshape(len(hits), -1)
    return Estimate(float(table.mean()), *proportion_interval(table, groups))


def predictive_values(
    sensitivity: Estimate, specificity: Estimate, prevalence: float
) -> tuple[Estimate, Estimate]:
    r"""Return PPV and NPV at a prevalence that is not the samples' own.

    .. math:: \frac{\mathrm{PPV}}{1-\mathrm{PPV}}
        = \frac{\mathrm{Se}}{1-\mathrm{Sp}}\,\frac{\pi}{1-\pi}

    so that the interval is that of a ratio of two shares, and NPV alike. It is made of the
    intervals of both (MOVER-R) [1]_, and also holds where a share is 0 or 1, where the usual logit
    interval fails.

    Parameters
    ----------
    sensitivity, specificity : Estimate
    prevalence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    ppv, npv : Estimate
        Undefined where sensitivity or specificity is; each also where nobody is called so.

    References
    ----------
    .. [1] Newcombe: MOVER-R confidence intervals for ratios and products of two independently
       estimated quantities. Statistical Methods in Medical Research 25, 1774-1778 (2016).
    """
    odds = prevalence / (1 - prevalence)
    ppv = _at_odds(sensitivity, _complement(specificity), odds)
    return ppv, _at_odds(specificity, _complement(sensitivity), 1 / odds)


def _complement(one: Estimate) -> Estimate:
    return Estimate(1 - one.value, 1 - one.high, 1 - one.low)


def _at_odds(right: Estimate, wrong: Estimate, odds: float) -> Estimate:
    """Return the share that is right of those called so.

    `right` and `wrong` are the shares called so, of those who are and of those who are not; `odds`
    are those of being so.
    """
    if not right.value + wrong.value > 0:  # nobody, or not known
        return UNDEFINED
    both = right.value * wrong.value
    least, most = (end * (2 * right.value - end) for end in (right.low, right.high))
    below, above = (end * (2 * wrong.value - end) for end in (wrong.low, wrong.high))
    low = least / (both + math.sqrt(max(both**2 - least * above, 0))) if least > 0 else 0.0
    high = (both + math.sqrt(max(both**2 - most * below, 0))) / below if below > 0 else math.inf
    ratio = right.value / wrong.value if wrong.value else math.inf
    return Estimate(*(1 / (1 + 1 / (r * odds)) if r else 0.0 for r in (ratio, low, high)))


def threshold_at(
    target: NDArray[np.bool_], score: NDArray[np.float64], rate: str, least: float
) -> float:
    """Return the threshold that keeps one rate and makes the other as high as it can be.

    Parameters
    ----------
    target : ndarray of bool, shape (n_samples,)
        With positives and negatives.
    score : ndarray of float, shape (n_samples,)
        A sample is called positive where its score is at least the threshold.
    rate : {"sensitivity", "specificity"}
    least : float
        The least that this rate may be.

    Returns
    -------
    float
        One of the scores; infinite where only calling nobody positive is specific enough.

    Examples
    --------
    >>> target, score = np.array([False, False, True, True]), np.array([0.1, 0.6, 0.5, 0.9])
    >>> threshold_at(target, score, "specificity", 0.9)
    0.9
    >>> threshold_at(target, score, "sensitivity", 0.9)
    0.5
    """
    from sklearn.metrics import roc_curve

    fpr, tpr, thresholds = roc_curve(target, score, drop_intermediate=False)
    # Thresholds fall, so that sensitivity rises and specificity falls along the curve.
    slack = 1e-12
    if rate == "sensitivity":
        return float(thresholds[np.flatnonzero(tpr >= least - slack)[0]])
    allowed = np.flatnonzero(1 - fpr >= least - slack)
    # Of those that reach the highest sensitivity, the first leaves out the most negatives.
    return float(thresholds[np.flatnonzero(tpr == tpr[allowed[-1]])[0]])
