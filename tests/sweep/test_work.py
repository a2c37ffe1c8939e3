"""What a worker does with a task, and how a sweep goes round by round: all in this process."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medplus.errors import DatasetError, SweepError
from medplus.runs.ledger import list_runs, read_record
from medplus.sweep import work
from medplus.sweep.conduct import Sweep
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.job import Job, Place, Task
from tests.sweep.here import Here


class Telling:
    """An engine that tells what it is told to, and does nothing."""

    workers = 1

    def __init__(self, outcome: str | None) -> None:
        self._outcome = outcome

    def run(self, tasks: Sequence[Task], place: Place) -> Iterator[Event]:
        for task in tasks:
            for job in task.jobs:
                if self._outcome is not None:
                    yield Ended("w", job, self._outcome)  # type: ignore[arg-type]


def outcomes(events: list[Event]) -> Counter:
    return Counter((e.job.kind, e.outcome) for e in events if isinstance(e, Ended))


def all_finished(n: int) -> dict[tuple[str, str], int]:
    return {(kind, "finished"): n for kind in ("extract", "knn", "probe")}


def test_every_job_is_told_from_beginning_to_end(new_sweep: Callable[..., Sweep]):
    events: list[Event] = []
    plan = new_sweep(1).run(Here(), events.append)

    told = [(type(e).__name__, e.job.kind) for e in events if not isinstance(e, Doing)]
    assert told == [
        (event, kind) for kind in ("extract", "knn", "probe") for event in ("Started", "Ended")
    ]
    assert plan.count("finished") == 3 and plan.tasks == ()


def test_fine_tuning_is_part_of_it(new_sweep: Callable[..., Sweep]):
    protocols = {"finetune": {"recipe": "modern", "epochs": 1, "batch_size": 16}}
    sweep = new_sweep(1, protocols=protocols, weights="none")
    events: list[Event] = []

    sweep.run(Here(), events.append)

    assert outcomes(events) == {("finetune", "finished"): 2}
    assert any(isinstance(e, Doing) and e.text.startswith("epoch 1/1, ") for e in events)
    found = [read_record(folder) for folder in list_runs(Path(sweep.place.runs))]
    assert sorted(record.seed for record in found) == [1, 2]  # type: ignore[type-var]
    assert {record.config["recipe"]["epochs"] for record in found} == {1}
    log = next((sweep.desk.folder / "logs").glob("finetune-*.log")).read_text()
    assert "begins in process" in log and "train_loss" in log and "has finished" in log


def test_nothing_is_done_twice(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1)
    sweep.run(Here())
    before = {path: path.stat().st_mtime_ns for path in Path(sweep.place.runs).rglob("*.json")}
    events: list[Event] = []

    plan = new_sweep(1).run(Here(), events.append)

    assert events == [] and plan.count("finished") == 3
    assert {p: p.stat().st_mtime_ns for p in Path(sweep.place.runs).rglob("*.json")} == before


def test_a_larger_grid_adds_to_a_smaller_one(new_sweep: Callable[..., Sweep]):
    """Only the new k and the new seed are computed."""
    sweep = new_sweep(1)
    sweep.run(Here())
    larger = new_sweep(
        1, seeds=[1, 2, 3], protocols={"knn": {"k": [1, 3, 5]}, "probe": {"epochs": 2}}
    )
    events: list[Event] = []

    larger.run(Here(), events.append)

    assert outcomes(events) == {("knn", "finished"): 1, ("probe", "finished"): 1}
    runs = list(list_runs(Path(sweep.place.runs)))
    assert sorted(Counter(p.parts[-5] for p in runs).items()) == [("knn", 3), ("probe", 3)]


def test_an_error_ends_its_job_and_what_needs_it_and_nothing_else(
    new_sweep: Callable[..., Sweep],
):
    sweep = new_sweep(2)
    broken = Path(sweep.grid.datasets[0])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    events: list[Event] = []

    plan = sweep.run(Here(), events.append)

    assert outcomes(events) == {
        ("extract", "failed"): 1, ("knn", "blocked"): 1, ("probe", "blocked"): 1, **all_finished(1),
    }  # fmt: skip
    [failure] = sweep.desk.failures().values()
    assert (failure.kind, failure.error, failure.pid) == ("error", "DatasetError", os.getpid())
    assert str(broken) in failure.message and "\n" not in failure.message
    assert "in load_dataset" in failure.traceback
    assert "has not finished" in Path(failure.log).read_text()
    assert plan.count("failed") == 1

    # The same sweep leaves it alone, until it is told to try again.
    broken.write_bytes(whole)
    events.clear()
    assert new_sweep(2).run(Here(), events.append).count("failed") == 1
    assert events == []
    plan = new_sweep(2).run(Here(), events.append, retry_failed=True)
    assert outcomes(events) == all_finished(1)
    assert plan.count("finished") == 6
    assert sweep.desk.failures() == {}


def test_whatever_a_job_raises_the_rest_goes_on(
    new_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
):
    def broken(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("medplus.heads.knn.search.search", broken)
    sweep = new_sweep(1)
    events: list[Event] = []

    sweep.run(Here(), events.append)

    assert outcomes(events) == {
        ("extract", "finished"): 1, ("knn", "failed"): 1, ("probe", "finished"): 1,
    }  # fmt: skip
    [failure] = sweep.desk.failures().values()
    assert (failure.error, failure.message) == ("ZeroDivisionError", "by zero")


def test_what_others_have_done_meanwhile_is_skipped(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(2)
    first, second = sweep.plan().tasks
    sweep.desk.prepare()
    other = new_sweep(2)
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Started) and len(events) == 1:
            done = second if event.job.spec == first.jobs[0].spec else first
            work.perform(done, other.place, "elsewhere", lambda event: None)

    sweep.run(Here(), listen)

    assert outcomes(events) == all_finished(1) | {
        (kind, "skipped"): 1 for kind in ("extract", "knn", "probe")
    }


def test_a_job_that_is_held_elsewhere_is_left_with_what_needs_it(
    new_sweep: Callable[..., Sweep],
):
    sweep = new_sweep(1)
    [task] = sweep.plan().tasks
    sweep.desk.prepare()
    events: list[Event] = []
    with sweep.desk.claim(task.jobs[0]):
        thread = threading.Thread(
            target=work.perform, args=(task, sweep.place, "here", events.append)
        )
        thread.start()
        thread.join()

    assert outcomes(events) == {(job.kind, "held"): 1 for job in task.jobs}
    assert f"process {os.getpid()}" in events[0].message  # type: ignore[union-attr]
    assert sweep.desk.failures() == {}


def test_what_another_sweep_does_is_waited_for_and_then_done(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1, look_every_s=0.05)
    sweep.desk.prepare()
    [task] = sweep.plan().tasks
    waited: list[list[str]] = []
    claim = sweep.desk.claim(task.jobs[0])
    claim.__enter__()

    def waiting(who: list[str]) -> None:
        waited.append(who)
        claim.__exit__(None, None, None)

    plan = sweep.run(Here(), waiting=waiting)

    assert f"process {os.getpid()}" in waited[0][0]
    assert plan.count("finished") == 3


def test_missing_data_are_told_before_anything_starts(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1, datasets=["breastmnist", "bloodmnist"], sizes=[28, 64])

    with pytest.raises(DatasetError, match=r"breastmnist\.npz.*and 1 more; put them there"):
        sweep.run(Here())

    assert not Path(sweep.place.runs).exists()


def test_results_that_are_not_there_are_not_made_for_ever(new_sweep: Callable[..., Sweep]):
    with pytest.raises(SweepError, match="all workers must see the same folders"):
        new_sweep(1, look_every_s=0.0).run(Telling("finished"))


def test_a_failure_without_a_note_is_not_tried_for_ever(new_sweep: Callable[..., Sweep]):
    plan = new_sweep(1).run(Telling("failed"))
    assert plan.count("failed") == 3 and plan.tasks == ()


def test_an_engine_that_lets_go_ends_the_sweep(new_sweep: Callable[..., Sweep]):
    assert len(new_sweep(1).run(Telling(None)).tasks) == 1


def test_a_task_whose_store_is_gone_fails_with_a_remedy(new_sweep: Callable[..., Sweep]):
    sweep = new_sweep(1)
    [task] = sweep.plan().tasks
    sweep.desk.prepare()
    heads = Task(tuple(job for job in task.jobs if job.kind != "extract"), None, 1.0)
    events: list[Event] = []

    work.perform(heads, sweep.place, "here", events.append)

    messages = {e.message for e in events if isinstance(e, Ended)}
    assert len(messages) == 2 and all("sweep again" in message for message in messages)
    assert isinstance(heads.jobs[0], Job)
