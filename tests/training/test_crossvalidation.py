"""Fine-tuning over folds: each fold a run on scikit-learn's rows, all of them joined as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from medplus import evaluate, finetune
from medplus.errors import UsageError
from medplus.run.folds import Folds
from medplus.run.ledger import read_predictions, read_record

pytestmark = pytest.mark.usefixtures("fast_disk", "no_picture")

SIZES = (27, 12, 9)
QUICK = {"backbone": "test_vit", "weights": "none", "epochs": 2, "batch_size": 13, "device": "cpu"}
FOLDS = Folds(3)


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    labels = [rng.permutation(np.arange(n) % 2)[:, None] for n in SIZES]
    images = [rng.integers(0, 120, (n, 32, 32)) + 90 * y[:, :, None] for n, y in
              zip(SIZES, labels, strict=True)]  # fmt: skip
    return [x.astype(np.uint8) for x in images], [y.astype(np.uint8) for y in labels]


def write(folder, images, labels, name="toy"):
    folder.mkdir(exist_ok=True)
    named = {}
    for split, x, y in zip(("train", "val", "test"), images, labels, strict=True):
        named |= {f"{split}_images": x, f"{split}_labels": y}
    np.savez(folder / f"{name}.npz", **named)
    return str(folder / f"{name}.npz")


def dealt(labels, n=3, repeat=0):
    y = np.concatenate(labels[:2])[:, 0]
    folds = StratifiedKFold(n, shuffle=True, random_state=repeat)
    return [test for _, test in folds.split(y, y)]


def parts(values, tests, number):
    pooled = np.concatenate(values[:2])
    val = (number + 1) % len(tests)
    rest = np.sort(np.concatenate([t for i, t in enumerate(tests) if i not in (number, val)]))
    return [pooled[rows] for rows in (rest, tests[val], tests[number])]


@pytest.fixture(scope="module")
def folded(new_folder):
    """The data, and the run that three folds make together."""
    folder = new_folder()
    images, labels = arrays()
    path = write(folder / "data", images, labels)
    [record] = finetune(path, runs=folder / "runs", folds=FOLDS, **QUICK)
    return folder, path, images, labels, record


def test_each_fold_is_the_training_on_scikit_learns_rows(folded, tmp_path):
    _, _, images, labels, record = folded
    tests = dealt(labels)
    saved = read_predictions(Path(record.path))
    for number in range(3):
        alone = write(tmp_path / f"{number}", parts(images, tests, number),
                      parts(labels, tests, number))  # fmt: skip
        [plain] = finetune(alone, runs=tmp_path / "runs", **QUICK)
        own = read_predictions(Path(plain.path))
        np.testing.assert_array_equal(saved["test_score"][tests[number]], own["test_score"])
        val = tests[(number + 1) % 3]
        np.testing.assert_array_equal(saved["val_score"][val], own["val_score"])
        assert record.folds.acc[number] == plain.metrics["test"]["acc"]
        assert record.folds.chosen[number]["best_epoch"] == plain.best_epoch
    assert record.folds.n_test == [len(test) for test in tests]


def test_the_joined_run_is_read_like_any_other(folded):
    folder, *_, labels, record = folded
    path = Path(record.path)
    assert path.is_relative_to(folder / "runs" / "folds3" / "repeat0" / "finetune")
    assert read_record(path).folds == record.folds
    saved = read_predictions(path)
    np.testing.assert_array_equal(saved["test_true"], np.concatenate(labels[:2]))
    assert saved["test_split"].tolist() == ["train"] * 27 + ["val"] * 12
    right = (saved["test_score"].argmax(1) == saved["test_true"][:, 0]).mean()
    assert record.metrics["test"]["acc"] == pytest.approx(right)


def test_scored_again_it_names_the_networks_of_its_folds(folded):
    with pytest.raises(UsageError, match=r"in .*folds3/repeat0/fold0"):
        evaluate(folded[-1].path)


def test_folds_trained_one_by_one_are_joined_when_the_last_is_there(folded, tmp_path):
    _, path, *_, whole = folded
    options = {"runs": tmp_path, "folds": FOLDS, **QUICK}
    [first] = finetune(path, fold=(1,), **options)
    assert first.folds is None
    [joined] = finetune(path, fold=(0, 2), **options)
    assert joined.folds == whole.folds
    one, other = (read_predictions(Path(r.path)) for r in (whole, joined))
    np.testing.assert_array_equal(one["test_score"], other["test_score"])
    stamp = Path(first.path, "record.json").stat().st_mtime_ns
    [again] = finetune(path, **options)
    assert again.created == joined.created
    assert Path(first.path, "record.json").stat().st_mtime_ns == stamp


def test_an_oracle_in_tested_rows_neither_trains_nor_chooses(folded, tmp_path):
    _, _, images, labels, honest = folded
    tests = dealt(labels)
    planted = np.concatenate(images)
    planted[tests[0]] = 255 * np.concatenate(labels[:2])[tests[0], :, None]  # the label itself
    planted[-SIZES[2] :] = 255 * labels[2][:, :, None]  # and in the test split, which is not dealt
    path = write(tmp_path / "data", np.split(planted, np.cumsum(SIZES)[:-1]), labels)
    [oracle] = finetune(path, runs=tmp_path, folds=FOLDS, fold=(0,), **QUICK)
    one, other = (read_predictions(Path(run.path)) for run in (honest, oracle))
    np.testing.assert_array_equal(one["val_score"][tests[1]], other["val_score"])
    assert honest.folds.chosen[0]["best_epoch"] == oracle.best_epoch
    assert not np.array_equal(one["test_score"][tests[0]], other["test_score"])


def test_folds_are_counted_through_the_repeats(folded, tmp_path):
    [record] = finetune(folded[1], runs=tmp_path, folds=Folds(3, 2), fold=(4,), **QUICK)
    assert Path(record.path).is_relative_to(tmp_path / "folds3" / "repeat1" / "fold1")


def test_a_fold_that_is_none_is_refused(folded, tmp_path):
    with pytest.raises(UsageError, match="counted from 0 to 2"):
        finetune(folded[1], runs=tmp_path, folds=FOLDS, fold=(3,), **QUICK)
