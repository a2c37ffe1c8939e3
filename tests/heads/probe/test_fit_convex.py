"""`probe` with recipes that have a unique optimum, on a store of digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from medplus import extract, open_store, probe
from medplus.errors import UsageError
from medplus.evaluation import evaluate


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    images = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    parts = {"train": slice(0, 300), "val": slice(300, 400), "test": slice(400, 500)}
    arrays = {f"{name}_images": images[part] for name, part in parts.items()}
    arrays |= {f"{name}_labels": y[part, None] for name, part in parts.items()}
    np.savez(folder / "digits.npz", **arrays)
    made = extract(str(folder / "digits.npz"), None, "pixels", store=folder / "embeddings")
    return open_store(made.path)


def test_lbfgs_is_logistic_regression_and_the_best_strength_on_val_is_marked(store, tmp_path):
    strengths = [1e-3, 1.0, 100.0]
    records = probe(store, recipe="lbfgs", strength=strengths, runs=tmp_path)
    x = {split: np.asarray(store.embeddings(split), np.float64) for split in ("train", "test")}
    y = {split: store.labels(split)[:, 0] for split in ("train", "test")}
    for record, c in zip(records, strengths, strict=True):
        oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x["train"], y["train"])
        assert record.strength == c
        assert record.metrics["test"]["acc"] == pytest.approx(oracle.score(x["test"], y["test"]))
    best = max(records, key=lambda one: one.metrics["val"]["acc"])
    assert [one.selected for one in records] == [one.run_id == best.run_id for one in records]


def test_ridge_is_calibrated_and_its_saved_head_scores_the_same(store, tmp_path):
    [record] = probe(store, recipe="ridge", strength=1.0, runs=tmp_path)
    assert record.metrics["test"]["ece"] < 0.1
    again = evaluate(record.path, store=str(store.path))
    assert again.metrics["test"]["acc"] == record.metrics["test"]["acc"]
    assert again.metrics["test"]["auc"] == pytest.approx(record.metrics["test"]["auc"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recipe": "lbfgs", "lr": 0.1}, "leave out --lr"),
        ({"recipe": "ridge", "seeds": 1}, "leave out --seed"),
        ({"recipe": "grid", "strength": 1.0}, "leave out --strength"),
        ({"recipe": "ridge", "strength": -1.0}, "strength = "),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(store, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        probe(store, runs=tmp_path, **options)
