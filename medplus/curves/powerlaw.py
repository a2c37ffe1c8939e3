"""A power law through a learning curve: how many labels a target would need, or why nobody knows.

The error falls as ``asymptote + scale · n ** -exponent`` [1]_ [2]_. For a given exponent that is
linear with two coefficients that must not be negative, so the fit goes through a grid of exponents
and needs no starting values; all resamples are fitted at once.

References
----------
.. [1] Hestness et al., "Deep learning scaling is predictable, empirically", arXiv:1712.00409.
.. [2] Cortes et al., "Learning curves: asymptotic values and rate of convergence", NIPS 1993.
.. [3] Cochran, "Sampling techniques", 3rd ed., Wiley 1977, section 2.6.
.. [4] Nadeau & Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

RESAMPLES = 1000
LEAST_SIZES = 4
FARTHEST = 10.0
"""How many times the largest measured number of labels a fit is trusted for."""
_EXPONENTS = np.geomspace(0.02, 4.0, 400)
_AGREE = 0.005  # accuracies so close are no disagreement, however narrow their intervals
_FLOOR = 1e-3  # of a standard error: an error of 0 in every episode is no certainty


@dataclass(frozen=True)
class PowerLaw:
    """A fitted curve, and what it says of a target.

    Attributes
    ----------
    asymptote, scale, exponent : float
        Of the error, a fraction.
    target : float
        The accuracy that is wanted.
    labels : float or None
        Train images that reach it; None where the fit does not carry an answer.
    labels_ci95 : (float, float or None) or None
        Percentile interval over resampled episodes; None as upper end: without bound.
    refused : str or None
        Why there is no answer.
    """

    asymptote: float
    scale: float
    exponent: float
    target: float
    labels: float | None = None
    labels_ci95: tuple[float, float | None] | None = None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; without a fit its numbers are None."""
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(self).items()
        }

    def error(self, n: np.ndarray) -> np.ndarray:
        """Return the fitted error at these numbers of labels."""
        return self.asymptote + self.scale * np.asarray(n, float) ** -self.exponent


