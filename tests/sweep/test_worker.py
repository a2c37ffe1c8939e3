"""Workers, and the sweep round about them: everything once, and what fails ends nothing else."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import medplus
from medplus.errors import DatasetError, SweepError
from medplus.heads.knn.search import search
from medplus.lock import hold
from medplus.run.ledger import list_runs, read_record
from medplus.run.record import RunRecord
from medplus.sweep.claims import Claimant
from medplus.sweep.conduct import Sweep
from medplus.sweep.engines import Death
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.worker import Worker
from tests.sweep.here import Here


class Lazy(Here):
    """An engine whose workers do nothing for so many looks, and which may let them go."""

    def __init__(self, looks: int = 0) -> None:
        super().__init__()
        self.detached, self._looks = not looks, looks

    def start(self, grid: Grid, place: Place, most: int) -> None:
        self.living = dict.fromkeys(range(self._looks))

    def look(self) -> Iterator[Death]:
        self.living.popitem()
        yield from ()


def work(sweep: Sweep) -> list[str]:
    """Be a worker, and return what it said."""
    said: list[str] = []
    Worker(sweep.grid, sweep.place, "here", say=said.append).run()
    return [text.partition(" (")[0] for text in said]


def states(sweep: Sweep) -> list[tuple[str, str]]:
    return [(job.kind, job.state) for job in sweep.plan().jobs]


def test_heads_follow_their_extraction(new_sweep: Callable[..., Sweep]):
    assert work(new_sweep(2)) == [
        f"finished {kind} toy{i} pixels" for i in (0, 1) for kind in ("extract", "knn", "probe")
    ]


def test_fine_tuning_is_part_of_it_and_makes_what_its_command_makes(
    new_sweep: Callable[..., Sweep],
):
    protocols = {"finetune": {"recipe": "modern", "epochs": 1, "batch_size": 16}}
    sweep = new_sweep(1, protocols=protocols, weights="none")

    assert len(work(sweep)) == 2

    found = [read_record(folder) for folder in list_runs(Path(sweep.place.runs))]
    [path] = sweep.grid.datasets
    again = medplus.finetune(
        path, None, "pixels", [1, 2], weights="none", recipe="modern", epochs=1, batch_size=16,
        runs=sweep.place.runs,
    )  # fmt: skip
    assert {record.created for record in again} == {record.created for record in found}
    log = next((sweep.claims.folder / "logs").glob("finetune-*.log")).read_text()
    assert "begins in process" in log and "train_loss" in log and "has finished" in log


def test_each_fold_is_a_job_and_the_last_of_a_repeat_joins_them(new_sweep: Callable[..., Sweep]):
    section = {"recipe": "modern", "epochs": 1, "batch_size": 16, "folds": 3}
    sweep = new_sweep(1, protocols={"finetune": section}, weights="none", seeds=1)
    [first, *_] = sweep.plan().jobs
    assert first.name == "finetune toy0 pixels seed1 repeat0 fold0"

    root = Path(sweep.place.runs) / "folds3" / "repeat0"
    joined: list[RunRecord] = []
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text.partition(" (")[0])
        if len(said) == 3:  # as if another worker had trained the last, and not come to join them
            [folder] = list_runs(root)
            joined.append(read_record(folder))
            shutil.rmtree(folder)

    Worker(sweep.grid, sweep.place, "here", say=say).run()
    assert said[3:] == ["finished finetune toy0 pixels seed1 repeat0"]
    assert states(sweep) == [("finetune", "finished")] * 3
    assert work(sweep) == []

    [folder] = list_runs(root)
    again = read_record(folder)
    assert again.folds is not None and again.folds.n == 3
    assert again.metrics == joined[0].metrics
    assert not list(list_runs(Path(sweep.place.runs)))


def test_nothing_is_done_twice(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1)
    sweep.run(Here())
    before = {path: path.stat().st_mtime_ns for path in Path(sweep.place.runs).rglob("*.json")}

    assert work(new_sweep(1)) == []

    assert {p: p.stat().st_mtime_ns for p in Path(sweep.place.runs).rglob("*.json")} == before


def test_a_larger_grid_adds_to_a_smaller_one(new_sweep: Callable[..., Sweep]):
    """Only the new k and the new seed are computed."""
    sweep = new_sweep(1)
    sweep.run(Here())
    protocols = {"knn": {"k": [1, 3, 5]}, "probe": {"epochs": 2}}

    assert len(work(new_sweep(1, seeds=[1, 2, 3], protocols=protocols))) == 2

    runs = list(list_runs(Path(sweep.place.runs)))
    assert sorted(Counter(p.parts[-5] for p in runs).items()) == [("knn", 3), ("probe", 3)]


def test_an_error_ends_its_job_and_what_needs_it_and_nothing_else(
    new_sweep: Callable[..., Sweep],
):
    sweep = new_sweep(2)
    broken = Path(sweep.grid.datasets[0])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])

    sweep.run(Here())

    kinds = ("extract", "knn", "probe")
    done = [(kind, "finished") for kind in kinds]
    assert states(sweep) == [("extract", "failed"), ("knn", "left"), ("probe", "left"), *done]
    [(broken_job, failure)] = sweep.claims.standing().failures.items()
    assert (failure.error, failure.pid) == ("DatasetError", os.getpid())
    assert str(broken) in failure.cause and "\n" not in failure.cause
    assert "is not a readable npz" in sweep.claims.log(broken_job).read_text()
    assert "has not finished" in sweep.claims.log(broken_job).read_text()

    # The same sweep leaves it alone, until it is told to try again.
    broken.write_bytes(whole)
    assert work(new_sweep(2)) == []
    assert new_sweep(2).run(Here(), retry_failed=True).count("finished") == 6
    assert sweep.claims.standing().failures == {}


def test_whatever_a_job_raises_the_rest_goes_on(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    def broken(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("medplus.heads.knn.search.search", broken)
    sweep = new_sweep(1)

    sweep.run(Here())

    assert states(sweep) == [("extract", "finished"), ("knn", "failed"), ("probe", "finished")]
    [failure] = sweep.claims.standing().failures.values()
    assert (failure.error, failure.cause) == ("ZeroDivisionError", "by zero")


def test_an_interrupt_leaves_the_job_free(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    sweep = new_sweep(1)
    with monkeypatch.context() as patch:
        patch.setattr("medplus.heads.knn.search.search", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(Here())

    assert list(sweep.claims.folder.glob("claims/*")) == []
    assert work(sweep) == ["finished knn toy0 pixels", "finished probe toy0 pixels"]


@pytest.mark.parametrize("becomes_an_error", [False, True])
def test_an_interrupt_that_a_library_ignores_or_replaces_ends_the_worker(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, becomes_an_error: bool
):
    """As some do while they are being imported."""

    def lose_one(*arguments: Any, **named: Any) -> Any:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        if becomes_an_error:
            raise ImportError("returned a result with an exception set")
        return search(*arguments, **named)

    sweep = new_sweep(1)
    with monkeypatch.context() as patch:
        patch.setattr("medplus.heads.knn.search.search", lose_one)
        with pytest.raises(KeyboardInterrupt):
            work(sweep)

    assert list(sweep.claims.folder.glob("claims/*")) == []
    assert sweep.claims.standing().failures == {}
    knn_is_left = ["finished knn toy0 pixels"] * becomes_an_error
    assert work(sweep) == [*knn_is_left, "finished probe toy0 pixels"]


def test_what_another_worker_does_is_left_to_it(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(2)
    sweep.prepare()
    held = next(p for p in sweep.plan().jobs if p.spec.dataset == sweep.grid.datasets[0])
    with Claimant(sweep.claims, "elsewhere") as other:
        assert other.claim(held)
        Worker(sweep.grid, sweep.place, "here", wait=False).run()
        assert [job for job, _ in sweep.running(sweep.plan())] == [held]
        other.release()

    assert sweep.plan().count("finished") == 3
    assert {planned.state for planned in sweep.plan().jobs[:3]} == {"left"}


def test_what_a_single_command_does_is_left_to_it(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1)
    work(sweep)
    [store] = Path(sweep.place.store).rglob("*.zarr")
    (store / "zarr.json").unlink()
    with hold(store.with_name(f"{store.name}.lock"), "the store"):
        Worker(new_sweep(1, seeds=[3]).grid, sweep.place, "here", wait=False).run()
    assert sweep.claims.standing().failures == {}


def test_missing_data_are_told_before_anything_starts(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1, datasets=["breastmnist", "bloodmnist"], sizes=[28, 64])

    with pytest.raises(
        DatasetError, match=r"^4 datasets .*breastmnist\.npz.* missing; put them there"
    ):
        sweep.run(Here())

    assert not Path(sweep.place.runs).exists()


def test_results_that_are_not_there_are_not_made_for_ever(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("medplus.embeddings.extract.extract_all", lambda *_, **__: [])
    with pytest.raises(SweepError, match="all workers must see the same folders"):
        work(new_sweep(1))


def test_workers_that_do_nothing_end_the_sweep(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("medplus.sweep.conduct.LATE_S", 0.0)
    with pytest.raises(SweepError, match="the workers have ended, and left 1 cells"):
        new_sweep(1).run(Lazy(looks=1))


def test_workers_that_wait_to_begin_are_let_go_when_the_time_is_over(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    """As in a queue of SLURM's."""
    monkeypatch.setattr("medplus.sweep.conduct.PATIENCE_S", 0.0)
    sweep = new_sweep(1)
    sweep = Sweep(sweep.grid, sweep.place, budget_s=3.0)
    assert sweep.run(Lazy(looks=10**5)).count("left") == 3


def test_where_all_workers_have_died_others_are_started(
    new_sweep: Callable[..., Sweep],
):
    """As at the end of an array of SLURM, which does not start its elements again."""
    sweep = new_sweep(1)
    started: list[int] = []

    class Doomed(Here):
        def start(self, grid: Grid, place: Place, most: int) -> None:
            started.append(most)
            if len(started) > 1:
                super().start(grid, place, most)
            else:
                self.living = {0: None}

        def look(self) -> Iterator[Death]:
            self.living = {}
            with Claimant(sweep.claims, "doomed") as worker:
                worker.claim(sweep.plan().jobs[0])
            yield Death("doomed", "its node was lost")

    assert sweep.run(Doomed()).count("finished") == 3
    assert started == [3, 3]


def test_an_engine_that_lets_go_ends_the_sweep(new_sweep: Callable[..., Sweep]):
    assert len(new_sweep(1).run(Lazy(looks=0)).cells) == 1


def test_a_lock_that_a_killed_extraction_left_is_removed(new_sweep: Callable[..., Sweep]) -> None:
    sweep = new_sweep(1)
    lock = Path(sweep.place.store) / "toy" / "28" / "pixels-0123abcd.zarr.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    sweep.prepare()
    assert not lock.exists()
