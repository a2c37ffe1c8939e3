"""One class against the rest at a threshold: sensitivity, specificity and predictive values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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
        With Wilson's interval [1]_.
    ppv, npv : Estimate
        Positive and negative predictive value: at the samples' own prevalence with Wilson's
        interval, at another one as `predictive_values` gives them.

    References
    ----------
    .. [1] Brown, Cai & DasGupta: Interval estimation for a binomial proportion. Statistical Science
       16, 101-133 (2001).
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

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    >>> called = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    >>> point = operating_point(target, called)
    >>> point.sensitivity.value, point.ppv.value
    (0.75, 0.75)
    >>> round(operating_point(target, called, prevalence=0.02).ppv.value, 3)
    0.058
    """
    tp, fp = int((target & called).sum()), int((~target & called).sum())
    fn, tn = int((target & ~called).sum()), int((~target & ~called).sum())
    if prevalence is None:
        ppv, npv = proportion(tp, tp + fp), proportion(tn, tn + fn)
    else:
        ppv, npv = predictive_values(tp, fp, tn, fn, prevalence)
    return OperatingPoint(
        tp,
        fp,
        tn,
        fn,
        threshold,
        float(target.mean()) if prevalence is None else prevalence,
        proportion(tp, tp + fn),
        proportion(tn, tn + fp),
        ppv,
        npv,
    )


def proportion(hits: int, n: int) -> Estimate:
    """Return a share with Wilson's interval; undefined for none of none."""
    from statsmodels.stats.proportion import proportion_confint

    if n == 0:
        return UNDEFINED
    low, high = proportion_confint(hits, n, method="wilson")
    return Estimate(hits / n, float(low), float(high))


def predictive_values(
    tp: int, fp: int, tn: int, fn: int, prevalence: float
) -> tuple[Estimate, Estimate]:
    r"""Return PPV and NPV at a prevalence that is not the samples' own.

    .. math:: \frac{\mathrm{PPV}}{1-\mathrm{PPV}}
        = \frac{\mathrm{Se}}{1-\mathrm{Sp}}\,\frac{\pi}{1-\pi}

    so that the interval is that of a ratio of two shares, and NPV alike. It comes from Wilson's
    intervals of both (MOVER-R) [1]_, and also holds where a share is 0 or 1, where the usual logit
    interval fails.

    Parameters
    ----------
    tp, fp, tn, fn : int
    prevalence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    ppv, npv : Estimate
        Undefined where there are no positives or no negatives; each also where nobody is called
        so.

    References
    ----------
    .. [1] Newcombe: MOVER-R confidence intervals for ratios and products of two independently
       estimated quantities. Statistical Methods in Medical Research 25, 1774-1778 (2016).
    """
    if not (tp + fn and tn + fp):
        return UNDEFINED, UNDEFINED
    odds = prevalence / (1 - prevalence)
    called, others = proportion(tp, tp + fn), proportion(fp, fp + tn)
    ppv = _at_odds(called, others, odds) if tp + fp else UNDEFINED
    called, others = proportion(tn, tn + fp), proportion(fn, fn + tp)
    npv = _at_odds(called, others, 1 / odds) if tn + fn else UNDEFINED
    return ppv, npv


def _at_odds(right: Estimate, wrong: Estimate, odds: float) -> Estimate:
    """Return the share that is right of those called so.

    `right` and `wrong` are the shares called so, of those who are and of those who are not; `odds`
    are those of being so.
    """
    both = right.value * wrong.value
    # Twice the share less an end, times the end, stands for the square of what lies beyond it.
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
    >>> import numpy as np
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
