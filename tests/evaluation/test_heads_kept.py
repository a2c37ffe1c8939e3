"""Heads on embeddings made of others, and those of folds, are scored again as they were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import medplus
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.transform import Transform
from medplus.errors import StoreError, UsageError
from medplus.heads.saved import read_heads
from medplus.run.folds import Folds
from medplus.run.ledger import read_predictions

pytestmark = pytest.mark.usefixtures("fast_disk")
SIZES = (40, 25, 30)
QUICK = {"lr": 0.05, "epochs": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def root(new_folder):
    return new_folder()


@pytest.fixture(scope="module")
def stores(write_store, root):
    """Two backbones on the data, and on other data of the same classes."""

    def write(seed, **more):
        rng = np.random.default_rng(seed)
        labels = [np.arange(n) % 3 for n in SIZES]
        return [
            write_store(
                [(rng.normal(size=(n, dim)) + y[:, None] / 2).astype("f4")
                 for n, y in zip(SIZES, labels, strict=True)],
                labels, root=root, backbone=name, backbone_digest=name * 8, **more,
            )
            for name, dim in (("one", 4), ("two", 6))
        ]  # fmt: skip

    return write(0), write(1, dataset="other", dataset_digest="e" * 64)


@pytest.mark.parametrize("text", [None, "pca:3", "whiten", "l2"])
def test_on_its_own_embeddings_a_derived_head_scores_what_was_recorded(text, stores, tmp_path):
    transform = None if text is None else Transform.parse(text)
    [run] = medplus.probe(DerivedStore(stores[0], transform), 3, runs=tmp_path, **QUICK)
    found = medplus.evaluate(run.path, device="cpu")
    one, other = (read_predictions(Path(record.path)) for record in (run, found))
    np.testing.assert_allclose(one["test_score"], other["test_score"], atol=1e-6)
    assert found.metrics["val"]["acc"] == run.metrics["val"]["acc"]


def test_on_other_data_a_derived_head_takes_what_was_fitted_on_its_own_train(
    stores, root, tmp_path
):
    ours, theirs = stores
    [run] = medplus.probe(DerivedStore(ours), 3, runs=tmp_path, **QUICK)
    found = medplus.evaluate(run.path, "other", store=root, device="cpu")
    x = np.hstack([
        StandardScaler().fit(a.embeddings("train")).transform(b.embeddings("test"))
        for a, b in zip(ours, theirs, strict=True)
    ])  # fmt: skip
    [head] = read_heads(Path(run.path))
    expected = (torch.from_numpy(x) @ head.weight.T + head.bias).softmax(1)
    np.testing.assert_allclose(
        read_predictions(Path(found.path))["test_score"], expected, atol=1e-5
    )


def test_other_weights_of_a_part_are_refused(stores, root, write_store, tmp_path):
    [run] = medplus.probe(DerivedStore(stores[0]), 3, runs=tmp_path, **QUICK)
    values = [np.zeros((n, 4), "f4") for n in SIZES]
    labels = [np.arange(n) % 3 for n in SIZES]
    write_store(values, labels, root=tmp_path / "s", backbone="one", dataset="other")
    with pytest.raises(StoreError, match="of other weights of one"):
        medplus.evaluate(run.path, "other", store=tmp_path / "s", device="cpu")


@pytest.mark.parametrize("joined", [False, True])
def test_the_heads_of_folds_are_averaged_on_data_that_none_has_seen(stores, root, joined, tmp_path):
    ours, theirs = stores
    store = DerivedStore(ours) if joined else ours[0]
    [run] = medplus.probe(store, 3, runs=tmp_path, folds=Folds(3), **QUICK)
    heads = read_heads(Path(run.path))
    assert len(heads) == 3
    found = medplus.evaluate(run.path, "other", store=root, splits=("test",), device="cpu")
    parts = [part.embeddings("test") for part in (theirs if joined else theirs[:1])]
    each = [
        (torch.from_numpy(head.fit.apply(parts)) @ head.weight.T + head.bias).softmax(1)
        for head in heads
    ]
    saved = read_predictions(Path(found.path))["test_score"]
    np.testing.assert_allclose(saved, torch.stack(each).mean(0), atol=1e-5)
    assert medplus.evaluate(run.path, splits=("test",), device="cpu").dataset == run.dataset
    with pytest.raises(UsageError, match="has learned from train, val"):
        medplus.evaluate(run.path, device="cpu")
