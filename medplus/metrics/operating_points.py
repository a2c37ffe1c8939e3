"""One class against the rest at a threshold: sensitivity, specificity and predictive values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054


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
    r"""Return PPV and NPV at a prevalence that is not the samples' own, with logit intervals [1]_.

    .. math:: \mathrm{logit}\,\mathrm{PPV} = \log\frac{\mathrm{Se}\,\pi}{(1-\mathrm{Sp})(1-\pi)},
        \quad \mathrm{Var} = \frac{1-\mathrm{Se}}{\mathrm{Se}\,n_1}
        + \frac{\mathrm{Sp}}{(1-\mathrm{Sp})\,n_0}

    and NPV alike. Where one of the four counts is zero, the interval is that of the adjusted
    estimates (z²/2 added to every count), widened to hold the value itself.

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
    .. [1] Mercaldo, Lau & Zhou: Confidence intervals for predictive values with an emphasis to
       case-control studies. Statistics in Medicine 26, 2170-2183 (2007).
    """
    if not (tp + fn and tn + fp):
        return UNDEFINED, UNDEFINED
    odds = prevalence / (1 - prevalence)
    ppv = _logit_interval((tp, fn), (fp, tn), odds) if tp + fp else UNDEFINED
    npv = _logit_interval((tn, fp), (fn, tp), 1 / odds) if tn + fn else UNDEFINED
    return ppv, npv


def _logit_interval(right: tuple[int, int], wrong: tuple[int, int], odds: float) -> Estimate:
    """Return the share that is right of those called so.

    `right` and `wrong` count, of those who are so and of those who are not, how many are called so
    and how many not; `odds` are those of being so.
    """
    of_right, of_wrong = right[0] / sum(right), wrong[0] / sum(wrong)
    value = of_right * odds / (of_right * odds + of_wrong)
    added = 0.0 if all((*right, *wrong)) else _Z**2 / 2
    a, b, c, d = (count + added for count in (*right, *wrong))
    logit = math.log(a / (a + b) / (c / (c + d)) * odds)
    spread = _Z * math.sqrt(b / (a * (a + b)) + d / (c * (c + d)))
    low, high = (1 / (1 + math.exp(-end)) for end in (logit - spread, logit + spread))
    return Estimate(value, min(low, value), max(high, value))


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
