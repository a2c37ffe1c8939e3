"""Exact neighbours in a defined order, whatever the backend, the numbers and the ties."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from medplus.errors import RunError, UsageError
from medplus.heads.knn.backends import fastest_backend
from medplus.heads.knn.search import search
from medplus.remembered import remember

BACKENDS = ("faiss", "torch", "bf16")
backends = pytest.mark.parametrize("backend", BACKENDS)
ways = pytest.mark.parametrize("exact", [True, False], ids=["distances", "order"])


def squared_distances(train, queries):
    """Squared Euclidean distances from float64 differences, shape (n_queries, n_train)."""
    return np.square(train[None].astype(np.float64) - queries[:, None].astype(np.float64)).sum(2)


def expected_neighbours(train, queries, k):
    """Order all training rows by distance, then by row number."""
    squared = squared_distances(train, queries)
    rows = np.broadcast_to(np.arange(len(train)), squared.shape)
    order = np.lexsort((rows, squared), axis=1)[:, :k]
    return np.sqrt(np.take_along_axis(squared, order, 1)), order


def assert_exact(train, queries, k, backend, exact):
    found = search(train, queries, k, backend=backend, device="cpu", exact_distances=exact)
    distances, indices = expected_neighbours(train, queries, k)
    np.testing.assert_array_equal(found.indices, indices)
    if exact:
        np.testing.assert_allclose(found.distances, distances, rtol=1e-6, atol=0)
    assert found.backend == backend


def gaussian(n, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype("f4")


# --- ordinary data ----------------------------------------------------------------------------


@ways
@backends
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_neighbours_are_those_of_scikit_learns_exhaustive_search(metric, backend, exact):
    train, queries = gaussian(700, 24), gaussian(150, 24, seed=1)
    found = search(
        train, queries, 15, metric=metric, backend=backend, device="cpu", exact_distances=exact
    )
    name = {"l2": "euclidean", "cosine": "cosine"}[metric]
    reference = NearestNeighbors(algorithm="brute", metric=name).fit(train.astype("f8"))
    distances, indices = reference.kneighbors(queries.astype("f8"), 15)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5, atol=1e-6)


@ways
@backends
def test_long_rankings_are_exact_to_the_last_place(backend, exact):
    # Among thousands of rows some are equally far to a few parts in 10⁸.
    assert_exact(gaussian(2600, 4), gaussian(20, 4, seed=1), 2500, backend, exact)


@ways
@backends
def test_long_rankings_by_cosine_are_exact_to_the_last_place(backend, exact):
    train, queries = gaussian(2600, 4), gaussian(20, 4, seed=1)
    found = search(
        train, queries, 2500, metric="cosine", backend=backend, device="cpu", exact_distances=exact
    )
    unit, targets = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in
                     (train.astype("f8"), queries.astype("f8")))  # fmt: skip
    np.testing.assert_array_equal(found.indices, expected_neighbours(unit, targets, 2500)[1])


def test_backends_agree_to_the_last_bit():
    train, queries = gaussian(400, 10).round(1), gaussian(60, 10, seed=1).round(1)
    found = [search(train, queries, 7, backend=name, device="cpu") for name in BACKENDS]
    for other in found[1:]:
        np.testing.assert_array_equal(other.indices, found[0].indices)
        np.testing.assert_array_equal(other.distances, found[0].distances)


# --- ties -------------------------------------------------------------------------------------

grids = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays("i4", st.tuples(st.just(n), st.just(3)), elements=st.integers(-2, 2)),
        arrays("i4", st.tuples(st.integers(1, 6), st.just(3)), elements=st.integers(-2, 2)),
        st.integers(1, n),
    )
)


@settings(max_examples=150)
@given(case=grids)
def test_equal_distances_are_ordered_by_row(case):
    train, queries, k = case
    for backend in ("faiss", "torch"):  # so few rows are searched in float32
        for exact in (True, False):
            assert_exact(train.astype("f4"), queries.astype("f4"), k, backend, exact)


TINY = 2.0**-30
fine = st.sampled_from([0.0, 1.0, -1.0, TINY, -TINY, 1 + 2.0**-20, -1 - 2.0**-20])


@settings(max_examples=150)
@given(
    train=arrays("f4", st.tuples(st.integers(1, 12), st.just(1)), elements=fine),
    queries=arrays("f4", st.tuples(st.integers(1, 4), st.just(1)), elements=fine),
)
def test_distances_that_float32_cannot_tell_apart_are_told_apart(train, queries):
    for backend in ("faiss", "torch"):  # so few rows are searched in float32
        for exact in (True, False):
            assert_exact(train, queries, len(train), backend, exact)


@ways
@backends
@pytest.mark.timeout(60)
def test_collapsed_embeddings_have_the_first_rows_as_neighbours(backend, exact):
    train = np.full((20_000, 16), 3.7, "f4")
    found = search(train, train[:200], 11, backend=backend, device="cpu", exact_distances=exact)
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(11), (200, 1)))
    np.testing.assert_array_equal(found.distances, 0)


@ways
@backends
def test_more_equals_than_the_widest_search_are_ordered_by_row(backend, exact):
    train = np.repeat(gaussian(2, 4), [2500, 300], axis=0)[::-1].copy()
    assert_exact(train, np.concatenate([train[:2], train[-2:]]), 400, backend, exact)


@ways
@backends
def test_parallel_vectors_are_equally_near_by_cosine(backend, exact):
    base = gaussian(10, 4)
    train = np.concatenate([base, base * 4, base * 0.25])
    found = search(
        train, base * 2, 3, metric="cosine", backend=backend, device="cpu", exact_distances=exact
    )
    np.testing.assert_array_equal(found.indices, np.arange(10)[:, None] + [0, 10, 20])
    np.testing.assert_allclose(found.distances, 0, atol=1e-12 if exact else 1e-5)


# --- awkward numbers --------------------------------------------------------------------------


@ways
@backends
@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_large_common_offset_costs_no_neighbours(offset, backend, exact):
    train = (gaussian(2000, 32) + offset).astype("f4")
    queries = (gaussian(100, 32, seed=1) + offset).astype("f4")
    assert_exact(train, queries, 11, backend, exact)


@ways
@backends
def test_one_dominant_dimension_costs_no_neighbours(backend, exact):
    train, queries = gaussian(1500, 16), gaussian(100, 16, seed=1)
    train[:, 0] = np.where(np.arange(1500) % 2, 3e3, -3e3)
    queries[:, 0] = 3e3
    assert_exact(train, queries, 11, backend, exact)


@ways
@backends
@pytest.mark.parametrize("scale", [1e-14, 1e-12, 1e12, 1e17])
def test_embeddings_of_any_scale_have_its_neighbours(scale, backend, exact):
    train = (gaussian(60, 5) * np.float32(scale)).astype("f4")
    queries = (gaussian(9, 5, seed=1) * np.float32(scale)).astype("f4")
    assert_exact(train, queries, 7, backend, exact)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(k):
    with pytest.raises(UsageError, match=f"k must be at least 1, not {k}"):
        search(gaussian(5, 2), gaussian(2, 2), k)


def test_k_above_the_training_rows_is_refused():
    with pytest.raises(RunError, match="k = 6 exceeds the 5 rows"):
        search(gaussian(5, 2), gaussian(2, 2), 6)


@backends
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["train", "query"])
def test_non_finite_embeddings_are_refused(where, value, metric, backend):
    data = {"train": gaussian(9, 3), "query": gaussian(5, 3)}
    data[where][4, 1] = value
    with pytest.raises(RunError, match=f"the {where} embeddings are not finite"):
        search(data["train"], data["query"], 2, metric=metric, backend=backend, device="cpu")


def test_embeddings_whose_squares_underflow_are_refused():
    tiny = gaussian(9, 3) * np.float32(1e-22)
    with pytest.raises(RunError, match="too small to be compared"):
        search(tiny, tiny, 1)


@pytest.mark.parametrize("scale", [1e20, 1e37])
@pytest.mark.parametrize("where", ["train", "query"])
def test_embeddings_whose_squares_overflow_are_refused(where, scale):
    data = {"train": gaussian(9, 3), "query": gaussian(5, 3)}
    data[where] *= np.float32(scale)
    with pytest.raises(RunError, match=rf"{where} embeddings are .* too large"):
        search(data["train"], data["query"], 2)


# --- choice of backend ------------------------------------------------------------------------


def test_auto_leaves_what_takes_milliseconds_to_torch():
    assert search(gaussian(400, 10), gaussian(60, 10, seed=1), 7, device="cpu").backend == "torch"


def test_auto_measures_what_is_fastest_and_remembers_it_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path))
    points = gaussian(2000, 33)
    chosen = fastest_backend(points, points[:50], torch.device("cpu"))
    assert chosen in BACKENDS
    [file] = tmp_path.iterdir()
    [key] = json.loads(file.read_text())
    for name in BACKENDS[:2]:  # whatever is kept there is taken, and nothing is measured
        remember(file.stem, key, {"backend": name}, tmp_path)
        assert fastest_backend(points, points[:50], torch.device("cpu")) == name
    remember(file.stem, key, {"backend": "of another version"}, tmp_path)
    assert fastest_backend(points, points[:50], torch.device("cpu")) in BACKENDS


@pytest.mark.gpu
@backends
def test_a_gpu_finds_what_the_cpu_finds(backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    train, queries = gaussian(3000, 64).round(1), gaussian(200, 64, seed=1).round(1)
    on_gpu = search(train, queries, 11, backend=backend, device="cuda")
    on_cpu = search(train, queries, 11, backend=backend, device="cpu")
    np.testing.assert_array_equal(on_gpu.indices, on_cpu.indices)
    np.testing.assert_array_equal(on_gpu.distances, on_cpu.distances)


# --- what float32 cannot tell apart -----------------------------------------------------------


def ranked_in_long_doubles(train, queries, k, metric):
    """Order all training rows by distances that are right to 18 digits, then by row number."""
    x, q = train.astype(np.longdouble), queries.astype(np.longdouble)
    if metric == "cosine":
        x, q = (points / np.sqrt((points**2).sum(1, keepdims=True)) for points in (x, q))
    squared = ((q[:, None] - x[None]) ** 2).sum(2)
    return np.argsort(squared, axis=1, kind="stable")[:, :k]


@ways
@backends
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_cosine_neighbours_are_exact_where_all_point_almost_the_same_way(spread, backend, exact):
    base = np.random.default_rng(0).uniform(0.5, 1.5, 64)
    train, queries = (
        (base * (1 + spread * gaussian(n, 64, seed))).astype("f4")
        for seed, n in [(1, 400), (2, 60)]
    )
    found = search(
        train, queries, 11, metric="cosine", backend=backend, device="cpu", exact_distances=exact
    )
    np.testing.assert_array_equal(
        found.indices, ranked_in_long_doubles(train, queries, 11, "cosine")
    )


@ways
@backends
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("scale", [1e-10, 1e-14, 1e10])
def test_neighbours_are_exact_at_any_scale(scale, metric, backend, exact):
    train, queries = gaussian(300, 16) * np.float32(scale), gaussian(50, 16, 1) * np.float32(scale)
    found = search(
        train, queries, 11, metric=metric, backend=backend, device="cpu", exact_distances=exact
    )
    np.testing.assert_array_equal(found.indices, ranked_in_long_doubles(train, queries, 11, metric))


@ways
@backends
def test_a_row_of_zeros_has_the_similarity_0_as_in_scikit_learn(backend, exact):
    train, queries = gaussian(60, 5), gaussian(20, 5, seed=1)
    train[::7], queries[3] = 0, 0
    found = search(
        train, queries, 40, metric="cosine", backend=backend, device="cpu", exact_distances=exact
    )
    model = NearestNeighbors(n_neighbors=40, metric="cosine", algorithm="brute")
    expected = model.fit(train.astype("f8")).kneighbors(queries.astype("f8"))[0]
    np.testing.assert_allclose(found.distances, expected, atol=1e-6)
