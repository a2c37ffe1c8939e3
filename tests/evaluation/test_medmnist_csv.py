"""The files are those that MedMNIST's own evaluator reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from medmnist import Evaluator

import medplus
from medplus.datasets import catalog
from medplus.errors import RunError, UsageError
from medplus.evaluation.medmnist_csv import file_name, write_csv
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL

pytestmark = pytest.mark.usefixtures("fast_disk")

CPU = {"device": "cpu"}
DATA = {
    ("breastmnist", 28): {"task": "binary-class", "classes": 2},
    ("retinamnist", 64): {"task": "ordinal-regression", "classes": 5, "channels": 3},
    ("bloodmnist", 28): {"task": "multi-class", "classes": 8, "channels": 3},
    ("chestmnist", 64): {"task": MULTI_LABEL, "classes": 14},
}


@pytest.fixture
def evaluated(write_npz, write_finetuned, tmp_path):
    """Return a function that evaluates a run on a small file under a flag's name."""

    def evaluate(flag="breastmnist", size=28, **options):
        facts = DATA[flag, size]
        names = catalog.info(flag).classes
        n_labels = facts["classes"] if facts["task"] == MULTI_LABEL else 1
        npz = write_npz(
            flag if size == 28 else f"{flag}_{size}",
            n=(10, 30, 40),
            size=size,
            channels=facts.get("channels", 1),
            classes=facts["classes"],
            n_labels=n_labels,
            folder=tmp_path / "data",
        )
        folder, _ = write_finetuned(
            dataset=flag,
            size=size,
            channels=facts.get("channels", 1),
            classes=names,
            task=facts["task"],
        )
        options = {"data_root": npz.parent, "csv": tmp_path / "csv", **CPU, **options}
        return medplus.evaluate(folder, **options), options["csv"]

    (tmp_path / "data").mkdir()
    return evaluate


def from_name(path):
    """The AUC and ACC that a file's name tells."""
    found = re.search(r"\[AUC\](.*)_\[ACC\](.*)@", path.name)
    assert found is not None
    return float(found[1]), float(found[2])


@pytest.mark.parametrize(("flag", "size"), DATA)
def test_medmnists_evaluator_reads_the_same_scores_back(
    flag, size, evaluated, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    record, csv = evaluated(flag, size)
    # Its parser takes no root, only the default one.
    monkeypatch.setattr(Evaluator.__init__, "__defaults__", (None, str(tmp_path / "data")))
    files = sorted(csv.iterdir())
    assert len(files) == 2
    for path in files:
        split = "val" if "_val_" in path.name else "test"
        area, accuracy = Evaluator.parse_and_evaluate(str(path))
        assert accuracy == pytest.approx(record.metrics[split]["acc"], abs=1e-9)
        assert area == pytest.approx(record.metrics[split]["auc"], abs=1e-9)
        assert from_name(path) == pytest.approx((area, accuracy), abs=6e-4)
    # It writes what it has read under the name that it gives it: the same.
    assert sorted(csv.iterdir()) == files


@pytest.mark.parametrize(("flag", "size"), DATA)
def test_lines_hold_index_and_scores_exactly(flag, size, evaluated):
    record, csv = evaluated(flag, size)
    kept = read_predictions(Path(record.path))
    [path] = csv.glob("*_test_*")
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert [int(row[0]) for row in rows] == list(range(40))
    scores = np.array([[float(value) for value in row[1:]] for row in rows]).astype("f4")
    np.testing.assert_array_equal(scores, kept["test_score"])


def test_names_are_medmnists(evaluated):
    record, csv = evaluated("chestmnist", 64, splits=["test"])
    [path] = csv.iterdir()
    metrics = record.metrics["test"]
    assert path.name == (
        f"chestmnist_64_test_[AUC]{metrics['auc']:.3f}_[ACC]{metrics['acc']:.3f}"
        "@paper-seed1-0123abcd.csv"
    )
    _, csv = evaluated("breastmnist", 28, splits=["val"])
    assert [p.name.startswith("breastmnist_val_[AUC]") for p in csv.glob("breast*")] == [True]


def test_the_name_of_the_run_holds_nothing_that_ends_it(evaluated, tmp_path):
    record, _ = evaluated()
    odd = record.model_copy(update={"run_id": "seed1-lr0.0001@x/y-ab"})
    name = file_name(odd, "test")
    assert name.endswith("@seed1-lr0_0001_x_y-ab.csv")
    assert name.count("@") == 1


def test_an_undefined_auc_is_nan_in_the_name(evaluated):
    record, _ = evaluated()
    record.metrics["test"]["auc"] = None
    assert "_[AUC]nan_[ACC]" in file_name(record, "test")


def test_rows_keep_their_own_index(evaluated, tmp_path):
    record, _ = evaluated(splits=["test"])
    predictions = {
        "test_score": np.array([[0.25, 0.75], [1.0, 0.0]], "f4"),
        "test_index": np.array([7, 3]),
    }
    path = write_csv(record, predictions, tmp_path / "new/folder")["test"]
    assert path.read_text() == "7,0.25,0.75\n3,1,0\n"


# --- data that the evaluator does not know ----------------------------------------------------


def test_other_datasets_are_refused_before_they_are_scored(write_npz, write_finetuned, tmp_path):
    folder, _ = write_finetuned()
    npz = write_npz("toy", n=(9, 8, 7), classes=3)
    with pytest.raises(UsageError, match=r"no dataset 'toy'; leave --csv out"):
        medplus.evaluate(folder, str(npz), csv=tmp_path / "csv", **CPU)
    assert not (folder / "evaluations").exists()


def test_other_sizes_are_refused(write_npz, write_finetuned, tmp_path):
    folder, _ = write_finetuned(size=12, classes=2, task="binary-class")
    npz = write_npz("breastmnist", n=(9, 8, 7), size=12)
    with pytest.raises(UsageError, match="no breastmnist of 12 px"):
        medplus.evaluate(folder, str(npz), csv=tmp_path / "csv", **CPU)


def test_files_with_a_flags_name_but_other_classes_are_refused(
    write_npz, write_finetuned, tmp_path
):
    folder, _ = write_finetuned(size=28, classes=3)
    npz = write_npz("breastmnist", n=(9, 8, 7), size=28, classes=3)
    with pytest.raises(UsageError, match="breastmnist has 2 classes, these data have 3"):
        medplus.evaluate(folder, str(npz), csv=tmp_path / "csv", **CPU)


def test_a_folder_that_cannot_be_is_named(evaluated, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.*cannot be written.*--csv"):
        evaluated(csv=tmp_path / "file")
