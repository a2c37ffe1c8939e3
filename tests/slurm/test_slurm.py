"""A small grid on a real SLURM cluster; `make test-slurm` starts one on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medplus.errors import SweepError
from medplus.runs.ledger import RECORD_FILE, read_record
from medplus.sweep.conduct import Sweep
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.engines.slurm import SlurmEngine, SlurmSettings
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.gridfile import read_grid
from medplus.sweep.job import Job, Place
from medplus.training.folder import STATE_FILE


def _slurm_answers() -> bool:
    try:
        subprocess.run(["sinfo"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not _slurm_answers(), reason="needs a SLURM cluster; see make test-slurm"),
]

BACKBONE = "mobilenetv3_small_050"
HEADS = """
backbones: pixels
protocols:
  knn: {k: [1, 3]}
  probe: {epochs: 3, lr: 0.01, weight_decay: 0}
"""
TRAINING = """
backbones: BACKBONE
protocols:
  finetune: {epochs: EPOCHS, patience: EPOCHS, batch_size: 8, precision: fp32}
"""
ONE_TRAINING = "exclude: [{protocols: finetune, seeds: 2}]\n"
FOREVER = 100_000


Make = Callable[..., Sweep]


@pytest.fixture(scope="module")
def new_sweep(write_npz: Callable[..., Path], new_folder: Callable[[], Path]) -> Make:
    """Return a function that makes a sweep in a folder of its own, always on the same data."""
    data = [write_npz("one", seed=1), write_npz("two", seed=2)]

    def make(grid: str, n_datasets: int = 2, epochs: int = 0) -> Sweep:
        root = new_folder()
        datasets = ", ".join(map(str, data[:n_datasets]))
        text = f"datasets: [{datasets}]\nweights: none\nseeds: [1, 2]\n{grid}"
        (root / "grid.yaml").write_text(
            text.replace("EPOCHS", str(epochs)).replace("BACKBONE", BACKBONE)
        )
        place = Place(str(root), str(root / "store"), str(root / "runs"), "cpu")
        return Sweep(read_grid(root / "grid.yaml"), place)

    return make


def metrics_of(sweep: Sweep) -> dict[str, Any]:
    """Return the metrics of all runs of a sweep, which must each exist once."""
    records = [read_record(path.parent) for path in Path(sweep.place.runs).rglob(RECORD_FILE)]
    by_id = {record.run_id: record.metrics for record in records}
    assert len(by_id) == len(records), "a run exists twice"
    return by_id


def run_locally(sweep: Sweep) -> dict[str, Any]:
    """Run a sweep in two processes of one thread each, as SLURM's elements have; for comparison."""
    sweep.run(LocalEngine(2, "cpu"), lambda event: None)
    return metrics_of(sweep)


@pytest.fixture(scope="module")
def undisturbed(new_sweep: Make) -> dict[str, Any]:
    """Metrics of the short trainings."""
    return run_locally(new_sweep(TRAINING, n_datasets=1, epochs=12))


def engine(**settings: Any) -> SlurmEngine:
    return SlurmEngine(settings=SlurmSettings(**{"minutes": 5, "notice_s": 10, **settings}))


Act = Callable[[str, Job], object]
"""What is done to an element, given its id, and to the job that it does."""


