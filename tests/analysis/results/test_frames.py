"""Runs and predictions as data frames."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.analysis.results.frames import predictions, runs
from medplus.errors import RunError
from tests.analysis.ledgers import accuracy, predict, write_record


def test_a_row_per_run_with_flat_columns(tmp_path):
    first = write_record(tmp_path, backbone="resnet18", acc=0.75, seed=2)
    second = write_record(tmp_path, "knn", backbone="vgg16", acc=0.5)
    table = runs(tmp_path).set_index("run_id")
    assert len(table) == 2
    assert table.loc[first.run_id, ["backbone", "seed", "test_acc"]].tolist() == [
        "resnet18", 2, 0.75
    ]  # fmt: skip
    assert table.loc[second.run_id, "path"] == second.path
    assert not any(isinstance(value, dict | list) for value in table.iloc[0])


def test_a_row_per_image_gives_the_accuracy_again(tmp_path):
    saved = predict()
    record = write_record(tmp_path, backbone="resnet18", acc=accuracy(saved), predictions=saved)
    table = predictions(record.path)
    assert (table["true"] == table["predicted"]).mean() == pytest.approx(accuracy(saved))
    assert set(table["split"]) == {"test"}
    scores = table[[f"p_{name}" for name in record.classes]].to_numpy()
    np.testing.assert_array_equal(scores, saved["test_score"])


def test_a_folder_without_runs_is_told(tmp_path):
    with pytest.raises(RunError, match="holds no runs"):
        runs(tmp_path)
