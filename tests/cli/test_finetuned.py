"""A fine-tuned run as the --backbone of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RUN = "runs/finetune/toy/8/test_resnet/seed1-00000001"
NAME = "test_resnet@seed1-00000001"


@pytest.fixture
def here(cli: Callable, write_run: Callable, write_npz: Callable, tmp_path: Path) -> Path:
    """A working directory with a dataset and a fine-tuned run."""
    write_npz("toy", n=(40, 20, 30), size=8, folder=tmp_path)
    write_run("test_resnet", size=8, fit="native", folder=tmp_path / RUN)
    return tmp_path


def test_extract_then_heads_by_the_runs_folder_or_its_name(here: Path, cli: Callable) -> None:
    [store] = cli("extract", "--dataset", "toy.npz", "--backbone", RUN, "--json").document["stores"]
    assert store["backbone"] == NAME
    assert store["path"].startswith("embeddings/toy/8/test_resnet_seed1-00000001-")

    for command in ("knn --k 3", "probe --epochs 1 --seed 1"):
        for backbone in (RUN, f"{RUN}/network.safetensors", NAME):
            ran = cli(
                *command.split(), "--dataset", "toy.npz", "--backbone", backbone, "--overwrite",
                "--json",
            )  # fmt: skip
            [record] = ran.document["runs"]
            assert record["backbone"] == NAME
            assert record["store"]["key"] == store["key"]
            assert record["weights"] == str((here / RUN / "network.safetensors").resolve())
            folder = f"runs/{command.split()[0]}/toy/8/test_resnet_seed1-00000001/"
            assert record["path"].startswith(folder)


def test_a_run_of_knn_is_wrong_usage(here: Path, cli: Callable) -> None:
    cli("extract", "--dataset", "toy.npz", "--backbone", "pixels")
    ran = cli("knn", "--dataset", "toy.npz", "--backbone", "pixels", "--json")
    folder = ran.document["runs"][0]["path"]

    for command in ("extract", "knn", "backbones"):
        words = (
            [folder] if command == "backbones" else ["--dataset", "toy.npz", "--backbone", folder]
        )
        ran = cli(command, *words)
        assert ran.code == 2
        assert ran.err.startswith(f"Error: {folder} is no fine-tuned run")


def test_backbones_describes_a_run(here: Path, cli: Callable) -> None:
    [row] = cli("backbones", RUN, "--json").document["backbones"]
    assert (row["name"], row["native_size"]) == (NAME, 8)
    assert NAME in cli("backbones", RUN).out
