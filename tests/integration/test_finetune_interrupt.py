"""Ctrl-C, SIGTERM and `kill -9` while a network is trained: the same command goes on, the same.

`tests/faults` kills processes at random moments; here a signal comes at a chosen one.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import results

pytestmark = pytest.mark.usefixtures("quick_picture")

STEPS = 4
"""Of an epoch of 28 images in batches of 8."""

COMMAND = (
    "finetune", "--dataset", "toy.npz", "--backbone", "test_efficientnet", "--weights", "none",
    "--fit", "native", "--batch-size", "8", "--epochs", "4", "--seed", "1",
)  # fmt: skip
RECIPES = {
    "paper": (),
    "modern": ("--recipe", "modern", "--precision", "fp32", "--mixup", "0.2"),
}


@pytest.fixture(autouse=True)
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    return write_npz("toy", n=(28, 12, 10), size=32, classes=3, folder=tmp_path)


_UNINTERRUPTED: dict[str, dict[str, Any]] = {}


@pytest.fixture
def uninterrupted(cli: Callable) -> Callable[[str], dict[str, Any]]:
    """Return a function that says what a run leaves that nothing disturbs; computed once."""

    def run(recipe: str = "paper") -> dict[str, Any]:
        if recipe not in _UNINTERRUPTED:
            assert cli(*COMMAND, *RECIPES[recipe], "--runs", "whole").code == 0
            _UNINTERRUPTED[recipe] = results(Path("whole"))
        return _UNINTERRUPTED[recipe]

    return run


def resumed(ran: Any) -> int:
    assert ran.code == 0, ran.err
    return int(ran.document["runs"][0]["training"]["resumed"])


def interrupted(ran: Any) -> None:
    assert ran.code == 130
    assert "Interrupted: finished work is kept; the same command goes on" in ran.err
    assert "Traceback" not in ran.err


def partial() -> Path:
    """Return the folder of the one run under way."""
    [folder] = Path("runs").rglob("*.partial")
    return folder


@pytest.mark.parametrize(
    ("recipe", "step", "number", "says"),
    [
        ("paper", 1, signal.SIGINT, "after 8 of its 28 images"),
        ("paper", STEPS + 2, signal.SIGTERM, "in epoch 2, after 16 of its 28 images"),
        ("modern", 2 * STEPS + 3, signal.SIGINT, "in epoch 3, after 24 of its 28 images"),
        ("modern", 4 * STEPS, signal.SIGINT, "going on"),
    ],
)
def test_a_signal_at_any_step_saves_and_the_same_command_goes_on_identically(
    recipe: str,
    step: int,
    number: int,
    says: str,
    uninterrupted: Callable,
    cli: Callable,
    signals_at: Callable,
    leftovers: Callable,
    tmp_path: Path,
) -> None:
    command = (*COMMAND, *RECIPES[recipe], "--json")
    whole = uninterrupted(recipe)

    with signals_at(step, number):
        interrupted(cli(*command))
    assert (partial() / "last.safetensors").exists()
    assert list(partial().glob("best-*")) == []
    ran = cli(*command)

    assert resumed(ran) == 1
    assert says in ran.err
    assert results(Path("runs")) == whole
    assert leftovers(tmp_path) == []


def test_second_signal_before_anything_was_saved_leaves_nothing(
    cli: Callable, signals_at: Callable, leftovers: Callable, tmp_path: Path
) -> None:
    with signals_at(3, signal.SIGINT, signal.SIGINT):
        interrupted(cli(*COMMAND))

    assert leftovers(tmp_path) == []
    assert list(Path("runs").rglob("*.safetensors")) == []


def test_ctrl_c_while_val_is_judged_is_not_lost(
    uninterrupted: Callable, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus.training import trainer

    whole = uninterrupted()
    predict, calls = trainer.predict, iter(range(1, 100))

    def signalled(*arguments: Any) -> Any:
        if next(calls) == 4:  # the last one of the first seed
            os.kill(os.getpid(), signal.SIGINT)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "predict", signalled)
        interrupted(cli(*COMMAND, "--seed", "2", "--json"))

    assert "seed1-" in partial().name  # the second seed was not begun
    assert resumed(cli(*COMMAND, "--json")) == 1
    assert results(Path("runs")) == whole


def test_no_resume_begins_again(
    uninterrupted: Callable, cli: Callable, signals_at: Callable
) -> None:
    whole = uninterrupted()
    with signals_at(6, signal.SIGINT):
        interrupted(cli(*COMMAND))
    (partial() / "notes.txt").touch()

    ran = cli(*COMMAND, "--json", "--no-resume")

    assert "going on" not in ran.err
    assert resumed(ran) == 0
    assert results(Path("runs")) == whole


def test_runs_finished_before_ctrl_c_are_kept(cli: Callable, signals_at: Callable) -> None:
    command = (*COMMAND, "--seed", "2,3", "--json")
    with signals_at(4 * STEPS + 2, signal.SIGINT):
        interrupted(cli(*command))
    [record] = Path("runs").rglob("record.json")
    made = record.stat().st_mtime_ns

    runs = cli(*command).document["runs"]

    assert [(run["seed"], run["training"]["resumed"]) for run in runs] == [(1, 0), (2, 1), (3, 0)]
    assert record.stat().st_mtime_ns == made


def test_ctrl_c_during_overwrite_keeps_the_finished_run(
    cli: Callable, signals_at: Callable
) -> None:
    first = cli(*COMMAND, "--json")
    before = results(Path("runs"))
    with signals_at(6, signal.SIGINT):
        interrupted(cli(*COMMAND, "--overwrite"))

    assert cli(*COMMAND, "--json").document == first.document
    assert resumed(cli(*COMMAND, "--json", "--overwrite")) == 1
    assert results(Path("runs")) == before


def test_what_a_killed_writer_left_is_removed(
    cli: Callable, signals_at: Callable, leftovers: Callable, tmp_path: Path
) -> None:
    with signals_at(6, signal.SIGINT):
        interrupted(cli(*COMMAND))
    folder = partial()
    run = folder.with_suffix("")
    (folder / ".last.safetensors.tmp-0123abcd").write_bytes(b"half")
    (folder / "best-3.safetensors").write_bytes(b"of a state that was never saved")
    (run.parent / f".{run.name}.lock").write_text("{}")
    shutil.copytree(folder, run.parent / f".{run.name}.tmp-1-0123abcd")

    ran = cli(*COMMAND, "--json")

    assert ran.code == 0, ran.err
    assert leftovers(tmp_path) == []
    assert list(Path("runs").rglob("best-*")) == []
