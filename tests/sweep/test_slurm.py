"""The SLURM engine against commands that stand in for SLURM's, and through submitit."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medplus.errors import SweepError, UsageError
from medplus.sweep.claims import Standing
from medplus.sweep.conduct import Sweep
from medplus.sweep.engines import slurm
from medplus.sweep.engines.slurm import Element, SlurmEngine

submitit = pytest.importorskip("submitit")

Make = Callable[..., Sweep]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts scripts in the place of SLURM's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(**scripts: str) -> None:
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return write


def test_settings_reach_sbatch(
    new_sweep: Make, commands: Callable[..., None], tmp_path: Path
) -> None:
    script = tmp_path / "script"
    commands(srun="", sbatch=f'cat "$1" > {script}; echo "Submitted batch job 12"')
    engine = SlurmEngine(
        3, detach=True, slurm_partition="gpu", timeout_min=30, slurm_gres="gpu:1", mem_gb=8,
        cpus_per_task=4,
        slurm_account="me", extras={"qos": "long"}, requeues=1, slurm_signal_delay_s=45,
    )  # fmt: skip

    assert len(new_sweep(2).run(engine).cells) == 2
    assert engine.array == "12"
    lines = script.read_text().splitlines()
    for option in (
        "partition=gpu", "time=30", "gres=gpu:1", "cpus-per-task=4", "mem=8GB", "account=me",
        "qos=long", "requeue", "signal=USR2@45", "array=0-2%3",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert any("srun" in line and "--cpus-per-task=4" in line for line in lines)


def test_refusal_is_told_in_the_words_of_sbatch(
    new_sweep: Make, commands: Callable[..., None]
) -> None:
    commands(srun="", sbatch="echo 'sbatch: error: invalid partition: x' >&2; exit 1")
    with pytest.raises(SweepError, match=r"^SLURM refused the array: invalid partition: x$"):
        new_sweep(1).run(SlurmEngine())


def test_what_is_missing_is_told(
    new_sweep: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="no sbatch on this machine; start the sweep on"):
        new_sweep(1).run(SlurmEngine())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SweepError, match="pip install submitit"):
        new_sweep(1).run(SlurmEngine())


def test_a_time_limit_shorter_than_its_notice_is_refused() -> None:
    with pytest.raises(UsageError, match="--time 1 must be longer than its notice, 60 s"):
        SlurmEngine(timeout_min=1, slurm_signal_delay_s=60)


def test_elements_that_slurm_no_longer_knows_are_gone(commands: Callable[..., None]) -> None:
    engine = SlurmEngine()
    engine.living = {f"12_{i}": Path() for i in (1, 2, 3)}
    commands(squeue="printf '12_1|CANCELLED\\n12_2|RUNNING\\n'")
    assert engine.states() == {"12_1": "CANCELLED", "12_2": "RUNNING", "12_3": "GONE"}
    commands(squeue="exit 1")
    assert engine.states() == {}


# --- what becomes of an array --------------------------------------------------------------------


class Played(SlurmEngine):
    """An array of two elements that are in the states that are given, one pair per question."""

    def __init__(self, *states: Sequence[str]) -> None:
        super().__init__(2)
        self.done: list[str] = []
        self.living = {f"7_{i}": Path(f"{i}.err") for i in range(2)}
        self._states = iter(states)

    def states(self) -> dict[str, str]:
        return {f"7_{i}": state for i, state in enumerate(next(self._states))}

    def interrupt(self, how: str) -> None:
        self.done.append(how)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)
    monkeypatch.setattr(slurm, "_ASK_S", 0.1)


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "FAILED", "NODE_FAIL"])
def test_what_an_element_dies_of_is_told_once_it_is_certain(state: str) -> None:
    """Between two lives of an element that is requeued, SLURM calls it ended."""
    array = Played([state, "RUNNING"], ["PENDING", "RUNNING"], *[[state, "RUNNING"]] * 2)
    assert [list(array.look()) for _ in range(3)] == [[], [], []]
    [dead] = array.look()
    assert dead.worker == "7_0" and f"({state})" in dead.cause


def test_elements_that_wait_for_nothing_are_taken_back() -> None:
    array = Played(*[["COMPLETED", "PENDING"]] * 2)
    assert not [*array.look(), *array.look()]
    assert (array.done, array.living) == (["--state=PENDING"], {})


def test_elements_that_were_cancelled_end_the_sweep_with_the_last() -> None:
    gone = ["RUNNING", "GONE"]  # SLURM forgets what has ended, some sooner than later
    array = Played(["RUNNING", "CANCELLED"], gone, *[["COMPLETED", ""]] * 2)
    with pytest.raises(SweepError, match="7_1 was cancelled; sweep again"):
        [list(array.look()) for _ in range(4)]


def test_nothing_is_submitted_where_those_that_live_are_enough(
    new_sweep: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that dies once its run is there leaves one job less than there are workers."""
    monkeypatch.setenv("PATH", str(tmp_path))  # to submit would fail
    sweep, array = new_sweep(1), Played()
    array.start(sweep.grid, sweep.place, 1)
    assert len(array.living) == 2


def test_an_interrupt_is_passed_on() -> None:
    array = Played(["RUNNING", "RUNNING"], ["COMPLETED", "COMPLETED"])
    array.stop()
    assert array.done == ["--state=PENDING", "--signal=TERM", "--quiet"]


# --- an element ----------------------------------------------------------------------------------


@pytest.fixture
def element(new_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sweep, Element]]:
    """Return an element that is sent a signal while it searches."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"):
        monkeypatch.setenv(f"SLURM_{name}", "7")
    sweep = new_sweep(1)
    yield sweep, Element(sweep.grid, sweep.place)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def interrupt_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("medplus.heads.knn.search.search", search)


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, 1), (signal.SIGTERM, 0)])
def test_only_notice_of_the_time_limit_requeues(
    element: tuple[Sweep, Element], monkeypatch: pytest.MonkeyPatch, number: int, requeued: int
) -> None:
    sweep, worker = element
    handled: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: handled.append(number))
    interrupt_with(number, monkeypatch)
    worker()
    assert handled == [signal.SIGUSR2] * requeued
    assert sweep.claims.standing() == Standing()


def test_job_whose_time_may_not_be_extended_has_failed(
    element: tuple[Sweep, Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise submitit.core.utils.UncompletedJobError("timed-out too many times")

    sweep, worker = element
    signal.signal(signal.SIGUSR2, refuse)
    interrupt_with(signal.SIGUSR2, monkeypatch)
    worker()
    [failure] = sweep.claims.standing().failures.values()
    assert failure.job == "knn toy0 pixels" and "time limit was over once" in failure.cause


class Local(SlurmEngine):
    """submitit's local executor, which knows no SLURM: one process that minds each element."""

    def submit(self, elements: Sequence[Element], folder: Path) -> Any:
        self.jobs = super().submit(elements, folder)
        return self.jobs

    def states(self) -> dict[str, str]:
        return {job.job_id: job.state.replace("FINISHED", "COMPLETED") for job in self.jobs}


def test_grid_through_submitit(new_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    sweep = new_sweep(1)
    plan = sweep.run(Local(1, executor="local"))
    assert (plan.count("finished"), plan.count("left")) == (3, 0)
