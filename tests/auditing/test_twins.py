"""Twins: found however they were stored again, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.auditing import pixels
from medplus.auditing.twins import chance_threshold, nearest
from tests.auditing.planted import FAULTS, everything, scenes


@pytest.fixture(scope="module")
def pictures():
    return scenes(400)


@pytest.fixture(scope="module")
def limit(pictures):
    images = pixels.band_pass(pictures)
    near, _ = nearest(pixels.spectra(images), 6, "l2")
    rows = np.repeat(np.arange(len(images)), near.shape[1])
    return chance_threshold(pixels.compare(images, rows, near.ravel()).reshape(near.shape).max(1))


@pytest.mark.parametrize("fault", [*FAULTS, "everything"])
def test_a_picture_stored_again_is_a_candidate_and_alike(pictures, limit, fault):
    rng = np.random.default_rng(1)
    change = FAULTS.get(fault, everything)
    again = np.stack([change(image, rng) for image in pictures[:60]])
    images = pixels.band_pass(np.concatenate([pictures, again]))
    own, other = np.arange(60), 400 + np.arange(60)
    near, _ = nearest(pixels.spectra(images), 6, "l2")
    assert np.mean([row in near[twin] for row, twin in zip(own, other, strict=True)]) >= 0.9
    assert np.mean(pixels.compare(images, own, other) >= limit) >= 0.95


def test_different_pictures_are_not_alike(pictures, limit):
    images = pixels.band_pass(pictures)
    rng = np.random.default_rng(2)
    first, second = rng.permutation(400), rng.permutation(400)
    different = first != second
    assert (pixels.compare(images, first, second)[different] < limit).all()


def test_likeness_is_the_largest_correlation_over_turns_and_shifts():
    rng = np.random.default_rng(0)
    a, b = images = rng.normal(size=(2, 14, 14)).astype(np.float32)
    inner = a[1:-1, 1:-1]
    laid = [turned for k in range(4) for r in [np.rot90(inner, k)] for turned in (r, r[:, ::-1])]
    shown = [b[i : i + 12, j : j + 12] for i in range(3) for j in range(3)]
    expected = max(np.corrcoef(x.ravel(), y.ravel())[0, 1] for x in laid for y in shown)
    found = pixels.compare(images, np.array([0]), np.array([1]), shift=1)
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_the_threshold_lies_between_the_bulk_and_many_twins():
    rng = np.random.default_rng(0)
    alone = np.tanh(rng.normal(0.5, 0.1, 600))
    twins = np.tanh(rng.normal(2.5, 0.3, 400))
    found = chance_threshold(np.concatenate([alone, twins]))
    assert np.mean(alone > found) <= 0.005
    assert np.mean(twins > found) >= 0.99


@pytest.mark.parametrize("n", [100, 250, 900])
def test_many_copies_that_are_equally_alike_are_no_bulk(n):
    alone = np.tanh(np.random.default_rng(0).normal(0.8, 0.15, 1000))
    found = chance_threshold(np.concatenate([alone, np.full(n, 0.99999)]))
    assert np.quantile(alone, 0.995) < found < 0.99


def test_nearest_others_are_those_of_a_plain_search():
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found, far = nearest(x, 4, "l2")
    assert np.array_equal(found, np.argsort(distances, 1)[:, :4])
    assert far == pytest.approx(np.sort(distances, 1)[:, :4], abs=1e-5)
