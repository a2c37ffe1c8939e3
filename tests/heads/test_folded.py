"""Cross-validated heads: scikit-learn's folds, each row out of fold, none of it seen before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from medplus.auditing.consequences import score_runs
from medplus.errors import UsageError
from medplus.heads.knn import knn
from medplus.heads.probe import probe
from medplus.run.foldmeans import summaries, summarise
from medplus.run.folds import Folds, deal
from medplus.run.ledger import read_predictions
from medplus.vocabulary import SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")
SIZES = (60, 24, 30)


def clouds(seed=0):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, 3, n) for n in SIZES]
    centres = rng.normal(size=(3, 5))
    return [(centres[y] + rng.normal(size=(len(y), 5))).astype("f4") for y in labels], labels


@pytest.fixture(scope="module")
def store(write_store):
    return write_store(*clouds())


def everything(store, pool):
    splits = SPLITS if pool else ("train", "val")
    x = np.concatenate([store.embeddings(split) for split in splits])
    return x, np.concatenate([store.labels(split) for split in splits])


@pytest.mark.parametrize("pool", [False, True])
def test_out_of_fold_predictions_are_those_of_scikit_learns_folds(store, pool, tmp_path):
    x, y = everything(store, pool)
    records = knn(store, 3, runs=tmp_path, folds=Folds(4, 2, pool))
    assert [record.folds.repeat for record in records] == [0, 1]
    for record in records:
        folds = StratifiedKFold(4, shuffle=True, random_state=record.folds.repeat)
        tests = [test for _, test in folds.split(x, y)]
        expected = np.empty(len(y))
        for i, test in enumerate(tests):
            train = np.sort(
                np.concatenate([tests[j] for j in range(4) if j not in (i, (i + 1) % 4)])
            )
            model = KNeighborsClassifier(3, algorithm="brute").fit(x[train], y[train, 0])
            expected[test] = model.predict(x[test])
            assert record.folds.acc[i] == pytest.approx((expected[test] == y[test, 0]).mean())
        saved = read_predictions(Path(record.path))
        np.testing.assert_array_equal(saved["test_score"].argmax(1), expected)
        np.testing.assert_array_equal(saved["test_true"], y)
        assert record.metrics["test"]["acc"] == pytest.approx((expected == y[:, 0]).mean())
        assert saved["test_name"][SIZES[0]] == "val/0"


def test_groups_stay_whole_and_are_dealt_as_scikit_learn_deals_them():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, (80, 1)), [f"p{i}" for i in rng.integers(0, 25, 80)]
    dealt = deal(y, groups, Folds(5), 3, multi_label=False)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=3)
    expected = [test for _, test in splitter.split(y, y[:, 0], groups)]
    for found, wanted in zip(dealt, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert sum(len({groups[row] for row in rows}) for rows in dealt) == len(set(groups))


def test_an_oracle_in_the_tested_rows_changes_nothing_that_was_chosen(write_store, tmp_path):
    embeddings, labels = clouds()
    options = {"lr": (1e-3, 0.03, 1.0), "epochs": 4, "folds": Folds(3, pool=True)}
    [honest] = probe(write_store(embeddings, labels), 1, runs=tmp_path, **options)
    y = np.concatenate(labels)
    tested = next(StratifiedKFold(3, shuffle=True, random_state=0).split(y, y))[1]
    planted = np.concatenate(embeddings)
    planted[tested, :3] += 100 * np.eye(3, dtype="f4")[(y[tested] + 1) % 3]
    parts = np.split(planted, np.cumsum(SIZES)[:-1])
    [oracle] = probe(write_store(parts, labels), 1, runs=tmp_path / "other", **options)
    assert honest.folds.acc[0] != oracle.folds.acc[0]
    assert honest.folds.chosen[0] == oracle.folds.chosen[0]
    # What the first fold says of its val rows, which are tested by the next, is what it was.
    val = list(StratifiedKFold(3, shuffle=True, random_state=0).split(y, y))[1][1]
    one, other = (read_predictions(Path(r.path))["val_score"][val] for r in (honest, oracle))
    np.testing.assert_array_equal(one, other)


def test_a_repeat_that_exists_is_not_computed_again(store, tmp_path):
    first = knn(store, (1, 3), runs=tmp_path, folds=Folds(3))
    again = knn(store, (1, 3), runs=tmp_path, folds=Folds(3, 2))
    assert [r.created for r in first] == [again[0].created]
    assert len({r.run_id for r in again}) == 2
    [row] = summaries(again)
    assert row["repeats"] == 2
    values = [value for record in again for value in record.folds.acc]
    assert row["acc"]["mean"] == pytest.approx(np.mean(values))


def test_the_interval_is_nadeaus_and_bengios():
    values = [0.8, 0.82, 0.75, 0.9, 0.78]
    found = summarise(values, 80, 20)
    half = 2.7764451 * np.sqrt((1 / 5 + 0.25) * np.var(values, ddof=1))
    assert found[1:] == pytest.approx((np.mean(values) - half, np.mean(values) + half))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda store: Folds(2), "too few"),
        (lambda store: knn(store, folds=Folds(60)), "exceeds the .* images of class"),
    ],
)
def test_folds_that_cannot_be_dealt_are_refused(store, make, message):
    with pytest.raises(UsageError, match=message):
        make(store)


def test_an_audit_leaves_out_the_test_images_that_it_found_and_no_others(store, tmp_path):
    found = {"twins": np.array([0, 5])}
    for pool in (False, True):
        [record] = knn(store, 3, runs=tmp_path, folds=Folds(3, pool=pool))
        root = Path(record.path).parents[4]
        scored = score_runs(root, store.info.dataset_digest, found)
        if not pool:
            assert scored == []
            continue
        saved = read_predictions(Path(record.path))
        keep = np.ones(sum(SIZES), bool)
        keep[SIZES[0] + SIZES[1] + found["twins"]] = False
        right = saved["test_score"].argmax(1) == saved["test_true"][:, 0]
        assert scored[0].acc.without == pytest.approx(right[keep].mean())
