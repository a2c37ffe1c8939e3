"""Two processes with gloo on the CPU: a finished run like one process's, whatever interrupts it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medplus.training.history import EpochRow
from tests.records import read_history

EPOCHS = 12
COMMAND = (
    "finetune", "--dataset", "toy.npz", "--backbone", "test_vit", "--weights", "none",
    "--fit", "native", "--batch-size", "16", "--epochs", str(EPOCHS), "--patience", str(EPOCHS),
    "--lr", "3e-5", "--seed", "1", "--device", "cpu",
)  # fmt: skip
TWO = ("--devices", "2", "--track", "tensorboard")
_END = "that is all\n"


def terminal() -> None:
    """Do what Ctrl-C in a terminal does: every process of the command receives SIGINT."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def batch_system() -> None:
    """Signal the first process only."""
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def processes_heard(
    after: str = "", interrupt: Callable[[], None] = batch_system
) -> Iterator[list[str]]:
    """Collect what other processes write on stderr, and interrupt after some words of theirs."""
    reading, writing = os.pipe()
    before = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    said: list[str] = []

    def listen() -> None:
        with os.fdopen(reading) as lines:
            for line in iter(lines.readline, _END):
                said.append(line)
                if after and after in line:
                    interrupt()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield said
    finally:
        os.write(2, _END.encode())  # not at its closing: Python's resource tracker has it too
        os.dup2(before, 2)
        os.close(before)
        listener.join()


def rows_of(ran: Any) -> list[EpochRow]:
    return read_history(Path(ran.document["runs"][0]["path"]) / "history.csv")


@pytest.mark.slow
@pytest.mark.extensive
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_interrupted_processes_find_what_one_process_finds(
    cli: Callable,
    write_npz: Callable[..., Path],
    leftovers: Callable,
    tmp_path: Path,
    quick_picture: None,
) -> None:
    # 33 images: the last batch is of one, of which the second process has no share.
    write_npz("toy", n=(33, 13, 10), size=32, folder=tmp_path)
    stopped, said = [], []

    for epoch, interrupt in ((1, terminal), (3, batch_system)):
        with processes_heard(f" {epoch}/{EPOCHS} ", interrupt) as heard:
            stopped.append(cli(*COMMAND, *TWO))
        said.append("".join(heard))
    with processes_heard() as heard:
        two = cli(*COMMAND, *TWO, "--json")
    said.append("".join(heard))
    one = cli(*COMMAND, "--json")

    assert [ran.code for ran in stopped] == [130, 130]
    for ran in stopped:
        assert "Interrupted: finished work is kept; the same command goes on" in ran.err
    assert [words.count("going on in epoch") for words in said] == [0, 1, 1]
    for words in (*said, *(ran.err for ran in stopped)):
        assert "Traceback" not in words
        assert "Warning" not in words  # torch's are not for users
    assert two.code == 0, two.err
    [record], [alone] = two.document["runs"], one.document["runs"]
    assert (record["training"]["devices"], record["training"]["resumed"]) == (2, 2)
    assert record["cost"]["device_seconds"] == 2 * record["seconds"]
    assert record["cost"]["peak_memory_bytes"] > 1e6
    assert (record["epochs_run"], record["best_epoch"]) == (EPOCHS, alone["best_epoch"])
    assert record["run_id"] != alone["run_id"]  # the same but for rounding: another run
    for found, expected in zip(rows_of(two), rows_of(one), strict=True):
        assert (found.epoch, found.lr, found.best) == (expected.epoch, expected.lr, expected.best)
        assert found.train_loss == pytest.approx(expected.train_loss, abs=1e-4)
        assert found.val_loss == pytest.approx(expected.val_loss, abs=1e-4)
    for split in ("val", "test"):
        assert record["metrics"][split]["acc"] == alone["metrics"][split]["acc"]
    assert leftovers(tmp_path) == []
    assert epochs_told(Path(record["path"])) == list(range(1, EPOCHS + 1))


def epochs_told(folder: Path) -> list[int]:
    """Return the epochs whose val loss TensorBoard was told of, read by TensorBoard itself."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder / "tensorboard"))
    return [scalar.step for scalar in accumulator.Reload().Scalars("val/loss")]
