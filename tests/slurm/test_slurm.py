"""A small grid on a real SLURM cluster; `make test-slurm` starts one on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medplus.errors import SweepError
from medplus.sweep.conduct import Running, Sweep
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.engines.slurm import SlurmEngine
from medplus.sweep.grid import read_grid
from medplus.sweep.job import Place
from medplus.sweep.plan import Plan
from medplus.training.folder import STATE_FILE
from tests.sweep.test_local import metrics


def _slurm_answers() -> bool:
    try:
        subprocess.run(["sinfo"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),  # SLURM and workers that import torch take minutes on a busy machine
    pytest.mark.skipif(not _slurm_answers(), reason="needs a SLURM cluster; see make test-slurm"),
]

HEADS = """
backbones: pixels
protocols:
  knn: {k: [1, 3]}
  probe: {epochs: 3, lr: 0.01, weight_decay: 0}
"""
TRAINING = """
backbones: mobilenetv3_small_050
protocols:
  finetune: {epochs: EPOCHS, patience: EPOCHS, batch_size: 8, precision: fp32}
"""
ONE_TRAINING = "exclude: [{protocols: finetune, seeds: 2}]\n"
SHORT, FOREVER = 6, 100_000

Make = Callable[..., Sweep]


@pytest.fixture(scope="module")
def new_sweep(write_npz: Callable[..., Path], new_folder: Callable[[], Path]) -> Make:
    """Return a function that makes a sweep in a folder of its own, always on the same data."""
    data = [write_npz("one", seed=1), write_npz("two", seed=2)]

    def make(grid: str, n_datasets: int = 2, epochs: int = 0) -> Sweep:
        root = new_folder()
        datasets = ", ".join(map(str, data[:n_datasets]))
        text = f"datasets: [{datasets}]\nweights: none\nseeds: [1, 2]\n{grid}"
        (root / "grid.yaml").write_text(text.replace("EPOCHS", str(epochs)))
        place = Place(str(root), str(root / "store"), str(root / "runs"), "cpu")
        return Sweep(read_grid(root / "grid.yaml"), place)

    return make


@pytest.fixture(scope="module")
def undisturbed(new_sweep: Make) -> dict[Any, Any]:
    """Metrics of the short trainings."""
    sweep = new_sweep(TRAINING, n_datasets=1, epochs=SHORT)
    sweep.run(LocalEngine(2, "cpu"))
    return metrics(sweep.place.runs)


def engine(workers: int | None = None, **settings: Any) -> SlurmEngine:
    return SlurmEngine(workers, **{"timeout_min": 5, "slurm_signal_delay_s": 10, **settings})


class Disturbance:
    """Is shown a sweep, and acts on workers that train their third epoch, given id and process."""

    def __init__(self, act: Callable[[str, int], object], times: int = 1) -> None:
        self._act, self._times = act, times
        self.hit: set[int] = set()

    def __call__(self, plan: Plan, running: Running) -> None:
        for _, claim in running:
            epoch = int(claim.doing.partition("/")[0].removeprefix("epoch ") or 0)
            if epoch >= 3 and len(self.hit) < self._times and claim.pid not in self.hit:
                self.hit.add(claim.pid)
                self._act(claim.worker, claim.pid)


def command(*words: str) -> Callable[[str, int], object]:
    return lambda element, pid: subprocess.run([*words, element], check=True)


def elements_in_queue() -> str:
    answer = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    return answer.stdout


@pytest.fixture(autouse=True)
def _empty_queue() -> Iterator[None]:
    yield
    subprocess.run(["scancel", "--user=root"], check=True)


@pytest.mark.parametrize("workers", [None, 1])
def test_records_equal_those_of_the_local_engine(new_sweep: Make, workers: int | None) -> None:
    sweep, other = new_sweep(HEADS), new_sweep(HEADS)
    assert sweep.run(engine(workers)).count("finished") == 6
    other.run(LocalEngine(2, "cpu"))
    assert metrics(sweep.place.runs) == metrics(other.place.runs)


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(command("scancel", "--signal=USR2"), id="notice of the time limit"),
        pytest.param(command("scontrol", "requeue"), id="requeued by SLURM"),
        pytest.param(command("scancel", "--signal=TERM"), id="terminated"),
    ],
)
def test_interrupted_training_goes_on_where_it_was(
    new_sweep: Make, undisturbed: dict[Any, Any], disturb: Callable[[str, int], object]
) -> None:
    disturbance = Disturbance(disturb)
    sweep = new_sweep(TRAINING, n_datasets=1, epochs=SHORT)
    sweep.run(engine(), disturbance)

    assert disturbance.hit
    assert metrics(sweep.place.runs) == undisturbed
    logs = "".join(path.read_text() for path in sweep.claims.folder.glob("logs/*"))
    assert logs.count("train_loss") < 2 * SHORT + 3, "it began from the start"


def test_killed_element_counts_an_attempt_and_no_run_is_made_twice(
    new_sweep: Make, undisturbed: dict[Any, Any]
) -> None:
    sweep = new_sweep(TRAINING, n_datasets=1, epochs=SHORT)
    sweep.run(engine(), Disturbance(lambda _, pid: os.kill(pid, signal.SIGKILL)))
    assert metrics(sweep.place.runs) == undisturbed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout_min": 2, "slurm_signal_delay_s": 20, "requeues": 0}, "time limit was over"),
        ({"mem_gb": 0.1}, "OUT_OF_MEMORY"),
    ],
)
def test_limit_that_no_attempt_keeps_is_told(
    new_sweep: Make, settings: dict[str, Any], says: str
) -> None:
    sweep = new_sweep(TRAINING + ONE_TRAINING, n_datasets=1, epochs=FOREVER)
    try:
        sweep.run(engine(**settings))
    except SweepError as error:  # before it had a job
        assert says in str(error)
    else:
        [failure] = sweep.claims.standing().failures.values()
        assert says in failure.cause


# For a whole job, SLURM takes KILL as a wish to cancel it, and sends SIGTERM first.
@pytest.mark.parametrize("words", [["scancel"], ["scancel", "--signal=KILL"]])
def test_cancelled_element_saves_and_ends_the_sweep(new_sweep: Make, words: list[str]) -> None:
    sweep = new_sweep(TRAINING + ONE_TRAINING, n_datasets=1, epochs=FOREVER)
    with pytest.raises(SweepError, match="was cancelled; sweep again"):
        sweep.run(engine(), Disturbance(command(*words)))

    assert sweep.plan().count("left") == 1


def test_interrupt_lets_elements_save_and_leaves_none_behind(new_sweep: Make) -> None:
    def press_ctrl_c(element: str, pid: int) -> None:
        raise KeyboardInterrupt

    sweep = new_sweep(TRAINING, epochs=FOREVER)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(engine(), Disturbance(press_ctrl_c))

    while "CG" in elements_in_queue():
        time.sleep(1)
    assert elements_in_queue() == ""
    runs = Path(sweep.place.runs)
    assert not list(runs.rglob("*.lock")) and not sweep.claims.standing().holders
    assert list(runs.rglob(STATE_FILE))


def test_detached_array_runs_on_by_itself(new_sweep: Make) -> None:
    sweep = new_sweep(HEADS, n_datasets=1)
    detached = SlurmEngine(detach=True, timeout_min=5)
    assert sweep.run(detached).count("left") == 3

    assert detached.array is not None
    while detached.array in elements_in_queue():
        time.sleep(1)
    assert sweep.plan().count("finished") == 3
