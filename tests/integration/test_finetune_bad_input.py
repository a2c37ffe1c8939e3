"""Everything that can be wrong with a fine-tuning: one message, a remedy, nothing half-written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medplus import lock

pytestmark = pytest.mark.usefixtures("quick_picture")

NETWORK = "test_efficientnet"
COMMAND = ("finetune", "--dataset", "toy.npz", "--epochs", "3", "-q")
TOY = (*COMMAND, "--backbone", "pixels")
QUICK = ("--weights", "none", "--fit", "native", "--batch-size", "16")


@pytest.fixture(autouse=True)
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    return write_npz("toy", n=(36, 12, 10), size=32, folder=tmp_path)


def partial() -> Path:
    [folder] = Path("runs").rglob("*.partial")
    return folder


# --- what is asked for --------------------------------------------------------------------------

WRONG = {
    "batch size": ("--batch-size 0", "--batch-size"),
    "rate": ("--lr nan", "lr = nan"),
    "recipe": ("--recipe papr", "unknown recipe 'papr'; did you mean 'paper'?"),
    "recipe file": ("--recipe no.yaml", "the recipe file no.yaml does not exist"),
    "precision": ("--precision fp16 --device cpu", "--precision fp16 needs a CUDA device"),
    "number of devices": ("--devices 999 --device cpu", "--devices 999: this machine has"),
    "absent device": ("--device cuda:99", "'cuda:99' is not there"),
    "backbone": ("--backbone resnet19", "unknown backbone 'resnet19'; did you mean 'resnet18'?"),
    "size": ("--size 28", "images of 32 px"),
    "weights of a run": ("--backbone ./nowhere", "nowhere"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_usage(what: str, fails: Callable) -> None:
    arguments, says = WRONG[what]

    fails(*TOY, *arguments.split(), code=2, says=(says,))

    assert not Path("runs").exists()


def test_wrong_recipe_file(fails: Callable) -> None:
    Path("mine.yaml").write_text("epohs: 3")

    says = "mine.yaml: unknown key 'epohs'; did you mean 'epochs'?"
    message = fails(*TOY, "--recipe", "mine.yaml", code=2, says=(says,))

    assert message.count("mine.yaml") == 1
    assert not Path("runs").exists()


# --- data and weights ---------------------------------------------------------------------------


def relabel(**labels: Any) -> None:
    with np.load("toy.npz") as archive:
        arrays = dict(archive) | {f"{k}_labels": np.asarray(v, "u1") for k, v in labels.items()}
    np.savez("toy.npz", **arrays)


def test_train_split_of_one_class(fails: Callable) -> None:
    relabel(train=np.zeros((36, 1)))

    fails(*TOY, code=1, says=("toy.npz: all 36 train labels are class 0", "two classes"))

    assert not Path("runs").exists()


def test_class_that_train_lacks_is_told_and_training_goes_on(cli: Callable) -> None:
    relabel(test=np.arange(10)[:, None] % 3)

    ran = cli(*TOY, "--json", "-v")

    assert ran.code == 0
    assert "train has no image of 2, which nothing can learn" in ran.err
    assert ran.document["runs"][0]["n_classes"] == 3


def test_class_that_val_lacks_leaves_its_auc_undefined(cli: Callable) -> None:
    relabel(val=np.zeros((12, 1)))

    shown = cli(*TOY)
    [record] = cli(*TOY, "--json").document["runs"]

    assert shown.code == 0
    assert "val split lacks positives or negatives of" in shown.out
    assert record["metrics"]["val"]["auc"] is None
    lines = Path(record["path"], "history.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    assert {row[cells[0].index("val_auc")] for row in cells[1:]} == {""}


@pytest.mark.parametrize("backbone", ["test_vit", "alexnet"])
def test_network_that_does_not_take_the_size(
    backbone: str, fails: Callable, write_npz: Callable[..., Path]
) -> None:
    write_npz("small", n=(6, 4, 4), size=20, folder=Path.cwd())

    fails(
        "finetune", "--dataset", "small.npz", "--backbone", backbone, *QUICK,
        code=1, says=(backbone, "--fit"),
    )  # fmt: skip

    assert not Path("runs").exists()


def test_images_larger_than_the_canvas(fails: Callable, write_npz: Callable[..., Path]) -> None:
    write_npz("large", n=(4, 2, 2), size=225, folder=Path.cwd())

    fails(
        "finetune", "--dataset", "large.npz", "--backbone", "test_vit", "--weights", "none",
        code=2, says=("images of 225 px cannot be padded to 224 px", "--fit resize"),
    )  # fmt: skip


# --- training that fails ------------------------------------------------------------------------


def test_loss_that_is_not_finite_keeps_the_best_network(cli: Callable) -> None:
    ran = cli(*TOY, "--lr", "1e30")

    folder = partial()
    assert ran.code == 1
    assert ran.err.count("Error: ") == 1
    assert "loss is not finite in epoch 2" in ran.err
    assert "the best network so far (epoch 1, val loss" in ran.err
    assert f"is kept in {folder}" in ran.err
    assert "smaller --lr" in ran.err
    assert len(ran.err) < 500
    assert [path.name for path in folder.iterdir()] == ["network.safetensors"]
    assert cli("extract", "--dataset", "toy.npz", "--backbone", folder, "-q").code == 0


def test_loss_that_is_never_finite_leaves_nothing(fails: Callable) -> None:
    fails(
        *COMMAND, "--backbone", NETWORK, *QUICK, "--lr", "1e30",
        code=1, says=("loss is not finite in epoch 1", "no better network yet", "--clip-grad 1"),
    )  # fmt: skip


def test_out_of_memory_names_what_finds_a_batch_that_fits(
    fails: Callable, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus.training import memory
    from medplus.training.network import Network

    forward = Network.forward

    def cramped(self: Network, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", cramped)
    monkeypatch.setattr(memory.gc, "collect", lambda: 0)  # longer than a tiny step

    fails(
        *TOY, "--batch-size", "32", code=1,
        says=("out of memory with 32 images at a time", "--accumulate 2", "--batch-size auto"),
    )  # fmt: skip
    assert cli(*TOY, "--batch-size", "32", "--accumulate", "4").code == 0
    assert cli(*TOY, "--batch-size", "8").code == 0
    found = cli(*TOY, "--batch-size", "auto", "-v", "--json")
    assert found.document["runs"][0]["config"]["recipe"]["batch_size"] == 8
    assert "INFO: --batch-size auto: 8" in found.err


def test_batch_that_leaves_batch_norm_one_value(fails: Callable) -> None:
    fails(
        *COMMAND, "--backbone", NETWORK, *QUICK, "--batch-size", "35",
        code=1, says=(NETWORK, "a single value", "--batch-size", "--norm-stats frozen"),
    )  # fmt: skip


# --- the saved state ----------------------------------------------------------------------------


@pytest.fixture
def interrupted(cli: Callable, signals_at: Callable) -> Path:
    """The folder of a run that was interrupted in its second epoch."""
    with signals_at(2, signal.SIGINT):
        assert cli(*TOY).code == 130
    return partial()


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (flip_a_bit, "last.safetensors", "last.safetensors is damaged"),
        (Path.unlink, "network.safetensors", "the best network of the interrupted run, is"),
    ],
)
def test_saved_state_that_cannot_be_used(
    damage: Callable, file: str, says: str, interrupted: Path, cli: Callable
) -> None:
    damage(interrupted / file)
    before = {path: path.read_bytes() for path in interrupted.iterdir()}

    ran = cli(*TOY)

    assert ran.code == 1
    assert ran.err.startswith("Error: ")
    assert len(ran.err.splitlines()) == 1
    for words in (str(interrupted), says, "--no-resume"):
        assert words in ran.err
    assert {path: path.read_bytes() for path in interrupted.iterdir()} == before
    assert cli(*TOY, "--no-resume").code == 0
    assert not interrupted.exists()


# --- the world ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc/x", "toy.npz/in"])
def test_runs_that_cannot_be_written(place: str, fails: Callable) -> None:
    fails(*TOY, "--runs", place, code=1, says=(f"the run {place}", "--runs"))


def test_full_disk_loses_nothing(
    cli: Callable, files_up_to: Callable, leftovers: Callable, tmp_path: Path
) -> None:
    [whole] = cli(*TOY, "--runs", "whole", "--json").document["runs"]

    with files_up_to(5_000):
        full = cli(*TOY)

    assert full.code == 1
    assert full.err.count("Error: ") == 1
    assert "File too large" in full.err
    assert "run the same command again" in full.err
    [again] = cli(*TOY, "--json").document["runs"]
    assert again["metrics"] == whole["metrics"]
    assert leftovers(tmp_path) == []


def test_run_in_use_is_left_alone(cli: Callable, interrupted: Path) -> None:
    run = interrupted.with_suffix("")
    before = {path: path.read_bytes() for path in interrupted.iterdir()}

    with lock.hold(run.parent / f".{run.name}.lock", "the run"):
        ran = cli(*TOY)
        also = cli(*TOY, "--no-resume")

    for ended in (ran, also):
        assert ended.code == 1
        assert ended.err.startswith(f"Error: the run {run} is in use by process {os.getpid()}")
    assert {path: path.read_bytes() for path in interrupted.iterdir()} == before


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_tracker_that_is_not_installed(
    tracker: str, fails: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus.training.tracking import tracker as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)

    fails(*TOY, "--track", tracker, code=2, says=(f"--track {tracker}", f"pip install {tracker}"))
