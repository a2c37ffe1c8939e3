"""Ctrl-C, SIGTERM and `kill -9` while a network is trained: the same command goes on, the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("quick_picture")

NETWORK = "test_efficientnet"  # timm's smallest with batch norm
STEPS = 4
"""Of an epoch of 28 images in batches of 8."""

COMMAND = (
    "finetune", "--dataset", "toy.npz", "--backbone", NETWORK, "--weights", "none",
    "--fit", "native", "--batch-size", "8", "--epochs", "4", "--seed", "1",
)  # fmt: skip
RECIPES = {
    "paper": (),
    "modern": ("--recipe", "modern", "--precision", "fp32", "--mixup", "0.2"),
}


@pytest.fixture(autouse=True)
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    return write_npz("toy", n=(28, 12, 10), size=32, classes=3, folder=tmp_path)


def outcome(ran: Any) -> dict[str, Any]:
    """Return all that a run has found, without what it took."""
    from medplus.tensorfile import read_tensors

    assert ran.code == 0, ran.err
    [record] = ran.document["runs"]
    folder = Path(record["path"])
    lines = (folder / "history.csv").read_text().splitlines()
    timed = [i for i, name in enumerate(lines[0].split(",")) if "second" in name]
    rows = [[c for i, c in enumerate(line.split(",")) if i not in timed] for line in lines]
    tensors, description = read_tensors(folder / "network.safetensors")
    with np.load(folder / "predictions.npz") as archive:
        predictions = {name: archive[name] for name in archive.files}
    fields = ("run_id", "metrics", "best_epoch", "epochs_run", "config", "network")
    return {
        "rows": rows,
        "tensors": {name: tensor.numpy() for name, tensor in tensors.items()},
        "description": description,
        "predictions": predictions,
        "record": {name: record[name] for name in fields},
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("rows", "record", "description"):
        assert found[part] == expected[part]
    for part in ("tensors", "predictions"):
        assert found[part].keys() == expected[part].keys()
        for name, values in expected[part].items():
            np.testing.assert_array_equal(found[part][name], values, err_msg=name)


_UNINTERRUPTED: dict[str, dict[str, Any]] = {}


@pytest.fixture
def uninterrupted(cli: Callable) -> Callable[[str], dict[str, Any]]:
    """Return a function that says what a run finds that nothing disturbs; computed once."""

    def run(recipe: str = "paper") -> dict[str, Any]:
        if recipe not in _UNINTERRUPTED:
            whole = cli(*COMMAND, *RECIPES[recipe], "--json", "--runs", "whole")
            _UNINTERRUPTED[recipe] = outcome(whole)
        return _UNINTERRUPTED[recipe]

    return run


def resumed(ran: Any) -> int:
    return int(ran.document["runs"][0]["training"]["resumed"])


@contextmanager
def signals_at(step: int, *numbers: int) -> Iterator[None]:
    """Let this process receive signals just before a training step, counted from 1."""
    from medplus.training.step import Stepper

    call, calls = Stepper.__call__, iter(range(1, 10_000))

    def signalled(self: Stepper, *arguments: Any) -> Any:
        if next(calls) == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return call(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "__call__", signalled)
        yield


def interrupted(ran: Any) -> None:
    assert ran.code == 130
    assert "Interrupted: finished work is kept; the same command goes on" in ran.err
    assert "Traceback" not in ran.err


def partial() -> Path:
    """Return the folder of the one run under way."""
    [folder] = Path("runs").rglob("*.partial")
    return folder


# --- signals within this process ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "step"),
    [
        *(("paper", step) for step in (1, STEPS, 2 * STEPS + 3)),
        *(("modern", step) for step in (2, STEPS + 1, 2 * STEPS + 3, 4 * STEPS)),
    ],
)
def test_ctrl_c_at_any_step_saves_and_the_same_command_goes_on_identically(
    recipe: str,
    step: int,
    uninterrupted: Callable,
    cli: Callable,
    leftovers: Callable,
    tmp_path: Path,
) -> None:
    command = (*COMMAND, *RECIPES[recipe], "--json", "-q")
    whole = uninterrupted(recipe)

    with signals_at(step, signal.SIGINT):
        interrupted(cli(*command))
    assert (partial() / "last.safetensors").exists()
    assert list(partial().glob("best-*")) == []
    ran = cli(*command)

    assert resumed(ran) == 1
    assert_same(outcome(ran), whole)
    assert leftovers(tmp_path) == []
    folder = Path(ran.document["runs"][0]["path"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv", "learning_curve.png", "network.safetensors", "predictions.npz",
        "record.json",
    ]  # fmt: skip


def test_sigterm_is_taken_as_ctrl_c(uninterrupted: Callable, cli: Callable) -> None:
    whole = uninterrupted()

    with signals_at(6, signal.SIGTERM):
        interrupted(cli(*COMMAND))
    ran = cli(*COMMAND, "--json")

    assert "going on in epoch 2, after 28 of its 28 images" not in ran.err
    assert "going on in epoch 2, after 16 of its 28 images" in ran.err
    assert resumed(ran) == 1
    assert_same(outcome(ran), whole)


def test_many_interruptions_are_as_none(uninterrupted: Callable, cli: Callable) -> None:
    whole = uninterrupted()

    for _ in range(3):
        with signals_at(4, signal.SIGINT):
            interrupted(cli(*COMMAND))
    ran = cli(*COMMAND, "--json")

    assert resumed(ran) == 3
    assert_same(outcome(ran), whole)


def test_ctrl_c_is_told_as_json(cli: Callable) -> None:
    with signals_at(2, signal.SIGINT):
        ran = cli(*COMMAND, "--json")

    assert ran.code == 130
    assert ran.document["error"]["type"] == "Interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once_and_keeps_what_was_saved_before(
    number: int, uninterrupted: Callable, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = uninterrupted()
    with signals_at(3, signal.SIGINT):
        interrupted(cli(*COMMAND))
    saved = (partial() / "last.safetensors").read_bytes()

    with signals_at(4, number, number):
        interrupted(cli(*COMMAND))

    assert (partial() / "last.safetensors").read_bytes() == saved
    assert_same(outcome(cli(*COMMAND, "--json")), whole)


def test_second_signal_before_anything_was_saved_leaves_nothing(
    cli: Callable, leftovers: Callable, tmp_path: Path
) -> None:
    with signals_at(3, signal.SIGINT, signal.SIGINT):
        interrupted(cli(*COMMAND))

    assert leftovers(tmp_path) == []
    assert list(Path("runs").rglob("*.safetensors")) == []


def test_signals_are_as_before_afterwards(cli: Callable) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with signals_at(3, signal.SIGINT):
        interrupted(cli(*COMMAND))

    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("evaluation", [1, 4])
def test_ctrl_c_while_val_is_judged_is_not_lost(
    evaluation: int, uninterrupted: Callable, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus.training import trainer

    command = (*COMMAND, "--seed", "2", "--json")
    whole = uninterrupted()
    predict, calls = trainer.predict, iter(range(1, 100))

    def signalled(*arguments: Any) -> Any:
        if next(calls) == evaluation:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "predict", signalled)
        interrupted(cli(*command))

    assert "seed1-" in partial().name  # the second seed was not begun
    ran = cli(*COMMAND, "--json")
    assert resumed(ran) == 1
    assert_same(outcome(ran), whole)


def test_no_resume_begins_again(uninterrupted: Callable, cli: Callable) -> None:
    whole = uninterrupted()
    with signals_at(6, signal.SIGINT):
        interrupted(cli(*COMMAND))
    (partial() / "notes.txt").touch()

    ran = cli(*COMMAND, "--json", "--no-resume")

    assert "going on" not in ran.err
    assert resumed(ran) == 0
    assert_same(outcome(ran), whole)
    assert not Path(ran.document["runs"][0]["path"], "notes.txt").exists()


def test_runs_finished_before_ctrl_c_are_kept(cli: Callable) -> None:
    command = (*COMMAND, "--seed", "2,3", "--json")
    with signals_at(4 * STEPS + 2, signal.SIGINT):
        interrupted(cli(*command))
    [record] = Path("runs").rglob("record.json")
    made = record.stat().st_mtime_ns

    runs = cli(*command).document["runs"]

    assert [(run["seed"], run["training"]["resumed"]) for run in runs] == [(1, 0), (2, 1), (3, 0)]
    assert record.stat().st_mtime_ns == made


def test_ctrl_c_during_overwrite_keeps_the_finished_run(cli: Callable) -> None:
    first = cli(*COMMAND, "--json")
    with signals_at(6, signal.SIGINT):
        interrupted(cli(*COMMAND, "--overwrite"))

    assert cli(*COMMAND, "--json").document == first.document
    again = cli(*COMMAND, "--json", "--overwrite")
    assert resumed(again) == 1
    assert_same(outcome(again), outcome(first))


def test_interrupt_while_the_run_is_finished_loses_nothing(
    uninterrupted: Callable,
    cli: Callable,
    leftovers: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medplus.runs import ledger

    whole = uninterrupted()
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write_results", interrupt)
        interrupted(cli(*COMMAND))

    ran = cli(*COMMAND, "--json")

    assert "1/4" not in ran.err  # no epoch is trained again
    assert_same(outcome(ran), whole)
    assert leftovers(tmp_path) == []


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_a_killed_writer_left_is_removed(
    cli: Callable, leftovers: Callable, tmp_path: Path
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


# --- processes of their own ---------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
import medplus.cli.finetune, medplus.training
assert "lightning_fabric" not in sys.modules  # a finished run does not need it
from medplus.training import folder
from medplus.training.step import Stepper

folder._SAVE_EVERY_S = 0
call, calls = Stepper.__call__, iter(range(1, 1000))

def patched(self, *arguments):
    if {kill_at} == next(calls):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep({pause})
    return call(self, *arguments)

Stepper.__call__ = patched
from medplus.cli import main
main(sys.argv[1:])
"""


