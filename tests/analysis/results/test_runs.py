"""From records on disk to one row per run: what is read, what is skipped, and what is told."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.analysis.results.runs import RUN_COLUMNS, read_runs
from medplus.errors import RunError
from medplus.run.record import RunRecord
from medplus.seal import seal
from tests.analysis.ledgers import make_record, write_record

pytestmark = pytest.mark.usefixtures("fast_disk")


def change(record: RunRecord, **fields: Any) -> str:
    """Change a record on disk, and return its folder."""
    path = Path(record.path) / "record.json"
    document = {**json.loads(path.read_text()), **fields}
    document.pop("seal", None)
    path.write_text(json.dumps(seal(document)))  # or every change would be damage
    return record.path


def test_a_run_becomes_a_row_in_percent(tmp_path: Path) -> None:
    record = write_record(
        tmp_path, "probe", "toy", "resnet18", 64, 7, 0.8125, 0.75, auc=0.5, interval=(0.7, 0.9),
        cost={"device": "H100", "device_seconds": 3.0}, images="i", weights_digest="w",
    )  # fmt: skip
    runs = read_runs(tmp_path)
    (row,) = runs.table.to_dict("records")

    assert list(runs.table.columns) == RUN_COLUMNS
    assert runs.skipped == ()
    assert (row["dataset"], row["protocol"], row["backbone"]) == ("toy", "probe", "resnet18")
    assert (row["size"], row["seed"], row["run"]) == (64, 7, record.path)
    scores = [row[name] for name in ("acc", "auc", "acc_low", "acc_high", "val_acc", "val_auc")]
    np.testing.assert_allclose(scores, [81.25, 50, 70, 90, 75, 50])
    assert row["digests"] == ("i", "w")
    assert row["conditions"] == {
        "data": "official", "weights": "trained", "fit": "pad", "precision": "fp32",
        "dtype": "float32", "feature": "prelogits", "lr": "0.0001", "weight_decay": "0.01",
        "epochs": "100",
        "batch_size": "64", "patience": "5",
    }  # fmt: skip


def test_raw_pixels_go_with_any_weights_fit_and_precision(tmp_path: Path) -> None:
    write_record(tmp_path, "knn", "toy", "pixels", fit="native", precision="bf16", weights="none")
    conditions = read_runs(tmp_path).table["conditions"].iloc[0]

    assert {conditions[name] for name in ("weights", "fit", "precision", "feature")} == {"any"}
    assert conditions["k"] == "11"


def test_finetuning_tells_its_whole_recipe_and_the_settled_precision(tmp_path: Path) -> None:
    write_record(tmp_path, "finetune", mixup=0.25, precision="bf16", weights="none")
    conditions = read_runs(tmp_path).table["conditions"].iloc[0]

    assert conditions["mixup"] == "0.25"
    assert conditions["precision"] == "bf16"
    assert conditions["devices"] == "1"
    assert conditions["weights"] == "random"
    assert "dtype" not in conditions


def test_seeds_keep_all_their_digits_beside_runs_without_one(tmp_path: Path) -> None:
    write_record(tmp_path, "knn")
    for seed in (2**62, 2**62 + 1):
        write_record(tmp_path, seed=seed)

    assert set(read_runs(tmp_path).table["seed"].dropna()) == {2**62, 2**62 + 1}


def test_cost_is_a_share_of_what_was_computed_together(tmp_path: Path) -> None:
    write_record(tmp_path, "finetune", cost={"device_seconds": 12.0, "shared_by": 4})
    write_record(tmp_path, "finetune", seed=2, cost={"seconds": 12.0})
    seconds = read_runs(tmp_path).table.set_index("seed")["device_seconds"]

    assert seconds[1] == 3.0
    assert math.isnan(seconds[2])


def test_cost_includes_the_whole_extraction(
    tmp_path: Path, write_store: Callable[..., Any]
) -> None:
    store = write_store([np.eye(3)] * 3, [np.arange(3)] * 3)  # cost 1 s
    record = make_record(tmp_path, cost={"device_seconds": 12.0, "shared_by": 4})
    for seed, key in ((1, store.key), (2, "0" * 64)):
        of_store = {"path": str(store.path), "key": key}
        write_record(tmp_path, seed=seed, cost=record.cost)
        change(make_record(tmp_path, seed=seed), store=of_store)
    seconds = read_runs(tmp_path).table.set_index("seed")["device_seconds"]

    assert seconds[1] == 4.0
    assert math.isnan(seconds[2])  # another store lies there now

    shutil.rmtree(store.path)
    assert read_runs(tmp_path).table["device_seconds"].isna().all()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schema_version": 99}, "schema 99"),
        ({"metrics": {"val": {"acc": 0.5}}}, "lacks 'test'"),
        ({"metrics": {"test": {"auc": 0.5}}}, "lacks 'acc'"),
        ({"metrics": {"test": {"acc": None}}}, "damaged"),
        ({"metrics": {"test": {"acc": 93.5}}}, "a test ACC of 93.5"),
        ({"metrics": {"test": {"acc": 0.5, "acc_ci95": [1, 2, 3]}}}, "damaged"),
        ({"cost": {"device_seconds": 1, "shared_by": 0}}, "damaged"),
        ({"cost": {"device_seconds": "long"}}, "damaged"),
        ({"cost": {"device_seconds": 1}, "store": {"fit": "pad"}}, "'store.path' is invalid"),
        ({"size": "large"}, "'size' is invalid"),
        ({"surprise": 1}, "'surprise' is invalid"),
        ({"dataset": "average"}, "'average'"),
    ],
)
def test_damaged_records_are_skipped_and_named(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    good = write_record(tmp_path, seed=1)
    damaged = change(write_record(tmp_path, seed=2), **fields)
    runs = read_runs(tmp_path)

    assert list(runs.table["run"]) == [good.path]
    ((path, reason),) = runs.skipped
    assert path == damaged
    assert says in reason


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": 1}'])
def test_what_is_no_record_is_skipped(content: bytes, tmp_path: Path) -> None:
    write_record(tmp_path, seed=1)
    damaged = write_record(tmp_path, seed=2)
    (Path(damaged.path) / "record.json").write_bytes(content)

    ((path, reason),) = read_runs(tmp_path).skipped
    assert path == damaged.path
    assert "is damaged" in reason


def test_moved_runs_are_found_where_they_are(tmp_path: Path) -> None:
    write_record(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")

    assert Path(read_runs(tmp_path / "new").table["run"].iloc[0]).is_relative_to(tmp_path / "new")


def test_runs_under_way_and_evaluations_are_no_runs(tmp_path: Path) -> None:
    first = Path(write_record(tmp_path, seed=1).path)
    for name in (f"{first.name}.partial", f".{first.name}.tmp-1"):
        shutil.copytree(first, first.with_name(name))
    shutil.copytree(first, first / "evaluations" / "toy-28-abc")

    assert list(read_runs(tmp_path).table["run"]) == [str(first)]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no folder .*none; .*medplus report --out DIR"):
        read_runs(tmp_path / "none")


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["a/b/c/d/e/notes.txt"]])
def test_an_empty_or_foreign_folder(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=r"holds no runs; medplus knn, probe and finetune make"):
        read_runs(tmp_path)


def test_a_folder_of_damaged_records_only(tmp_path: Path) -> None:
    for seed in (1, 2):
        change(write_record(tmp_path, seed=seed), schema_version=0)
    with pytest.raises(RunError, match=r"no runs; 2 could not be read, the first: .*schema 0"):
        read_runs(tmp_path)
