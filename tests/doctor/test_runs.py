"""Runs: whole, interrupted, under way, damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medplus import lock
from medplus.doctor import Places
from medplus.doctor.runs import examine_runs


def told(root: Path, deep: bool = False) -> list[tuple[str, str]]:
    return [(f.mark, f.text) for f in examine_runs(root, deep) if f.mark != "ok"]


def test_whole_runs_are_counted(places: Places, write_scored_run: Callable) -> None:
    write_scored_run()
    write_scored_run("seed1-0123abcd", "probe")

    [found] = examine_runs(places.runs, deep=True)

    assert (found.mark, found.text.split(" in ")[0]) == ("ok", "2 of 2 runs")


@pytest.mark.parametrize("name", ["record.json", "predictions.npz", "head.safetensors"])
@pytest.mark.parametrize("keep", [None, 0, 0.5])
def test_lost_and_cut_files_are_a_problem(
    name: str, keep: float | None, places: Places, write_scored_run: Callable
) -> None:
    file = write_scored_run("seed1-0123abcd", "probe") / name
    if keep is None:
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * keep)])

    [(mark, text)] = told(places.runs)

    assert mark == "problem"
    assert name in text or (name, keep, text[:11]) == ("record.json", None, "there is no")


def test_flipped_byte_in_predictions_is_found_by_reading_alone(
    places: Places, write_scored_run: Callable
) -> None:
    file = write_scored_run() / "predictions.npz"
    data = bytearray(file.read_bytes())
    data[300] ^= 1  # within the first array
    file.write_bytes(data)

    assert told(places.runs) == []
    assert [mark for mark, _ in told(places.runs, deep=True)] == ["problem"]


def test_interrupted_training_is_a_warning_unless_it_goes_on(places: Places) -> None:
    partial = places.runs / "finetune/toy/28/toynet/modern-0123abcd.partial"
    partial.mkdir(parents=True)

    assert told(places.runs) == [("warning", "a training that was interrupted")]
    with lock.hold(partial.with_name(".modern-0123abcd.lock"), "the run"):
        assert told(places.runs) == []