class Disturbance:
    """Listens to a sweep, and acts on the first element that trains its third epoch."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._jobs: dict[str, Job] = {}
        self.events: list[Event] = []
        self.hit = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Started):
            self._jobs[event.worker] = event.job
        if not self.hit and epoch_of(event) >= 3:
            self.hit = len(self.events)
            self._act(event.worker.partition(" ")[0], self._jobs[event.worker])

    def ended(self, outcome: str) -> list[Ended]:
        return [e for e in self.events if isinstance(e, Ended) and e.outcome == outcome]


def epoch_of(event: Event) -> int:
    """Return the epoch that a worker is at, or 0."""
    found = re.match(r"epoch (\d+)", event.text) if isinstance(event, Doing) else None
    return int(found[1]) if found else 0


def command(*words: str) -> Act:
    return lambda element, job: subprocess.run([*words, element], check=True)


def elements_in_queue() -> str:
    answer = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    return answer.stdout


@pytest.fixture(autouse=True)
def _empty_queue() -> Iterator[None]:
    yield
    subprocess.run(["scancel", "--user=root"], check=True)


@pytest.mark.parametrize("array_size", [1000, 1])
def test_records_equal_those_of_the_local_engine(new_sweep: Make, array_size: int) -> None:
    events: list[Event] = []
    sweep = new_sweep(HEADS)
    plan = sweep.run(engine(array_size=array_size), events.append)

    assert (plan.count("finished"), len(plan.jobs)) == (6, 6)
    assert metrics_of(sweep) == run_locally(new_sweep(HEADS))
    ended = [event.job.id for event in events if isinstance(event, Ended)]
    assert sorted(ended) == sorted(planned.job.id for planned in plan.jobs)


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(command("scancel", "--signal=USR2"), id="notice of the time limit"),
        pytest.param(command("scontrol", "requeue"), id="requeued by SLURM"),
        pytest.param(command("scancel", "--signal=TERM"), id="terminated"),
    ],
)
def test_interrupted_training_goes_on_where_it_was(
    new_sweep: Make, undisturbed: dict[str, Any], disturb: Act
) -> None:
    listen = Disturbance(disturb)
    sweep = new_sweep(TRAINING, n_datasets=1, epochs=12)
    sweep.run(engine(), listen)

    assert metrics_of(sweep) == undisturbed
    assert not listen.ended("failed")
    begun = [event.job for event in listen.events if isinstance(event, Started)]
    [again] = [job for i, job in enumerate(begun) if job in begun[:i]]
    later = listen.events[listen.hit :]
    start = next(e for e in later if isinstance(e, Started) and e.job == again)
    after = [e for e in later[later.index(start) :] if e.worker == start.worker]
    assert next(filter(None, map(epoch_of, after))) >= 3, "it began from the start"


def test_killed_process_fails_its_job_and_the_rest_goes_on(new_sweep: Make) -> None:
    grid = HEADS.replace("pixels", BACKBONE) + TRAINING.partition("protocols:\n")[2] + ONE_TRAINING
    sweep = new_sweep(grid, n_datasets=1, epochs=FOREVER)

    def kill(element: str, job: Job) -> None:
        os.kill(sweep.desk.holder(job).pid, signal.SIGKILL)

    listen = Disturbance(kill)
    plan = sweep.run(engine(array_size=1), listen)

    [failed] = listen.ended("failed")
    assert failed.job.kind == "finetune"
    assert "its process died (FAILED)" in failed.message
    assert (plan.count("finished"), plan.count("failed"), plan.count("left")) == (3, 1, 0)


def test_time_that_is_over_and_may_not_be_extended_is_told(new_sweep: Make) -> None:
    events: list[Event] = []
    sweep = new_sweep(TRAINING + ONE_TRAINING, n_datasets=1, epochs=FOREVER)
    plan = sweep.run(engine(minutes=2, notice_s=20, requeues=0), events.append)

    [ended] = [event for event in events if isinstance(event, Ended)]
    assert ended.outcome == "failed"
    assert "time limit was over" in ended.message
    assert plan.count("failed") == 1


def test_want_of_memory_is_told_apart(new_sweep: Make) -> None:
    sweep = new_sweep(TRAINING + ONE_TRAINING, n_datasets=1, epochs=FOREVER)
    with pytest.raises(SweepError, match="OUT_OF_MEMORY"):
        sweep.run(engine(memory_gb=0.1), lambda event: None)


# For a whole job, SLURM takes KILL as a wish to cancel it, and sends SIGTERM first.
@pytest.mark.parametrize("words", [["scancel"], ["scancel", "--signal=KILL"]])
def test_cancelled_element_saves_and_ends_the_sweep(new_sweep: Make, words: list[str]) -> None:
    sweep = new_sweep(TRAINING + ONE_TRAINING, n_datasets=1, epochs=FOREVER)
    with pytest.raises(SweepError, match="was cancelled; sweep again"):
        sweep.run(engine(), Disturbance(command(*words)))

    assert sweep.plan().count("left") == 1


def test_interrupt_lets_elements_save_and_leaves_none_behind(new_sweep: Make) -> None:
    def press_ctrl_c(element: str, job: Job) -> None:
        raise KeyboardInterrupt

    sweep = new_sweep(TRAINING, epochs=FOREVER)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(engine(), Disturbance(press_ctrl_c))

    while "CG" in elements_in_queue():
        time.sleep(1)
    assert elements_in_queue() == ""
    runs = Path(sweep.place.runs)
    assert not list(runs.rglob("*.lock"))
    assert len(list(runs.rglob(STATE_FILE))) == 2


def test_refused_array_is_told_in_the_words_of_sbatch(new_sweep: Make) -> None:
    with pytest.raises(SweepError, match=r"^SLURM refused the array: invalid partition.*nope"):
        new_sweep(HEADS).run(engine(partition="nope"), lambda event: None)


def test_detached_array_runs_on_by_itself(new_sweep: Make) -> None:
    sweep = new_sweep(HEADS, n_datasets=1)
    sweep.desk.prepare()
    detached = SlurmEngine(settings=SlurmSettings(minutes=5), detach=True)
    assert list(detached.run(sweep.plan().tasks, sweep.place)) == []

    assert detached.array is not None
    while detached.array in elements_in_queue():
        time.sleep(1)
    assert sweep.plan().count("finished") == 3