def fit_power_law(
    n: np.ndarray, errors: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit many curves by weighted least squares.

    Parameters
    ----------
    n : ndarray, shape (n_sizes,)
        Numbers of labels.
    errors : ndarray of float, shape (n_curves, n_sizes)
    weights : ndarray of float, shape (n_sizes,)
        Inverse variances.

    Returns
    -------
    asymptote, scale, exponent : ndarray of float, shape (n_curves,)

    Examples
    --------
    >>> n = np.array([10, 30, 100, 300])
    >>> a, b, c = fit_power_law(n, (0.1 + 0.8 * n**-0.5)[None], np.ones(4))
    >>> np.round([a[0], b[0], c[0]], 2).tolist()
    [0.1, 0.8, 0.5]
    """
    basis = (n[None] / n[0]) ** -_EXPONENTS[:, None]  # (n_exponents, n_sizes); 1 at the first size
    w = weights / weights.sum()
    mean_basis, mean_error = basis @ w, errors @ w
    # Least squares with an intercept; where that is negative, without one; never a rising curve.
    spread = (basis**2) @ w - mean_basis**2
    slope = (errors * w) @ basis.T - mean_error[:, None] * mean_basis
    slope = np.maximum(slope / spread, 0)
    asymptote = mean_error[:, None] - slope * mean_basis
    through_zero = np.maximum((errors * w) @ basis.T / ((basis**2) @ w), 0)
    negative = asymptote < 0
    slope = np.where(negative, through_zero, slope)
    asymptote = np.where(negative, 0, asymptote)
    fitted = asymptote[..., None] + slope[..., None] * basis
    loss = (((fitted - errors[:, None]) ** 2) * w).sum(2)
    best = loss.argmin(1)
    at = np.arange(len(errors)), best
    exponent = _EXPONENTS[best]
    return asymptote[at], slope[at] * float(n[0]) ** exponent, exponent


def labels_for(
    error: float, asymptote: np.ndarray, scale: np.ndarray, exponent: np.ndarray
) -> np.ndarray:
    """Return how many labels bring the error down to a value; infinite where none do."""
    room = error - asymptote
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = (scale / room) ** (1 / exponent)
    return np.where(room > 0, found, np.inf)


def extrapolate(
    n: np.ndarray,
    accuracies: np.ndarray,
    target: float,
    n_test: int,
    factor: np.ndarray,
) -> PowerLaw:
    """Fit a learning curve and say how many labels a target would need, or refuse.

    The answer is refused if there are fewer than four sizes or three episodes, if the error does
    not fall, if the curve through all sizes but the largest does not foretell the largest within
    the two intervals, if the target lies beyond the fitted asymptote, or if it lies beyond ten
    times the largest measured size.

    Parameters
    ----------
    n : ndarray of int, shape (n_sizes,)
        Train images at each size, ascending.
    accuracies : ndarray of float, shape (n_episodes, n_sizes)
    target : float
        An accuracy.
    n_test : int
        Test images: their number bounds how well any accuracy is known.
    factor : ndarray of float, shape (n_sizes,)
        By how much spread over episodes falls short; see `inflation`.
    """
    errors = 1 - accuracies
    mean = errors.mean(0)
    episodes = len(errors)
    if len(n) < LEAST_SIZES or episodes < 3:
        said = f"a fit needs {LEAST_SIZES} sizes and 3 episodes, not {len(n)} and {episodes}"
        return PowerLaw(np.nan, np.nan, np.nan, target, refused=said)
    weights = _deviation(errors, factor) ** -2.0
    resampled = _resample(errors, factor)
    fit = fit_power_law(n, mean[None], weights)
    asymptote, scale, exponent = (float(own[0]) for own in fit)
    law = PowerLaw(asymptote, scale, exponent, target)
    answer = float(labels_for(1 - target, *fit)[0])
    answers = labels_for(1 - target, *fit_power_law(n, resampled, weights))
    low, high = (float(v) for v in np.quantile(answers, (0.025, 0.975), method="inverted_cdf"))
    why = _refusal(law, n, resampled, weights, mean, answer, n_test)
    if why:
        return replace(law, refused=why)
    return replace(law, labels=answer, labels_ci95=(low, high if np.isfinite(high) else None))


def inflation(n: np.ndarray, stock: int, episodes: int) -> np.ndarray:
    """Return the factor by which a standard error over episodes falls short.

    Episodes draw from one stock, so that they share images, and their mean tends to that stock's
    value instead of the population's. Of a mean over `n` of `stock` images the variance between
    draws is S² (1/n - 1/stock) [3]_, and that of the mean of R draws S² / stock more than 1/R of
    it: the factor is √(1 + R f / (1 - f)) with f = n / stock, as in the correction for folds that
    share training images [4]_. Infinite where all of the stock is drawn.
    """
    share = np.minimum(np.asarray(n) / stock, 1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(1 + episodes * share / (1 - share)))


def _deviation(errors: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean at each size; where all is drawn, by that before."""
    episodes = len(errors)
    drawn = np.isfinite(factor)
    found = np.zeros(len(factor))
    found[drawn] = errors.std(0, ddof=1)[drawn] / np.sqrt(episodes) * factor[drawn]
    if drawn.any() and not drawn.all():
        last = np.flatnonzero(drawn)[-1]
        shared = (factor[last] ** 2 - 1) / episodes
        found[~drawn] = errors[:, last].std(ddof=1) * np.sqrt(shared)
    return np.maximum(found, _FLOOR)


def _resample(errors: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return means over resampled episodes, shape (n_resamples, n_sizes).

    What resampling cannot show, the stock's own chance, is drawn from a normal distribution.
    """
    rng = np.random.default_rng(0)
    episodes = len(errors)
    means = errors[rng.integers(0, episodes, (RESAMPLES, episodes))].mean(1)
    within = errors.std(0, ddof=1) / np.sqrt(episodes)
    missing = np.sqrt(np.maximum(_deviation(errors, factor) ** 2 - within**2, 0))
    return np.asarray(means + missing * rng.normal(size=(RESAMPLES, 1)))


def _refusal(
    law: PowerLaw,
    n: np.ndarray,
    resampled: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    answer: float,
    n_test: int,
) -> str | None:
    first, last = law.error(n[[0, -1]])
    if not first - last > 1 / n_test:
        return "the error does not fall with more labels"
    asymptote, scale, exponent = fit_power_law(n[:-1], resampled[:, :-1], weights[:-1])
    foretold = asymptote + scale * float(n[-1]) ** -exponent
    foretold_low, foretold_high = np.quantile(foretold, (0.025, 0.975))
    low, high = np.quantile(resampled[:, -1], (0.025, 0.975))
    if max(foretold_low - high, low - foretold_high) > max(1 / n_test, _AGREE):
        middle = float(np.median(foretold))
        return (
            f"without its largest size the curve foretells {100 - 100 * middle:.1f} % "
            f"there, and {100 - 100 * mean[-1]:.1f} % was measured"
        )
    if not np.isfinite(answer):
        return f"the fitted curve ends at {100 - 100 * law.asymptote:.1f} %, below the target"
    if answer > FARTHEST * n[-1]:
        return f"the target lies beyond {FARTHEST:g} times the {n[-1]:,} labels that were measured"
    return None
