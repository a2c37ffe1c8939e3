"""Joined and transformed embeddings are scikit-learn's, fitted on train alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler

from medplus.embeddings.derived import DerivedStore, view_of
from medplus.embeddings.transform import Transform
from medplus.errors import UsageError
from medplus.heads.features import read_features
from medplus.heads.knn import knn
from medplus.heads.probe import probe
from medplus.run.folds import Folds
from medplus.run.ledger import read_predictions
from medplus.vocabulary import SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")
SIZES = (1100, 40, 30)


@pytest.fixture(scope="module")
def stores(write_store):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, n) for n in SIZES]
    made = []
    for name, dim in (("one", 4), ("other", 6)):
        mixing = rng.normal(size=(dim, dim)) * 10.0 ** -np.arange(dim)
        values = [(3 + rng.normal(size=(n, dim)) @ mixing).astype("f4") for n in SIZES]
        values = [np.hstack([v, v[:, :1]]) for v in values]  # one dimension tells nothing new
        made.append(write_store(values, labels, backbone=name, backbone_digest=name))
    return made


def joined(stores, split):
    parts = [
        StandardScaler().fit(store.embeddings("train")).transform(store.embeddings(split))
        for store in stores
    ]
    return np.hstack(parts)


def test_joined_embeddings_stand_side_by_side_each_standardised_on_train(stores):
    store = DerivedStore(stores)
    assert store.info.dim == 12
    assert store.info.backbone == "one+other"
    for split in SPLITS:
        np.testing.assert_allclose(store.embeddings(split), joined(stores, split), atol=1e-5)
        np.testing.assert_array_equal(store.labels(split), stores[0].labels(split))


@pytest.mark.parametrize("split", SPLITS)
def test_transforms_are_scikit_learns_fitted_on_train(stores, split):
    [one, _] = stores
    train, x = one.embeddings("train").astype("f8"), one.embeddings(split).astype("f8")
    length = DerivedStore([one], Transform.parse("l2")).embeddings(split)
    np.testing.assert_allclose(length, Normalizer().transform(x), atol=1e-6)
    found = DerivedStore([one], Transform.parse("pca:2")).embeddings(split)
    expected = PCA(2, svd_solver="full").fit(train).transform(x)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-4, atol=1e-5)


def test_whitened_train_has_unit_covariance_and_no_dimension_without_variance(stores):
    store = DerivedStore(stores[:1], Transform.parse("whiten"))
    assert store.info.dim == 4
    covariance = np.cov(store.embeddings("train").T)
    np.testing.assert_allclose(covariance, np.eye(4), atol=1e-3)


def test_nothing_is_fitted_on_val_or_test_nor_on_the_rows_that_a_view_leaves_out(
    stores, write_store
):
    labels = [stores[0].labels(split) for split in SPLITS]
    values = [stores[0].embeddings(split).copy() for split in SPLITS]
    values[1][:], values[2][:], values[0][500:] = 100, -100, 1e3
    changed = write_store(values, labels, backbone="changed")
    rows = {"train": np.arange(500), "val": np.arange(500, 700), "test": np.arange(1100, 1130)}
    for text in ("pca:2", "whiten"):
        one, other = (
            view_of(DerivedStore([store], Transform.parse(text)), rows).embeddings("train")
            for store in (stores[0], changed)
        )
        np.testing.assert_array_equal(one, other)


def test_features_read_in_blocks_are_the_embeddings(stores):
    store = DerivedStore(stores)
    for hold in (True, False):
        values = read_features(store, "train", hold=hold).whole()
        np.testing.assert_array_equal(values, store.embeddings("train"))


def test_joining_and_transforming_are_part_of_a_runs_identity(stores, tmp_path):
    transforms = [Transform("l2"), Transform("pca", 2)]
    made = [
        stores[0],
        DerivedStore(stores),
        DerivedStore(stores[::-1]),
        *(DerivedStore(stores[:1], transform) for transform in transforms),
    ]
    records = knn(made, 3, runs=tmp_path)
    assert len({record.run_id for record in records}) == len(made)
    assert len({record.store_key for record in records}) == len(made)
    assert records[4].backbone == "one@pca:2"
    assert records[1].config["parts"] == [store.key for store in stores]


@pytest.mark.parametrize("text", ["pca", "pca:0", "l3", "pca:99"])
def test_a_transform_that_is_none_is_refused(stores, text):
    with pytest.raises(UsageError, match="pca:"):
        DerivedStore(stores, Transform.parse(text))


def test_stores_of_other_images_are_not_joined(stores, write_store):
    few = write_store([np.zeros((5, 2), "f4")] * 3, [np.arange(5) % 3] * 3, backbone="few")
    with pytest.raises(UsageError, match="not of the same images"):
        DerivedStore([stores[0], few])


def test_what_a_table_leaves_out_is_neither_fitted_on_nor_dealt_to_a_fold(
    stores, write_store, tmp_path
):
    table = tmp_path / "suspects.csv"
    table.write_text("name,split,index,kind,verdict\ntrain/7,train,7,outlier,exclude\n")
    labels = [stores[0].labels(split) for split in SPLITS]
    values = [stores[0].embeddings(split).copy() for split in SPLITS]
    values[0][7] = 1e4
    changed = write_store(values, labels, backbone="changed")
    for recipe in ({"recipe": "ridge", "strength": (1.0,)}, {"seeds": 1, "epochs": 2}):
        scores = []
        for store in (stores[0], changed):
            derived = DerivedStore([store], Transform("whiten"))
            folder = tmp_path / store.info.backbone
            [record] = probe(derived, runs=folder, exclude=table, folds=Folds(3), **recipe)
            scores.append(read_predictions(Path(record.path))["test_score"])
        assert len(scores[0]) == SIZES[0] + SIZES[1] - 1
        np.testing.assert_array_equal(*scores)
