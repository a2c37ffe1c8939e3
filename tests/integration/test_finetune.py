"""`medplus finetune` as a user runs it, when all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NETWORK = "test_efficientnet"  # timm's smallest with batch norm
QUICK = ("--weights", "none", "--fit", "native", "--epochs", "2", "--batch-size", "16")
TOY = ("finetune", "--dataset", "toy.npz", *QUICK)


@pytest.fixture(autouse=True)
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    return write_npz("toy", n=(36, 20, 16), size=32, classes=3, folder=tmp_path)


@pytest.fixture
def train(cli: Callable, quick_picture: None) -> Callable[..., Any]:
    """Return a function that trains on the toy and returns the record; further options win."""

    def run(*options: object, backbone: str = NETWORK, seed: int = 1) -> dict[str, Any]:
        ran = cli(*TOY, "--backbone", backbone, "--seed", seed, *options, "--json")
        assert ran.code == 0, ran.err
        [record] = ran.document["runs"]
        return dict(record)

    return run


def files_under(root: str) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in Path(root).rglob("*") if p.is_file()}


# --- the document and the folder ----------------------------------------------------------------


def test_document_and_folder_keep_their_contract(cli: Callable, leftovers: Callable) -> None:
    ran = cli(*TOY, "--backbone", NETWORK, "--json")
    [record] = ran.document["runs"]
    folder = Path(record["path"])

    expected = {
        "run_id", "path", "protocol", "dataset", "size", "backbone", "seed", "lr", "weight_decay",
        "epochs_run", "best_epoch", "metrics", "seconds", "config", "network", "training",
    }  # fmt: skip
    assert expected <= record.keys()
    assert not {"k", "store", "selected"} & record.keys()
    assert (record["protocol"], record["dataset"], record["size"]) == ("finetune", "toy", 32)
    assert (record["backbone"], record["seed"]) == (NETWORK, 9930641)
    assert {"acc", "auc", "balanced_accuracy", "macro_f1", "ece", "loss"} <= set(
        record["metrics"]["val"]
    )
    assert {"acc_ci95", "auc_ci95"} <= set(record["metrics"]["test"])
    assert 1 <= record["best_epoch"] <= record["epochs_run"] == 2
    assert folder == Path("runs/finetune/toy/32", NETWORK, record["run_id"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv", "learning_curve.png", "network.safetensors", "predictions.npz",
        "record.json",
    ]  # fmt: skip
    written = json.loads((folder / "record.json").read_text())
    assert {key: written[key] for key in written.keys() - {"files", "seal"}} == record
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    assert leftovers(Path()) == []


def test_predictions_have_the_layout_of_every_run(train: Callable) -> None:
    with np.load(Path(train()["path"]) / "predictions.npz") as archive:
        predictions = dict(archive)
    with np.load("toy.npz") as data:
        for split, n in (("val", 20), ("test", 16)):
            scores = predictions.pop(f"{split}_score")
            assert (scores.dtype, scores.shape) == (np.float32, (n, 3))
            np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
            np.testing.assert_array_equal(predictions.pop(f"{split}_true"), data[f"{split}_labels"])
            index = predictions.pop(f"{split}_index")
            assert index.dtype == np.int64
            np.testing.assert_array_equal(index, np.arange(n))
    assert predictions == {}


# --- several at once, and again -----------------------------------------------------------------


def test_several_datasets_backbones_and_seeds_and_nothing_twice(
    cli: Callable, write_npz: Callable[..., Path], quick_picture: None
) -> None:
    write_npz("toy2", n=(20, 10, 10), size=16, folder=Path.cwd())
    arguments = (
        "finetune", "--dataset", "toy.npz,toy2.npz", "--backbone", "pixels,test_vit",
        "--seed", "2,1", *QUICK, "--epochs", "1", "--json",
    )  # fmt: skip
    first = cli(*arguments)
    before = files_under("runs")
    second = cli(*arguments)
    more = cli(*arguments, "--seed", "3")

    assert first.code == 0, first.err
    assert [
        (r["dataset"], r["size"], r["backbone"], r["seed"]) for r in first.document["runs"]
    ] == [
        (*data, net, seed)
        for data in (("toy", 32), ("toy2", 16))
        for net in ("pixels", "test_vit")
        for seed in (2, 1)
    ]
    assert second.document == first.document
    assert "epoch" not in second.err and "val loss" not in second.err  # nothing was trained
    assert before.items() <= files_under("runs").items()
    assert [r["seed"] for r in more.document["runs"]] == [2, 1, 3] * 4
    assert [r for r in more.document["runs"] if r["seed"] != 3] == first.document["runs"]


def test_finished_run_is_left_alone_unless_overwritten(train: Callable) -> None:
    first = train()
    before = files_under("runs")
    assert train() == first
    assert files_under("runs") == before

    again = train("--overwrite")

    after = files_under("runs")
    assert after.keys() == before.keys()
    assert all(after[path] > before[path] for path in before)
    assert again["metrics"] == first["metrics"]


# --- recipes and files --------------------------------------------------------------------------


# --- what is shown ------------------------------------------------------------------------------


def test_results_on_stdout_and_epochs_on_stderr(cli: Callable, quick_picture: None) -> None:
    ran = cli(*TOY, "--backbone", NETWORK)

    assert ran.code == 0
    assert NETWORK in ran.out
    assert "test ACC" in ran.out
    assert "Records: runs" in ran.out
    card, *lines = ran.err.split("\ntoy 32 px")
    assert card.startswith("DATA: toy at 32 px (")
    lines = f"toy 32 px{lines[0]}".splitlines()
    assert lines[0] == "toy 32 px · test_efficientnet · seed 9930641"
    assert [line.split()[0] for line in lines[2:]] == ["1/2", "2/2"]
    assert "val loss" in lines[1]


def test_quiet_is_silent_on_stderr(cli: Callable, quick_picture: None) -> None:
    ran = cli(*TOY, "--backbone", NETWORK, "-q")

    assert (ran.code, ran.err) == (0, "")
    assert NETWORK in ran.out


# --- what stays, and what follows ---------------------------------------------------------------


def test_keep_all_keeps_the_last_state_and_trains_the_same(train: Callable) -> None:
    best = train()
    everything = train("--keep", "all", "--runs", "all")

    assert Path(everything["path"], "last.safetensors").exists()
    assert not Path(best["path"], "last.safetensors").exists()
    assert everything["run_id"] == best["run_id"]
    assert everything["metrics"] == best["metrics"]


def test_a_run_serves_as_a_backbone(cli: Callable, train: Callable) -> None:
    record = train("--lr", "0.01")

    extracted = cli("extract", "--dataset", "toy.npz", "--backbone", record["path"], "--json")
    [store] = extracted.document["stores"]
    probed = cli("probe", "--dataset", "toy", "--backbone", store["backbone"], "--epochs", "1")

    assert store["dim"] == record["network"]["dim"]
    assert store["backbone"] == f"{NETWORK}@{record['run_id']}"
    assert probed.code == 0, probed.err


def test_auto_batch_size_is_recorded_as_what_it_found(
    train: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus.training import memory

    monkeypatch.setattr(memory, "largest_batch", lambda *given: given[-1] // 4)

    record = train("--batch-size", "auto", backbone="pixels")

    assert record["config"]["recipe"]["batch_size"] == 16


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow"])
def test_tracked_run_is_the_same_run(
    tracker: str, train: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)

    tracked = train("--track", tracker, backbone="pixels")

    told = [p for p in Path("runs").rglob("*") if "tfevents" in p.name or "mlruns" in p.parts]
    assert told
    untracked = train("--runs", "elsewhere", backbone="pixels")
    assert untracked["run_id"] == tracked["run_id"]
    assert untracked["metrics"] == tracked["metrics"]