def start(*arguments: str, kill_at: int = 0, pause: float = 0.0) -> subprocess.Popen[str]:
    code = CHILD.format(kill_at=kill_at, pause=pause)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_killed_and_interrupted_processes_leave_a_run_that_ends_identically(
    uninterrupted: Callable, cli: Callable, leftovers: Callable, tmp_path: Path
) -> None:
    command = (*COMMAND, *RECIPES["modern"])
    whole = uninterrupted("modern")

    killed = start(*command, kill_at=STEPS + 3)
    killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert {p.suffix for p in partial().iterdir()} == {".csv", ".png", ".safetensors"}

    stopped = start(*command, pause=0.25)
    assert stopped.stderr is not None
    said = ""
    while "2/4" not in said:  # the line of the epoch that was under way
        assert stopped.poll() is None, said
        said += stopped.stderr.readline()
    stopped.send_signal(signal.SIGINT)
    began = time.monotonic()
    said += stopped.communicate(timeout=60)[1]
    ran = cli(*command, "--json")

    assert "going on in epoch 2, after 16 of its 28 images" in said
    assert stopped.returncode == 130
    assert "Interrupted: finished work is kept; the same command goes on" in said
    assert "Traceback" not in said
    assert time.monotonic() - began < 30
    assert resumed(ran) == 2
    assert_same(outcome(ran), whole)
    assert leftovers(tmp_path) == []
