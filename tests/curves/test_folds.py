"""Curves over folds, without suspects, and as they are kept beside runs."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from medplus.curves.curve import curve
from medplus.curves.kept import list_curves, read_curve
from medplus.errors import RunError
from medplus.run.foldmeans import summarise
from medplus.run.folds import Folds

pytestmark = pytest.mark.usefixtures("fast_disk")
SIZES = (70, 32, 30)


@pytest.fixture(scope="module")
def store(write_store):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 5))
    labels = [rng.integers(0, 3, n) for n in SIZES]
    return write_store([(centres[y] + rng.normal(size=(len(y), 5))).astype("f4") for y in labels],
                       labels)  # fmt: skip


def test_points_learn_and_are_tested_on_scikit_learns_folds(store):
    made = curve(store, (2, 5), episodes=2, protocols=("knn",), folds=Folds(3, 2), runs=None)
    x = np.concatenate([store.embeddings(split) for split in ("train", "val")])
    y = np.concatenate([store.labels(split) for split in ("train", "val")])[:, 0]
    assert len(made.points) == 2 * 3 * 2 * 2
    for point in made.points:
        folds = StratifiedKFold(3, shuffle=True, random_state=point.repeat)
        tests = [test for _, test in folds.split(x, y)]
        tested, chooses = tests[point.fold], tests[(point.fold + 1) % 3]
        assert not set(point.rows) & {*tested, *chooses}
        np.testing.assert_array_equal(np.bincount(y[point.rows]), point.amount.shots)
        model = KNeighborsClassifier(point.k, algorithm="brute").fit(x[point.rows], y[point.rows])
        assert point.test_acc == pytest.approx(model.score(x[tested], y[tested]))
        assert point.val_acc == pytest.approx(model.score(x[chooses], y[chooses]))


def test_intervals_over_folds_are_those_of_cross_validated_runs(store):
    made = curve(store, fractions=(0.5, 1.0), episodes=3, protocols=("knn",), folds=Folds(4),
                 runs=None)  # fmt: skip
    [one] = made.series
    assert one.accuracies.shape == (4, 2)
    rows = one.to_dict()
    for column, row in enumerate(rows):
        own = [
            np.mean([p.test_acc for p in made.points
                     if p.fold == fold and str(p.amount) == row["amount"]])
            for fold in range(4)
        ]  # fmt: skip
        found = summarise(own, one.stock, one.ratio * one.stock)
        assert row["mean"] == pytest.approx(found.value)
        assert row["ci95"] == pytest.approx(list(found[1:]))
        assert column == 0 or row["labels"] == pytest.approx(51, abs=1)
    assert any("4 folds" in sentence for sentence in made.sentences())


def test_what_a_table_leaves_out_is_never_learned_from(store, tmp_path):
    table = tmp_path / "suspects.csv"
    left_out = list(range(0, 70, 2))
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "index", "kind", "verdict"])
        writer.writerows([["", "train", i, "label", "exclude"] for i in left_out])
    made = curve(store, fractions=(1.0,), episodes=1, protocols=("knn",), exclude=table, runs=None)
    [point] = made.points
    assert len(point.rows) == 35
    kept = np.setdiff1d(np.arange(70), left_out)
    x, y = store.embeddings("train")[kept], store.labels("train")[kept, 0]
    model = KNeighborsClassifier(point.k, algorithm="brute").fit(x, y)
    expected = model.score(store.embeddings("test"), store.labels("test")[:, 0])
    assert point.test_acc == pytest.approx(expected)
    whole = curve(store, fractions=(1.0,), episodes=1, protocols=("knn",), runs=None)
    assert whole.config != made.config


def test_a_curve_is_kept_once_and_read_as_it_was_drawn(store, tmp_path):
    options = {"episodes": 3, "protocols": ("knn",), "runs": tmp_path, "target": 0.6}
    made = curve(store, (1, 2, 4, 8), **options)
    again = curve(store, (1, 2, 4, 8), **options)
    other = curve(store, (1, 2, 4), **options)
    assert made.path == again.path != other.path
    assert list_curves(tmp_path) == sorted([made.path, other.path])
    read = read_curve(made.path)
    assert read.sentences() == made.sentences()
    assert read.stores == {store.info.backbone: store.key}
    assert read.path.stat().st_size < 5000


@pytest.mark.parametrize("change", ["flip", "schema", "cut", "foreign"])
def test_a_kept_curve_that_is_damaged_is_refused_in_a_sentence(store, tmp_path, change):
    made = curve(store, (1, 2), episodes=2, protocols=("knn",), runs=tmp_path)
    document = json.loads(made.path.read_text())
    if change == "flip":
        document["series"][0]["accuracies"][0][0] += 0.1
    elif change == "schema":
        document["schema_version"] = 99
    text = json.dumps([] if change == "foreign" else document)
    made.path.write_text(text[:100] if change == "cut" else text)
    with pytest.raises(RunError, match="damaged; delete it"):
        read_curve(made.path)
