"""Do the splits come from one place? A classifier two-sample test for every pair of them.

References
----------
.. [1] Lopez-Paz & Oquab: Revisiting classifier two-sample tests. ICLR 2017. arXiv:1610.06545
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medplus.auditing.pool import Pool
from medplus.vocabulary import SPLITS, Split

_MOST = 2000
_FEWEST = 8


@dataclass(frozen=True)
class Shift:
    """The test of one pair of splits.

    Attributes
    ----------
    first, second : Split
    auc : float
        How well a linear classifier tells held-out images of the two apart; 0.5 is not at all.
    p_value : float
        Of an AUC as high by chance, by Mann and Whitney's test.
    n : int
        Held-out images.
    """

    first: Split
    second: Split
    auc: float
    p_value: float
    n: int


def find_shifts(pool: Pool, features: np.ndarray, together: np.ndarray) -> list[Shift]:
    """Test every pair of splits; those of fewer than 8 images are left out.

    Parameters
    ----------
    features : ndarray of float32, shape (n, dim)
    together : ndarray of int, shape (n,)
        Images of one number are drawn once, so that twins and patients do not count as many.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pool))
    single = np.sort(order[np.unique(together[order], return_index=True)[1]])
    tests = []
    for first, second in combinations(range(len(SPLITS)), 2):
        rows = [
            rng.permutation(single[pool.split[single] == split])[:_MOST]
            for split in (first, second)
        ]
        if min(map(len, rows)) >= _FEWEST:
            auc, p_value, n = two_sample(features[rows[0]], features[rows[1]])
            tests.append(Shift(SPLITS[first], SPLITS[second], auc, p_value, n))
    return tests


def two_sample(first: np.ndarray, second: np.ndarray) -> tuple[float, float, int]:
    """Return the AUC of a classifier on held-out halves, its p, and their size.

    The classifier never sees the held-out half, so that exchanging its members' origins is an exact
    test [1]_: on ranks that is Mann and Whitney's.

    Parameters
    ----------
    first, second : ndarray of float, shape (n, dim)
    """
    from scipy.stats import mannwhitneyu
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = np.concatenate([first, second])
    y = np.repeat([0, 1], [len(first), len(second)])
    halves = np.concatenate([rng.permutation(n) < n // 2 for n in (len(first), len(second))])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
    )
    scores, truth = model.fit(x[halves], y[halves]).decision_function(x[~halves]), y[~halves]
    test = mannwhitneyu(scores[truth == 1], scores[truth == 0], alternative="greater")
    pairs = int(truth.sum()) * int((1 - truth).sum())
    return float(test.statistic) / pairs, float(test.pvalue), len(truth)
