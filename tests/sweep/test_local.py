"""The local engine: worker processes that share the work, and survive what happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medplus
from medplus.errors import SweepError
from medplus.run.ledger import list_runs, read_record
from medplus.sweep.conduct import Running, Sweep
from medplus.sweep.engines import local
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.plan import Plan
from medplus.training.folder import STATE_FILE
from tests.sweep.here import Here

LONG = {"finetune": {"recipe": "modern", "epochs": 30, "patience": 30, "batch_size": 16}}
FOREVER = {"finetune": {"recipe": "modern", "epochs": 10**6, "patience": 10**6, "batch_size": 16}}


def metrics(runs: str | Path) -> dict[tuple[str, str], Any]:
    """Return the metrics of all runs, which must each exist once."""
    records = [read_record(folder) for folder in list_runs(Path(runs))]
    found = {(record.dataset, record.run_id): record.metrics for record in records}
    assert len(found) == len(records)
    return found


class Disturbance:
    """Is shown a sweep, and does something to the workers that train, so many times."""

    def __init__(self, act: Callable[[int], object], times: int = 1) -> None:
        self._act, self._times = act, times
        self._seen: set[int] = set()

    def __call__(self, plan: Plan, running: Running) -> None:
        for _, claim in running:
            trains = claim.doing.startswith("epoch") and claim.pid not in self._seen
            if trains and len(self._seen) < self._times:
                self._seen.add(claim.pid)
                self._act(claim.pid)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_grid_gives_what_its_commands_give(new_sweep: Callable[..., Sweep], tmp_path: Path):
    sweep = new_sweep(3)

    plan = sweep.run(LocalEngine(2))

    assert plan.cells == () and plan.count("finished") == 9
    assert multiprocessing.active_children() == []
    for path in sweep.grid.datasets:
        store = medplus.extract(path, backbone="pixels", store=tmp_path / "plain")
        again = {"runs": tmp_path / "plain"}
        medplus.knn(store, [1, 3], **again)
        medplus.probe(store, [1, 2], epochs=2, **again)
    assert metrics(sweep.place.runs) == metrics(tmp_path / "plain")
    assert [
        p.name for p in sweep.claims.folder.rglob("*") if p.is_file() and p.suffix != ".log"
    ] == []


def test_a_killed_worker_is_replaced_and_every_run_is_made_once(
    new_sweep: Callable[..., Sweep], tmp_path: Path
):
    undisturbed = new_sweep(1, root=tmp_path / "undisturbed", protocols=LONG)
    undisturbed.run(Here())
    sweep = new_sweep(1, protocols=LONG)

    plan = sweep.run(LocalEngine(2), Disturbance(kill))

    assert plan.count("finished") == 2 and sweep.claims.standing().failures == {}
    assert metrics(sweep.place.runs) == metrics(undisturbed.place.runs)
    logs = "".join(path.read_text() for path in sweep.claims.folder.glob("logs/*"))
    assert logs.count("begins in process") == 2 + 1 and logs.count("has finished") == 2


@pytest.mark.extensive
def test_a_job_that_kills_three_workers_has_failed_and_the_rest_goes_on(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    counts = iter([0, 0, 0, 1])  # at the start, and after each death
    monkeypatch.setattr(local, "times_out_of_memory", lambda: next(counts))
    exclude = [{"protocols": "finetune", "seeds": 2}]
    sweep = new_sweep(1, protocols={"knn": {"k": 1}, **FOREVER}, exclude=exclude, weights="none")

    plan = sweep.run(LocalEngine(1), Disturbance(kill, times=3))

    assert (plan.count("finished"), plan.count("failed")) == (2, 1)
    [failure] = sweep.claims.standing().failures.values()
    assert failure.error == "" and "3 workers have died of it" in failure.cause
    assert "its process was killed by SIGKILL, since memory ran out" in failure.cause
    monkeypatch.undo()
    assert sweep.run(LocalEngine(1)).count("failed") == 1


def test_a_worker_that_cannot_go_on_ends_the_sweep(
    new_sweep: Callable[..., Sweep], capfd: pytest.CaptureFixture[str]
):
    sweep = new_sweep(1)
    (Path(sweep.place.runs)).mkdir()
    sweep.claims.folder.touch()
    engine = LocalEngine(1)
    engine.start(sweep.grid, sweep.place, 1)
    with pytest.raises(SweepError, match=r"worker 1 \(\d+\) could not go on, for the reason above"):
        while not list(engine.look()):
            pass
    assert f"worker 1 ({os.getpid()}) ends: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        (["0", "GPU-abc"], {"worker 1 on GPU 0", "worker 2 on GPU GPU-abc"}),
        pytest.param(
            ["3"], {"worker 1 on GPU 3", "worker 2 on GPU 3"}, marks=pytest.mark.extensive
        ),
    ],
)
def test_an_interrupt_lets_workers_save_of_which_each_sees_its_gpu(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, devices: list[str],
    names: set[str],
):  # fmt: skip
    monkeypatch.setattr(local, "gpus", lambda: devices)
    sweep = new_sweep(2, protocols=FOREVER, seeds=1)
    seen: set[str] = set()

    def press_ctrl_c(plan: Plan, running: Running) -> None:
        trains = [claim for _, claim in running if claim.doing.startswith("epoch")]
        seen.update(claim.worker.partition(" (")[0] for claim in trains)
        if len(trains) == 2:
            for claim in trains:  # a terminal tells the whole group of processes
                os.kill(claim.pid, signal.SIGINT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(LocalEngine(2), press_ctrl_c)

    assert seen == names
    assert multiprocessing.active_children() == []
    assert len(list(Path(sweep.place.runs).rglob(STATE_FILE))) == 2
    assert list(sweep.claims.folder.glob("claims/*")) == []
    assert sweep.claims.standing().failures == {}
    logs = "".join(path.read_text() for path in sweep.claims.folder.glob("logs/*"))
    assert all(f", GPU {device}\n" in logs for device in devices)


def test_workers_end_with_the_sweep_that_started_them(
    new_sweep: Callable[..., Sweep], tmp_path: Path
):
    """`kill -9` of the conductor alone; what its workers did goes on in the next sweep."""
    sweep = new_sweep(1, protocols=FOREVER, seeds=[1, 2])
    command = [sys.executable, "-m", "medplus", "sweep", str(tmp_path / "grid.yaml")]
    command += ["--workers", "2", "--data-root", sweep.place.data_root]
    command += ["--store", sweep.place.store, "--runs", sweep.place.runs]
    conductor = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while len(sweep.claims.standing().holders) < 2:
            assert conductor.poll() is None
            time.sleep(0.1)
    finally:
        conductor.kill()
        conductor.wait()
    while list(sweep.claims.folder.glob("claims/*")):
        time.sleep(0.1)


def test_one_worker_per_gpu_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "gpus", lambda: ["0", "1", "2"])
    assert LocalEngine().workers == 3
    assert LocalEngine(device="cpu").workers == 1
    assert LocalEngine(5).workers == 5
