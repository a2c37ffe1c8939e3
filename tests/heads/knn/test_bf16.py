"""Candidates in bfloat16 cost no neighbour, whatever the points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.heads.knn.search import search


def brute_force(train, queries, k):
    """Order all rows by float64 distance, then by row number, one query after the other."""
    x = train.astype(np.float64)
    rows = np.arange(len(x))
    squared = [np.square(x - q).sum(1) for q in queries.astype(np.float64)]
    return np.array([np.lexsort((rows, line))[:k] for line in squared])


def assert_neighbours(train, queries, k):
    found = search(train, queries, k, backend="bf16", device="cpu")
    np.testing.assert_array_equal(found.indices, brute_force(train, queries, k))


def clustered(rng, n, dim, spread):
    centres = rng.normal(size=(n // 30, dim))
    return centres[rng.integers(n // 30, size=n)] + spread * rng.normal(size=(n, dim))


def aligned(rng, n, dim):
    """Return some points that lose in bfloat16 all that Cauchy and Schwarz's inequality allows.

    They, and the queries, round to one point, and what they lose points the way they do.
    """
    signs, lengths = rng.choice([-1, 1], (n, dim)), 1 + 2.0**-8 * rng.uniform(size=(n, 1))
    alike = np.arange(n)[:, None] % 97 == 0
    alike[-8:] = True
    return np.where(alike, signs[0] * lengths, signs)


def wide(rng, n, dim):
    """Return points whose norms and coordinates span many orders of magnitude."""
    return rng.normal(size=(n, dim)) * 10 ** rng.uniform(-12, 0, (n, 1)) * 4 ** rng.normal(size=dim)


CLOUDS = {
    "gaussian": lambda rng, n, dim: rng.normal(size=(n, dim)),
    "clusters": lambda rng, n, dim: clustered(rng, n, dim, 0.1),
    "near duplicates": lambda rng, n, dim: clustered(rng, n, dim, 1e-5),
    "below bfloat16's resolution": lambda rng, n, dim: 1 + 2.0**-14 * rng.normal(size=(n, dim)),
    "one ulp apart": lambda rng, n, dim: 1 + 2.0**-22 * rng.integers(0, 9, (n, dim)),
    "between bfloat16's numbers": lambda rng, n, dim: (
        rng.choice([-1, 1], (n, dim)) * (1 + 2.0**-8 - 2.0**-16 * rng.integers(0, 3, (n, dim)))
    ),
    "aligned": aligned,
    "integers": lambda rng, n, dim: rng.integers(-2, 3, (n, dim)),
    "duplicated rows": lambda rng, n, dim: rng.normal(size=(9, dim))[rng.integers(9, size=n)],
    "constant": lambda rng, n, dim: np.full((n, dim), 0.3),
    "constant columns": lambda rng, n, dim: np.where(
        np.arange(dim) % 3, 7.7, rng.normal(size=(n, dim))
    ),
    "rectified and correlated": lambda rng, n, dim: np.maximum(
        rng.normal(size=(n, 4)) @ rng.normal(size=(4, dim)), 0
    ),
    "large offset": lambda rng, n, dim: 1e4 + rng.normal(size=(n, dim)),
    "one outlier": lambda rng, n, dim: np.where(
        np.arange(n)[:, None], rng.normal(size=(n, dim)), 1e6
    ),
    "wide": wide,
}  # fmt: skip


@settings(max_examples=30)
@given(
    cloud=st.sampled_from(sorted(CLOUDS)),
    dim=st.sampled_from([1, 2, 3, 31, 32, 64, 300]),
    n=st.integers(400, 3000),
    k=st.integers(1, 16),
    power=st.sampled_from([0, 0, -13, 33]),
    seed=st.integers(0, 2**31),
)
def test_neighbours_are_those_of_brute_force(cloud, dim, n, k, power, seed):
    rng = np.random.default_rng(seed)
    points = (CLOUDS[cloud](rng, n + 8, dim) * 2.0**power).astype("f4")
    points[n + 6 :] = points[:2]  # queries that are train rows
    assert_neighbours(points[:n], points[n:], k)


@settings(max_examples=25)
@given(n=st.integers(1, 200), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_any_number_of_neighbours_is_found_among_any_number_of_rows(n, share, seed):
    rng = np.random.default_rng(seed)
    train, queries = (rng.normal(size=(rows, 5)).astype("f4") for rows in (n, 4))
    assert_neighbours(train, queries, max(1, round(share * n)))


@pytest.mark.parametrize("cloud", ["gaussian", "aligned", "below bfloat16's resolution"])
def test_neighbours_in_two_thousand_dimensions(cloud):
    points = CLOUDS[cloud](np.random.default_rng(0), 2010, 2000).astype("f4")
    assert_neighbours(points[:2000], points[2000:], 11)


def test_queries_far_larger_and_far_smaller_than_the_rows():
    rng = np.random.default_rng(0)
    train, queries = (rng.normal(size=(n, 16)).astype("f4") for n in (1000, 30))
    queries *= np.repeat(np.float32([1e-8, 1, 1e5]), 10)[:, None]
    assert_neighbours(train, queries, 11)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cloud", ["aligned", "between bfloat16's numbers"])
def test_neighbours_that_bfloat16_puts_elsewhere_are_found(cloud, seed):
    points = CLOUDS[cloud](np.random.default_rng(seed), 3008, 64).astype("f4")
    assert_neighbours(points[:3000], points[3000:], 5)


ROUNDED_OFF = 0.99 * 2.0**-8
"""What numbers from 1 to 2 may lose in bfloat16, almost: they round down."""


OTHERS = np.arange(6)[:, None]


def lost_by_rows(signs):
    """Return a query, its nearest row, and six that are a little farther and lose nothing.

    In bfloat16 the nearest row seems farther than the others, by nearly all that the norm of what
    it has lost allows. Squared distances are near the query's squared norm, where bounds are near
    0 and their own rounding hides little.
    """
    grown = np.arange(len(signs)) < (0.51 + 0.01 * OTHERS) * len(signs)
    return signs, 2 * (1 + ROUNDED_OFF) * signs, 2 * signs * (1 + 2.0**-7 * grown)


def lost_by_queries(signs):
    """Return the same where it is the query that loses what the nearest row points to."""
    half = len(signs) // 2
    place = np.arange(len(signs))
    shrunk = place - half < (0.96 - 0.02 * OTHERS) * half
    others = np.where(place < half, 0, 2 * signs * (1 - 2.0**-8 * shrunk))
    return signs * (1 + ROUNDED_OFF * (place < half)), np.where(place < half, 2 * signs, 0), others


@pytest.mark.parametrize("case", [lost_by_rows, lost_by_queries])
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_allows_for_all_that_bfloat16_loses(case, seed):
    rng = np.random.default_rng(seed)
    train = rng.choice([-2.0, 2.0], (3000, 256))
    query, train[50], train[:6] = case(rng.choice([-1.0, 1.0], 256))
    train, query = train.astype("f4"), query.astype("f4")
    assert brute_force(train, query[None], 1) == 50
    assert_neighbours(train, query[None], 1)
