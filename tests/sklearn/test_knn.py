"""The neighbours of `medplus.knn` as a classifier, against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import medplus
from medplus.errors import UsageError
from medplus.sklearn import KNNProbe

NAMES = np.array(["malignant", "normal", "benign"])


def blobs(n=90, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.normal(size=(n, dim)).astype("f4") + labels[:, None], NAMES[labels]


def theirs(k, metric="l2", vote="majority"):
    return KNeighborsClassifier(
        k,
        algorithm="brute",
        metric="euclidean" if metric == "l2" else "cosine",
        weights="uniform" if vote == "majority" else "distance",
    )


@settings(max_examples=30)
@given(
    st.integers(1, 12),
    st.sampled_from(["l2", "cosine"]),
    st.sampled_from(["majority", "distance"]),
    st.integers(0, 99),
)
def test_predictions_are_those_of_scikit_learns_brute_force(k, metric, vote, seed):
    x, y = blobs(seed=seed)
    head = KNNProbe(k, metric=metric, vote=vote).fit(x[:60], y[:60])
    oracle = theirs(k, metric, vote).fit(x[:60].astype("f8"), y[:60])
    assert head.classes_.tolist() == oracle.classes_.tolist() == sorted(NAMES)
    shares = head.predict_proba(x[60:])
    np.testing.assert_allclose(shares, oracle.predict_proba(x[60:].astype("f8")), atol=1e-5)
    assert head.predict(x[60:]).tolist() == head.classes_[shares.argmax(1)].tolist()
    if vote == "majority":  # of equal votes the first class has it in both
        assert head.predict(x[60:]).tolist() == oracle.predict(x[60:].astype("f8")).tolist()


def test_of_equal_votes_the_first_class_has_it_and_of_equal_distances_the_first_row():
    head = KNNProbe(2).fit([[0.0], [2.0], [2.0]], ["b", "a", "b"])
    assert head.predict([[1.0]]).tolist() == theirs(2).fit(*self_of(head)).predict([[1.0]]).tolist()
    assert head.predict_proba([[1.0]]).tolist() == [[0.5, 0.5]]


def self_of(head):
    return head.rows_, head.classes_[head.labels_[:, 0]]


def test_scores_are_those_of_a_run_on_a_store_to_the_last_bit(write_store, tmp_path):
    x, _ = blobs(150)
    labels = np.arange(150) % 3
    parts = [slice(0, 100), slice(100, 120), slice(120, 150)]
    store = write_store([x[p] for p in parts], [labels[p] for p in parts])
    [record] = medplus.knn(store, 7, vote="distance", runs=tmp_path)
    saved = medplus.predictions(record.path).query("split == 'test'")
    head = KNNProbe(7, vote="distance")
    head.fit(store.embeddings("train"), store.labels("train").ravel())
    expected = saved.filter(like="p_").to_numpy()
    np.testing.assert_array_equal(head.predict_proba(store.embeddings("test")), expected)


def test_several_labels_are_the_mean_of_the_neighbours():
    x, _ = blobs()
    flags = np.random.default_rng(1).integers(0, 2, (90, 4))
    head = KNNProbe(5).fit(x[:60], flags[:60])
    nearest = theirs(5).fit(x[:60], np.zeros(60)).kneighbors(x[60:])[1]
    np.testing.assert_allclose(head.predict_proba(x[60:]), flags[nearest].mean(1))
    np.testing.assert_array_equal(head.predict(x[60:]), flags[nearest].mean(1) > 0.5)


def test_it_is_searched_over_and_cross_validated_as_theirs_is():
    x, y = blobs(120)
    frame = pd.DataFrame(x, columns=list("abcde"))
    grid = {"k": np.array([1, 4, 9])}
    ours = GridSearchCV(KNNProbe(), grid, error_score="raise").fit(frame, y)
    other = GridSearchCV(theirs(1), {"n_neighbors": [1, 4, 9]}).fit(frame, y)
    expected = other.cv_results_["mean_test_score"]
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], expected)
    assert ours.best_estimator_.feature_names_in_.tolist() == list("abcde")
    mine, its = (
        cross_val_predict(make_pipeline(StandardScaler(), head), x.astype("f8"), y)
        for head in (KNNProbe(5), theirs(5))
    )
    assert mine.tolist() == its.tolist()


@pytest.mark.parametrize(
    ("parameters", "y", "error", "message"),
    [({"k": 4}, "aab", ValueError, "k = 4 exceeds n_samples = 3"),
     ({"k": 0}, "aab", UsageError, "k = .*greater than or equal to 1"),
     ({"k": 1, "metric": "l3"}, "aab", UsageError, "metric = 'l3'"),
     ({"k": 1, "backend": "annoy"}, "aab", UsageError, "unknown backend 'annoy'"),
     ({"k": 1}, [[0, 2], [1, 1], [2, 0]], ValueError, "2 columns that are not 0 and 1")],
)  # fmt: skip
def test_what_cannot_be_is_refused(parameters, y, error, message):
    with pytest.raises(error, match=message):
        KNNProbe(**parameters).fit(np.eye(3), list(y))
