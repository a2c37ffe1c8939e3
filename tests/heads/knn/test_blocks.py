"""A search block by block finds what a search of the whole finds, in the same order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.embeddings import layout
from medplus.heads import features
from medplus.heads.features import StoredFeatures
from medplus.heads.knn import knn
from medplus.heads.knn.search import search
from medplus.run.ledger import read_predictions

module = sys.modules[search.__module__]
backends = pytest.mark.parametrize("backend", ["faiss", "torch"])
metrics = pytest.mark.parametrize("metric", ["l2", "cosine"])


def search_by_blocks(rows, train, queries, k, **more):
    """Search with memory for so many rows; return the neighbours and the blocks' sizes."""
    sizes = []
    search_block = module._search_block

    def watch(x, q, *arguments):
        sizes.append((len(x), len(q)))
        return search_block(x, q, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_search_block", watch)
        patch.setattr(module, "_SMALLEST_BLOCK", 0)
        patch.setattr(
            module, "spare_memory", lambda device: rows * module._COPIES * 4 * train.shape[1]
        )
        return search(train, queries, k, device="cpu", **more), sizes


def gaussian(n, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype("f4")


def assert_equal(a, b):
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.distances, b.distances)


@backends
@metrics
@pytest.mark.parametrize("k", [1, 11, 60])  # 60: more than a block has
def test_blocks_find_the_neighbours_of_the_whole(k, metric, backend):
    train, queries = gaussian(200, 8) + 3, gaussian(90, 8, seed=1) + 3
    whole = search(train, queries, k, metric=metric, backend=backend, device="cpu")
    parts, sizes = search_by_blocks(47, train, queries, k, metric=metric, backend=backend)
    assert sizes == [(40, 47)] * 5 + [(40, 43)] * 5  # both in blocks, of train of equal length
    assert_equal(whole, parts)


@backends
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_equal_distances_across_blocks_are_ordered_by_row(backend, rows, k, seed):
    train = gaussian(40, 2, seed).round()  # a few points, each many times
    queries = gaussian(6, 2, seed + 1).round()
    found, _ = search_by_blocks(rows, train, queries, k, backend=backend)
    squared = np.square(train[None].astype("f8") - queries[:, None]).sum(2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, np.sqrt(np.take_along_axis(squared, order, 1)))


@backends
@metrics
def test_more_equals_than_the_widest_search_in_some_blocks_only(metric, backend, monkeypatch):
    monkeypatch.setattr(module, "MOST_CANDIDATES", 16)
    train = gaussian(150, 5)
    train[:60] = train[[0, 100]].repeat(30, axis=0)  # the first blocks are collapsed
    queries = np.concatenate([train[[0, 100]], gaussian(8, 5, seed=1)])
    parts, sizes = search_by_blocks(50, train, queries, 40, metric=metric, backend=backend)
    assert len(sizes) == 3
    monkeypatch.undo()
    assert_equal(search(train, queries, 40, metric=metric, backend=backend, device="cpu"), parts)
    # Row 100 lies in a block of its own and equals 30 rows of the first two.
    assert parts.indices[1, :31].tolist() == [*range(30, 60), 100]


@pytest.mark.usefixtures("fast_disk")
@pytest.mark.parametrize("vote", ["majority", "distance"])
@backends
def test_a_store_that_does_not_fit_is_searched_alike(
    backend, vote, write_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(layout, "CHUNK_ROWS", 16)
    rng = np.random.default_rng(0)
    sizes = (100, 30, 40)
    labels = [rng.integers(0, 3, n) for n in sizes]
    store = write_store([(gaussian(n, 6, n) + 2).round(1) for n in sizes], labels)
    options = {"vote": vote, "backend": backend, "device": "cpu"}
    held = knn(store, [1, 5, 40], runs=tmp_path / "held", **options)
    reads = []
    read = StoredFeatures.read

    def watch(self, first, out):
        reads.append((self.split, first, len(out)))
        read(self, first, out)

    monkeypatch.setattr(StoredFeatures, "read", watch)
    monkeypatch.setattr(features, "spare_memory", lambda: 170 * 6 * 4 - 1)
    monkeypatch.setattr(module, "_SMALLEST_BLOCK", 0)
    monkeypatch.setattr(module, "spare_memory", lambda device: 50 * module._COPIES * 4 * 6)
    stored = knn(store, [1, 5, 40], runs=tmp_path / "stored", **options)
    # Val and test are one row of queries, in blocks of 50.
    assert reads == [
        ("val", 0, 30), ("test", 0, 20), ("train", 0, 50), ("train", 50, 50),
        ("test", 20, 20), ("train", 0, 50), ("train", 50, 50),
    ]  # fmt: skip
    for a, b in zip(held, stored, strict=True):
        assert (a.run_id, a.metrics) == (b.run_id, b.metrics)
        one, other = (read_predictions(Path(r.path)) for r in (a, b))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
