"""DeLong's test for two AUCs of the same samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medplus.errors import RunError
from medplus.metrics.operating_points import Estimate
from medplus.metrics.ranking import placements


@dataclass(frozen=True)
class AucDifference:
    """The first of two AUCs less the second, on the same samples.

    Attributes
    ----------
    difference : Estimate
        With Wald's interval.
    p_value : float
        Two-sided; 1 where both scores order the samples alike.
    """

    difference: Estimate
    p_value: float


def compare_aucs(
    target: NDArray[np.bool_], first: NDArray[np.float64], second: NDArray[np.float64]
) -> AucDifference:
    """Test whether two scores of the same samples have the same AUC [1]_.

    The AUC is the mean of the positives' placements and of the negatives' alike, so that the
    variance of a difference is that of the samples' differences in placement, by ranks [2]_ in
    O(n log n).

    Parameters
    ----------
    target : ndarray of bool, shape (n_samples,)
    first, second : ndarray of float, shape (n_samples,)

    Raises
    ------
    RunError
        If there are fewer than two positives or negatives.

    References
    ----------
    .. [1] DeLong, DeLong & Clarke-Pearson: Comparing the areas under two or more correlated
       receiver operating characteristic curves: a nonparametric approach. Biometrics 44, 837-845
       (1988).
    .. [2] Sun & Xu: Fast implementation of DeLong's algorithm for comparing the areas under
       correlated receiver operating characteristic curves. IEEE Signal Processing Letters 21,
       1389-1393 (2014).

    Examples
    --------
    >>> target = np.array([True, True, True, False, False, False])
    >>> first = np.array([0.9, 0.8, 0.4, 0.5, 0.2, 0.1])
    >>> second = np.array([0.9, 0.3, 0.2, 0.5, 0.4, 0.1])
    >>> found = compare_aucs(target, first, second)
    >>> round(found.difference.value, 3), round(found.p_value, 3)
    (0.333, 0.221)
    """
    from scipy.stats import norm

    m, n = int(target.sum()), int((~target).sum())
    if min(m, n) < 2:
        raise RunError(
            f"there are {m} positives and {n} negatives; DeLong's variance needs two of each"
        )
    gaps = placements(target, first) - placements(target, second)
    value = float(gaps[target].mean())
    spread = math.sqrt(gaps[target].var(ddof=1) / m + gaps[~target].var(ddof=1) / n)
    z = value / spread if spread > 0 else math.copysign(math.inf, value) if value else 0.0
    reach = float(norm.isf(0.025)) * spread
    return AucDifference(
        Estimate(value, max(value - reach, -1.0), min(value + reach, 1.0)),
        float(2 * norm.sf(abs(z))),
    )
