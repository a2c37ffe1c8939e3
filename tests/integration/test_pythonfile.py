"""Python files as backbones, through the commands: run where they are named, and only there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = """
from pathlib import Path
from torch import nn

Path(__file__).with_suffix(".trace").touch()

def backbone():
    layers = nn.Conv2d(1, 6, 5, 2), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers), (0.5,), (0.25,), 16
"""

pytestmark = pytest.mark.usefixtures("quick_picture")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[object, ...]:
    return "--store", tmp_path / "stores", "--runs", tmp_path / "runs"


def test_from_the_file_to_scores(
    cli: Callable, write_npz: Callable[..., Path], file: Path, folders: tuple[object, ...]
) -> None:
    toy = write_npz("toy", size=12)
    assert cli("extract", "--dataset", toy, "--backbone", file, *folders[:2]).code == 0
    ran = cli("knn", "--dataset", toy, "--backbone", file, *folders, "--k", 3, "--json")

    [record] = json.loads(ran.out)["runs"]
    assert record["backbone"] == "mine.py"
    shown = cli("backbones", file, "--json")
    assert json.loads(shown.out)["backbones"][0]["dim"] == 24


def test_a_fine_tuned_network_needs_its_file_named(
    cli: Callable, fails: Callable, write_npz: Callable[..., Path], file: Path,
    folders: tuple[object, ...],
) -> None:  # fmt: skip
    toy = write_npz("toy", size=12)
    trained = cli(
        "finetune", "--dataset", toy, "--backbone", file, "--epochs", 1, *folders[2:], "--json"
    )
    [record] = json.loads(trained.out)["runs"]
    run, trace = record["path"], file.with_suffix(".trace")
    trace.unlink()

    fails("evaluate", run, "--dataset", toy, code=1, says=("code of mine.py", "--backbone mine.py"))
    fails("extract", "--dataset", toy, "--backbone", run, code=1, says=("code of mine.py",))
    fails("backbones", run, code=1, says=("code of mine.py",))
    assert not trace.exists()
    again = cli("evaluate", run, "--dataset", toy, "--backbone", file, "--json")
    assert json.loads(again.out)["runs"][0]["metrics"]["test"] == (record["metrics"]["test"])
    weights = Path(run) / "network.safetensors"
    made = cli("extract", "--dataset", toy, "--backbone", file, "--weights", weights, *folders[:2])
    assert made.code == 0, made.err
    file.write_text(SOURCE + "#")
    fails("evaluate", run, "--dataset", toy, "--backbone", file, code=1, says=("as it was",))
    fails("evaluate", run, "--dataset", toy, "--backbone", "other.py", code=2, says=("other.py",))


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "mine.py"])
def test_a_run_of_a_stranger_has_no_code_run(
    backbone: str, cli: Callable, write_run: Callable, write_npz: Callable[..., Path], file: Path
) -> None:
    """The network of a run says what it is; it may say the path of a file."""
    folder, _ = write_run(backbone=backbone, tag=str(file))

    toy = write_npz("toy")
    for words in (
        ("backbones", folder), ("extract", "--dataset", toy, "--backbone", folder),
        ("evaluate", folder, "--dataset", toy),
    ):  # fmt: skip
        ran = cli(*words)
        assert ran.code in (1, 2) and "Traceback" not in ran.err and "a bug" not in ran.err
    assert not file.with_suffix(".trace").exists()


def test_no_file_of_settings_has_code_run(
    fails: Callable, write_npz: Callable[..., Path], file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(f"dataset: {write_npz('toy')}\nbackbone: {file}\n")
    for command in ("extract", "finetune", "knn", "probe"):
        fails(command, "--config", config, code=2, says=("mine.py is code", "command line"))
    config.write_text(f"datasets: [breastmnist]\nsizes: [28]\nbackbones: [{file}]\n"
                      "protocols: {knn: {k: 1}}\n")  # fmt: skip
    fails("sweep", config, "--dry-run", code=2, says=("mine.py is code",))
    config.write_text(f"dataset: breastmnist\nimg_size: 28\narchitecture: {file}\n"
                      "training_procedure: kNN\n")  # fmt: skip
    fails("run", "--config", config, code=2, says=("mine.py is code",))
    assert not file.with_suffix(".trace").exists()
