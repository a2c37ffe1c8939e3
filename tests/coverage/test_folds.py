"""How often intervals over folds hold the mean accuracy that they are about: by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.run.foldmeans import summarise
from medplus.run.folds import Folds, deal

DIM, SHIFT = 10, 0.35
SETTINGS = {"5 folds": Folds(5), "2 × 5 folds": Folds(5, 2), "10 × 5 folds": Folds(5, 10)}


def scores(rng, n, folds):
    """Accuracies over folds of the nearest class mean, on data drawn anew."""
    y = np.repeat([0, 1], n // 2)
    x = rng.normal(size=(n, DIM)) + SHIFT * (2 * y[:, None] - 1)
    found = []
    for repeat in range(folds.repeats):
        dealt = deal(y[:, None], (), folds, repeat + int(rng.integers(1 << 30)), multi_label=False)
        for i, test in enumerate(dealt):
            train = np.concatenate([d for j, d in enumerate(dealt) if j not in (i, (i + 1) % 5)])
            means = np.stack([x[train][y[train] == c].mean(0) for c in (0, 1)])
            far = ((x[test, None] - means) ** 2).sum(2)
            found.append((far.argmin(1) == y[test]).mean())
    return found


def coverage(n, folds, draws=400, seed=0):
    """Return the shares of corrected and of plain intervals that hold the mean over all draws."""
    rng = np.random.default_rng(seed)
    runs = [scores(rng, n, folds) for _ in range(draws)]
    truth = float(np.mean(runs))
    n_train, n_test = 3 * n / 5, n / 5
    shares = []
    for ratio in (n_test, 0.0):
        bounds = [summarise(run, n_train, ratio)[1:] for run in runs]
        shares.append(float(np.mean([low <= truth <= high for low, high in bounds])))
    return shares


@pytest.mark.extensive
@pytest.mark.parametrize("name", SETTINGS)
def test_the_corrected_interval_holds_the_mean_about_as_often_as_it_says(name):
    corrected, plain = coverage(150, SETTINGS[name])
    assert corrected >= 0.92
    assert plain < corrected


if __name__ == "__main__":  # the table of docs/curve.md
    for n in (60, 150, 600):
        for name, folds in SETTINGS.items():
            corrected, plain = coverage(n, folds)
            print(f"| {n} | {name} | {100 * corrected:.1f} % | {100 * plain:.1f} % |")
