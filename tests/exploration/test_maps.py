"""Places on the plane, and clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import make_blobs
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

from medplus.exploration import maps


@pytest.fixture(scope="module")
def blobs():
    values, truth = make_blobs([40, 30, 20], 6, cluster_std=0.3, center_box=(-9, 9), random_state=1)
    return values.astype(np.float32), truth


def test_tsne_keeps_neighbourhoods_and_is_the_same_again(blobs):
    values, _ = blobs
    placed = maps.tsne_map(values)
    assert trustworthiness(values, placed, n_neighbors=5) > 0.9
    np.testing.assert_array_equal(placed, maps.tsne_map(values))


def test_too_few_images_have_no_tsne_but_a_pca():
    values = np.ones((4, 1), np.float32)
    assert maps.tsne_map(values) is None
    assert maps.pca_map(values).shape == (4, 2)


NUMBERS = st.floats(-99, 99, width=32)


@given(arrays(np.float32, st.tuples(st.integers(1, 20), st.just(2)), elements=NUMBERS))
def test_the_grid_keeps_proportions(places):
    grid = maps.to_grid(places).astype(np.float64)
    extent = float(np.ptp(places, axis=0).max())
    if extent > 1e-3:
        step = extent / 65535
        back = (grid - grid[0]) * step
        np.testing.assert_allclose(back, places - places[0], atol=2.1 * step + 1e-4)


def test_kmeans_finds_what_is_apart_the_largest_first(blobs):
    values, truth = blobs
    found = maps.cluster(values, 3)
    assert adjusted_rand_score(truth, found) == 1
    assert np.bincount(found).tolist() == [40, 30, 20]


def test_hdbscan_leaves_out_what_lies_alone(blobs):
    values, truth = blobs
    alone = np.vstack([values, np.full((1, 6), 500, np.float32)])
    found = maps.cluster(alone, "hdbscan")
    assert found[-1] == -1
    together = found[:-1] >= 0
    assert adjusted_rand_score(truth[together], found[:-1][together]) == 1


def test_more_clusters_than_images_are_as_many_as_images():
    assert set(maps.cluster(np.eye(3, dtype=np.float32), 24)) == {0, 1, 2}
