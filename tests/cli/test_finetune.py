"""`medplus finetune`: what its options hand over, from flags or from a config file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import click
import pytest

from medplus.cli.finetune import batch_size
from medplus.errors import UsageError
from medplus.training.watch import OnConsole, Watch
from medplus.vocabulary import PAPER_SEEDS


@pytest.fixture
def asked(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the command and returns what it asks to be trained."""
    import medplus.training

    def run(*arguments: object) -> dict[str, Any]:
        calls: list[dict[str, Any]] = []

        def remember(specs: Any, seeds: Any, **more: Any) -> Any:
            names = [(spec.dataset, spec.size, spec.backbone) for spec in specs]
            chosen = {"weights": specs[0].weights, "fit": specs[0].fit}
            calls.append({"names": names, "seeds": seeds, **chosen, **more})
            return []

        monkeypatch.setattr(medplus.training, "finetune_all", remember)
        ran = cli("finetune", *arguments, "--json")
        assert ran.code == 0, ran.err
        assert ran.document == {"runs": []}
        [call] = calls
        return call

    return run


NAMES = ("--dataset", "toy.npz", "--backbone", "pixels")


def test_defaults(asked: Callable) -> None:
    call = asked(*NAMES)

    assert call.pop("names") == [("toy.npz", None, "pixels")]
    assert call.pop("seeds") == PAPER_SEEDS[:1]
    assert isinstance(call.pop("watch"), OnConsole)
    assert callable(call.pop("progress"))
    given = {name: value for name, value in call.items() if value is not None}
    assert given == {
        "recipe": "paper", "compiled": False, "device": "auto",
        "devices": 1, "resume": True, "overwrite": False, "keep": "best",
        "data_root": Path("data"), "runs": Path("runs"),
    }  # fmt: skip


def test_names_repeat_or_take_commas(asked: Callable) -> None:
    call = asked(
        "--dataset", "a.npz,b.npz", "--size", "28", "--size", "64,28", "--backbone", "pixels",
        "--backbone", "resnet18, vgg16", "--seed", "3,1", "--seed", "2",
    )  # fmt: skip

    backbones = ["pixels", "resnet18", "vgg16"]
    assert call["names"] == list(product(["a.npz", "b.npz"], [28, 64], backbones))
    assert call["seeds"] == (3, 1, 2)


def test_every_flag_arrives(asked: Callable) -> None:
    call = asked(
        *NAMES, "--recipe", "modern", "--weights", "w.pth", "--fit", "native", "--batch-size", "8",
        "--compile", "--device", "cpu", "--devices", "2", "--no-resume", "--overwrite",
        "--keep", "all", "--track", "tensorboard", "--data-root", "d", "--runs", "r",
        "--lr", "0.1", "--no-fused", "-q",
    )  # fmt: skip

    expected = {
        "recipe": "modern", "weights": "w.pth", "fit": "native", "batch_size": 8,
        "compiled": True, "device": "cpu", "devices": 2, "resume": False, "overwrite": True,
        "keep": "all", "track": "tensorboard", "data_root": Path("d"), "runs": Path("r"),
        "lr": 0.1, "fused": False,
    }  # fmt: skip
    assert expected.items() <= call.items()
    assert type(call["watch"]) is Watch


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("1", 1), ("64", 64)])
def test_batch_size_is_a_number_or_auto(text: str, value: object) -> None:
    assert batch_size(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "", "Auto", 1.5])
def test_what_is_no_batch_size(text: object) -> None:
    with pytest.raises(click.BadParameter) as told:
        batch_size(text)
    assert str(text) in str(told.value)


# --- from a file --------------------------------------------------------------------------------

FILE = """
dataset: [a.npz, b.npz]
backbone: pixels
seed: [3, 1]
recipe: modern
batch_size: auto
lr: 1e-3
epochs: 7
flip: none
precision: bf16
deterministic: true
fused: no
channels-last: false
resume: false
overwrite: yes
compile: true
keep: all
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a config file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_all_options_may_stand_in_a_file(asked: Callable, config: Callable) -> None:
    call = asked("--config", config(FILE))

    assert call["names"] == [("a.npz", None, "pixels"), ("b.npz", None, "pixels")]
    assert call["seeds"] == (3, 1)
    expected = {
        "recipe": "modern", "batch_size": "auto", "lr": 0.001, "epochs": 7, "flip": "none",
        "precision": "bf16", "deterministic": True, "fused": False, "channels_last": False,
        "resume": False, "overwrite": True, "compiled": True, "keep": "all",
    }  # fmt: skip
    assert expected.items() <= call.items()
    assert call["ema"] is None


def test_flags_win_over_the_file(asked: Callable, config: Callable) -> None:
    call = asked(
        "--config", config(FILE), "--dataset", "c.npz", "--seed", "9", "--batch-size", "16",
        "--no-deterministic", "--fused", "--resume", "--epochs", "2", "--recipe", "paper",
    )  # fmt: skip

    assert call["names"] == [("c.npz", None, "pixels")]
    assert call["seeds"] == (9,)
    expected = {
        "batch_size": 16, "deterministic": False, "fused": True, "resume": True, "epochs": 2,
        "recipe": "paper", "lr": 0.001, "overwrite": True,
    }  # fmt: skip
    assert expected.items() <= call.items()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("no_fused: true", "unknown key 'no_fused'"),
        ("lr: [0.1, 0.2]", "'lr' takes one value"),
        ("batch_size: 0", "'batch_size': 0 "),
        ("batch_size: some", "'batch_size': 'some' is neither a number nor auto"),
        ("fused: perhaps", "'fused': 'perhaps' "),
        ("flip: no", "'flip' takes text or a number, but YAML reads its value as False"),
        ("trainable: tail", "'trainable': 'tail' "),
    ],
)
def test_fault_in_the_file_is_told_as_the_files(
    text: str, says: str, cli: Callable, config: Callable
) -> None:
    path = config(text)
    ran = cli("finetune", *NAMES, "--config", path)

    assert ran.code == UsageError.exit_code
    assert ran.err.startswith(f"Error: {path}: {says}")
