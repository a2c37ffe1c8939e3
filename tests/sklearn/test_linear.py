"""The heads of `medplus.probe` as a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

import medplus
from medplus.errors import UsageError
from medplus.sklearn import LinearProbe
from medplus.vocabulary import MULTI_LABEL

NAMES = np.array(["normal", "malignant", "benign"])
SEED = 5


def data(n=300, dim=6):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return (rng.normal(size=(n, dim)) + labels[:, None] * 0.8).astype("f4"), labels


def parts(*arrays):
    return [[a[p] for p in (slice(0, 180), slice(180, 240), slice(240, None))] for a in arrays]


def run_scores(store, recipe, folder, **fields):
    records = medplus.probe(store, recipe=recipe, runs=folder, **fields)
    [record] = [record for record in records if record.selected]
    saved = medplus.predictions(record.path).query("split == 'test'")
    return record, saved.filter(like="p_").to_numpy()


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [("paper", {}), ("grid", {"epochs": 20}), ("lbfgs", {"strength": (0.001, 0.1)}),
     ("ridge", {"strength": (1.0, 1000.0)})],
)  # fmt: skip
def test_scores_and_choice_are_those_of_a_run_on_a_store(recipe, fields, write_store, tmp_path):
    (x, val_x, test_x), (y, val_y, _) = rows, labels = parts(*data())
    store = write_store(rows, labels)
    seeds = {} if recipe in ("lbfgs", "ridge") else {"seeds": SEED}
    record, expected = run_scores(store, recipe, tmp_path, **fields, **seeds)
    head = LinearProbe(recipe, seed=SEED, **fields)
    head.fit(x, NAMES[y], validation=(val_x, NAMES[val_y]))
    order = np.argsort(np.argsort(NAMES))  # classes are sorted by name
    direct = LinearProbe(recipe, seed=SEED, **fields).fit(x, y, validation=(val_x, val_y))
    np.testing.assert_allclose(direct.predict_proba(test_x), expected, atol=1e-5)
    assert direct.setting_["val_acc"] == record.metrics["val"]["acc"]
    for name in direct.setting_.keys() - {"val_acc"}:
        assert direct.setting_[name] == getattr(record, name)
    if recipe in ("lbfgs", "ridge"):  # no first weights whose order matters
        found = head.predict_proba(test_x)[:, order]
        np.testing.assert_allclose(found, direct.predict_proba(test_x), atol=1e-5)
    assert set(head.predict(test_x)) <= set(NAMES)
    assert head.predict(test_x).tolist() == [
        head.classes_[at] for at in head.predict_proba(test_x).argmax(1)
    ]


def test_one_strength_learns_from_every_row_as_logistic_regression_does():
    x, y = data()
    head = LinearProbe("lbfgs", strength=0.1).fit(x, NAMES[y])
    oracle = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(x, NAMES[y])
    np.testing.assert_allclose(head.predict_proba(x), oracle.predict_proba(x), atol=1e-4)


def test_rows_that_choose_are_a_stratified_share_that_is_not_learned_from():
    """Rows far from all others move a head that learns from them."""
    x, y = data()
    all_rows = LinearProbe(lr=0.01, epochs=3, val_fraction=0).fit(x, y)
    some = LinearProbe(lr=0.01, epochs=3, val_fraction=0.25).fit(x, y)
    again = LinearProbe(lr=0.01, epochs=3, val_fraction=0.25).fit(x, y)
    np.testing.assert_array_equal(some.coef_, again.coef_)
    assert not np.allclose(all_rows.coef_, some.coef_)
    assert np.isnan(all_rows.setting_["val_acc"])
    assert some.setting_["val_acc"] * 75 == pytest.approx(round(some.setting_["val_acc"] * 75))


def test_several_labels(write_store, tmp_path):
    x, _ = data()
    flags = (x[:, :4] + np.random.default_rng(1).normal(size=(300, 4)) > 1).astype(np.uint8)
    rows, labels = parts(x, flags)
    store = write_store(rows, labels, task=MULTI_LABEL)
    _, expected = run_scores(store, "paper", tmp_path, seeds=SEED, lr=0.01)
    head = LinearProbe(lr=0.01, seed=SEED)
    head.fit(rows[0], labels[0], validation=(rows[1], labels[1]))
    found = head.predict_proba(rows[2])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(head.predict(rows[2]), found > 0.5)
    assert roc_auc_score(labels[2], found) > 0.8
    held_out = LinearProbe("ridge", strength=(1.0, 10.0)).fit(x, flags)
    assert held_out.predict(x).shape == (300, 4)


def test_cross_validated_by_area_under_the_curve():
    x, y = data()
    head = LinearProbe(lr=0.1, epochs=10)
    assert cross_val_score(head, x, NAMES[y], scoring="roc_auc_ovr", cv=3).min() > 0.7


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [({"recipe": "grind"}, UsageError, "unknown recipe 'grind'; did you mean 'grid'"),
     ({"recipe": "lbfgs", "lr": 0.1}, UsageError, "leave out --lr: --recipe lbfgs"),
     ({"strength": 0.1}, UsageError, "leave out --strength"),
     ({"lr": -1.0}, UsageError, "lr = .*greater than 0"),
     ({"val_fraction": 1.0}, UsageError, "val_fraction = 1.0"),
     ({"val_fraction": 0}, UsageError, "give one learning rate"),
     ({"recipe": "ridge", "val_fraction": 0}, UsageError, "lbfgs with one strength"),
     ({"device": "tpu"}, UsageError, "unknown device 'tpu'")],
)  # fmt: skip
def test_what_cannot_be_is_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        LinearProbe(**parameters).fit(*data(30))


def test_a_class_that_only_the_validation_rows_have_is_named():
    x, y = data(30)
    with pytest.raises(ValueError, match="class 'other' of the validation rows"):
        LinearProbe(lr=0.1).fit(x, NAMES[y], validation=(x[:2], ["benign", "other"]))
