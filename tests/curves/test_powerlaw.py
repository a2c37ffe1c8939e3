"""Fitted curves: what is known of them is found again, and what they do not carry is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import curve_fit

from medplus.curves.powerlaw import extrapolate, fit_power_law, inflation
from medplus.curves.summary import Series, find_crossings

STOCK = 10**9
N = np.array([10, 20, 50, 100, 200, 500])


def episodes(asymptote, scale, exponent, noise=0.003, count=20, seed=0, n=N):
    rng = np.random.default_rng(seed)
    errors = asymptote + scale * n ** -float(exponent)
    return 1 - errors - noise * rng.normal(size=(count, len(n)))


def test_a_fit_is_scipys_with_the_same_weights():
    errors = 1 - episodes(0.05, 0.9, 0.6).mean(0)
    weights = np.linspace(1, 4, len(N))
    found = [float(part[0]) for part in fit_power_law(N, errors[None], weights)]

    def law(n, a, b, c):
        return a + b * n**-c

    expected, _ = curve_fit(law, N, errors, (0.1, 1, 0.5), sigma=weights**-0.5)
    loss = [float((weights * (law(N, *p) - errors) ** 2).sum()) for p in (found, expected)]
    assert loss[0] == pytest.approx(loss[1], rel=0.1)
    assert found == pytest.approx(expected, rel=0.1)


def test_the_interval_of_the_labels_covers_the_truth_as_often_as_it_says():
    truth = (0.8 / (0.15 - 0.05)) ** (1 / 0.5)
    hits = 0
    for seed in range(40):
        law = extrapolate(
            N, episodes(0.05, 0.8, 0.5, seed=seed), 0.85, 1000, inflation(N, STOCK, 20)
        )
        if law.labels_ci95 is not None:
            low, high = law.labels_ci95
            hits += low <= truth <= (np.inf if high is None else high)
    assert hits >= 33


@pytest.mark.parametrize(
    ("accuracies", "target", "why"),
    [
        (episodes(0.05, 0.8, 0.5)[:, :3], 0.85, "4 sizes"),
        (episodes(0.05, 0.8, 0.5)[:2], 0.85, "3 episodes"),
        (episodes(0.3, 0.5, 0.8), 0.9, "below the target"),
        (episodes(0.0, 0.8, 0.2, noise=1e-4), 0.99, "beyond 10 times"),
        (episodes(0.3, 0.0, 0.5, noise=0.0), 0.9, "does not fall"),
        (episodes(0.05, 0.8, 0.5) - 0.1 * (N == 500), 0.9, "foretells"),
    ],
)
def test_what_a_fit_does_not_carry_is_refused(accuracies, target, why):
    count, sizes = accuracies.shape
    factor = inflation(N[:sizes], STOCK, count)
    law = extrapolate(N[:sizes], accuracies, target, 1000, factor)
    assert law.labels is None
    assert why in law.refused


def test_crossings_are_found_where_means_change_places_and_told_from_chance():
    rising, flat = (
        Series(name, "probe", "shots", ("1", "2", "3"), N[:3], own[:, :3], STOCK)
        for name, own in (("a", episodes(0.0, 1, 0.5)), ("b", episodes(0.2, 0, 1)))
    )
    [crossing] = find_crossings([rising, flat])
    assert (crossing.first, crossing.second) == ("b · probe", "a · probe")
    assert crossing.between == (20, 50)
    assert 20 < crossing.at < 30
    assert crossing.certain
    noise = 0.5 * np.random.default_rng(0).normal(size=flat.accuracies.shape)
    noisy = replace(flat, backbone="c", accuracies=flat.accuracies + noise)
    assert not any(c.certain for c in find_crossings([flat, noisy]))


def test_intervals_cover_the_mean_over_all_stocks_although_draws_share_images():
    rng = np.random.default_rng(0)
    hits, trials, taken = 0, 200, np.array([20, 60])
    for _ in range(trials):
        stock = rng.normal(0.7, 0.2, 100)  # an accuracy that is the mean of what is drawn
        draws = np.array([[rng.permutation(stock)[:n].mean() for n in taken] for _ in range(5)])
        one = Series("a", "knn", "shots", ("1", "2"), taken, draws, len(stock))
        low, high = one.mean - one.half_widths, one.mean + one.half_widths
        hits += (low <= 0.7) & (high >= 0.7)
    # Of 200, 95 % are 190 ± 6; a plain interval would cover a third at the larger size.
    assert (hits >= 180).all()
    assert (hits <= 199).all()


def test_all_of_train_has_no_interval_and_does_not_outweigh_what_was_drawn():
    accuracies = episodes(0.05, 0.8, 0.5)
    accuracies[:, -1] = accuracies[0, -1] - 0.01
    one = Series("a", "knn", "fractions", tuple("abcdef"), N, accuracies, int(N[-1]))
    assert one.to_dict()[-1]["ci95"] is None
    law = extrapolate(N, accuracies, 0.9, 1000, one.inflation)
    certain = extrapolate(N, accuracies, 0.9, 1000, inflation(N, STOCK, 20))
    measured = 1 - accuracies[0, -1]
    assert abs(law.error(N[-1:])[0] - measured) > abs(certain.error(N[-1:])[0] - measured)
