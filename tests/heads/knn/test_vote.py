"""Votes against scipy's mode, numpy's mean and scikit-learn's classifier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mode
from sklearn.neighbors import KNeighborsClassifier

from medplus.heads.knn.vote import vote_shares

cases = st.tuples(
    st.integers(1, 20), st.integers(1, 8), st.integers(2, 5), st.integers(0, 10_000)
)  # k, queries, classes, seed


def draw(k, n_queries, n_classes, seed, n_labels=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes if n_labels == 1 else 2, (50, n_labels)).astype("u1")
    indices = rng.integers(0, 50, (n_queries, k))
    return labels, indices, np.sort(rng.random((n_queries, k)), axis=1)


@given(case=cases)
def test_majority_is_the_mode_and_equal_votes_go_to_the_smallest_class(case):
    labels, indices, distances = draw(*case)
    shares = vote_shares(labels, indices, distances, case[2])
    expected = mode(labels[indices][..., 0], axis=1).mode
    np.testing.assert_array_equal(shares.argmax(1), expected)


@given(case=cases)
def test_shares_are_the_fractions_of_neighbours(case):
    labels, indices, distances = draw(*case)
    shares = vote_shares(labels, indices, distances, case[2])
    expected = [[np.mean(labels[row] == c) for c in range(case[2])] for row in indices]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert shares.dtype == np.float32


@given(case=cases)
def test_equal_counts_have_equal_shares_to_the_last_bit(case):
    labels, indices, distances = draw(*case)
    shares = vote_shares(labels, indices, distances, case[2])
    counts = [[np.sum(labels[row] == c) for c in range(case[2])] for row in indices]
    for row, count in zip(shares, counts, strict=True):
        assert len(set(row.tolist())) == len(set(count))


@given(case=cases)
def test_multi_label_predicts_where_more_than_half_of_the_neighbours_have_the_label(case):
    labels, indices, distances = draw(*case, n_labels=case[2])
    shares = vote_shares(labels, indices, distances, case[2], multi_label=True)
    flags = labels[indices].astype(int)
    np.testing.assert_allclose(shares, flags.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(shares > 0.5, 2 * flags.sum(1) > indices.shape[1])


def classifier_shares(train, labels, queries, k):
    """Neighbours, distances and class probabilities of scikit-learn's distance-weighted vote."""
    reference = KNeighborsClassifier(k, weights="distance", algorithm="brute")
    reference.fit(train, labels[:, 0] if labels.shape[1] == 1 else labels)
    distances, indices = reference.kneighbors(queries)
    shares = reference.predict_proba(queries)
    if labels.shape[1] > 1:
        shares = np.stack([label[:, 1] for label in shares], axis=1)
    return indices, distances, shares


@pytest.mark.parametrize("k", [1, 4, 11])
@pytest.mark.parametrize("n_labels", [1, 3])
def test_distance_votes_are_scikit_learns_also_at_distance_zero(k, n_labels):
    rng = np.random.default_rng(k)
    train = rng.integers(0, 4, (80, 2)).astype(float)  # many duplicates
    labels = rng.integers(0, 3 if n_labels == 1 else 2, (80, n_labels))
    queries = np.concatenate([train[:20], train[:20] + 0.3, rng.normal(size=(20, 2))])
    indices, distances, expected = classifier_shares(train, labels, queries, k)
    assert (distances == 0).any()
    shares = vote_shares(
        labels, indices, distances, 3, vote="distance", multi_label=n_labels > 1
    )  # fmt: skip
    np.testing.assert_allclose(shares, expected, rtol=1e-6, atol=1e-7)


def test_distances_too_small_to_be_inverted_count_as_zero():
    labels, indices = np.array([[0], [1], [1]]), np.array([[0, 1, 2]])
    shares = vote_shares(labels, indices, np.array([[1e-320, 1.0, 1.0]]), 2, vote="distance")
    np.testing.assert_array_equal(shares, [[1, 0]])
