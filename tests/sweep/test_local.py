"""The local engine: worker processes that share the work, and survive what happens to them."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import medplus
from medplus.errors import SweepError
from medplus.spec import ExtractSpec
from medplus.sweep.conduct import Sweep
from medplus.sweep.desk import Desk
from medplus.sweep.engines import local
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.job import Job, Place, Task


def outcomes(events: list[Event]) -> Counter:
    return Counter((e.job.kind, e.outcome) for e in events if isinstance(e, Ended))


def records(runs: Path) -> list:
    from medplus.runs.ledger import list_runs, read_record

    return [read_record(folder) for folder in list_runs(runs)]


@pytest.fixture
def performers(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return the module of what workers do instead of real work; they can import it too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("performers")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return folders with a desk."""
    runs = tmp_path / "runs"
    Desk(runs).prepare()
    return Place(str(tmp_path), str(tmp_path / "store"), str(runs))


def job(kind: str, dataset: str = "a", seconds: int = 0) -> Job:
    return Job(kind, ExtractSpec(dataset, 28, "pixels", "none"), {"seconds": seconds}, 1)  # type: ignore[arg-type]


def chain(dataset: str = "a") -> Task:
    """Return a task of an extraction and its two heads."""
    return Task((job("extract", dataset), job("knn", dataset), job("probe", dataset)), None, 1.0)


def test_a_grid_gives_what_its_commands_give(new_sweep: Callable[..., Sweep], tmp_path: Path):
    sweep = new_sweep(3)
    events: list[Event] = []

    plan = sweep.run(LocalEngine(2), events.append)

    assert outcomes(events) == {
        ("extract", "finished"): 3, ("knn", "finished"): 3, ("probe", "finished"): 3,
    }  # fmt: skip
    assert plan.tasks == () and plan.count("finished") == 9
    assert {e.worker for e in events} == {"worker 1", "worker 2"}
    expected = {}
    for path in sweep.grid.datasets:
        store = medplus.extract(path, backbone="pixels", store=tmp_path / "plain")
        again = {"runs": tmp_path / "plain", "bootstrap": 0}
        made = medplus.knn(store, [1, 3], **again) + medplus.probe(store, [1, 2], epochs=2, **again)
        expected |= {(record.dataset, record.run_id): record.metrics for record in made}
    found = {(r.dataset, r.run_id): r.metrics for r in records(Path(sweep.place.runs))}
    assert found == expected


def test_workers_are_used_again_and_do_every_task_once(performers: types.ModuleType, place: Place):
    tasks = [chain(f"d{i}") for i in range(12)]
    jobs = [job for task in tasks for job in task.jobs]

    events = list(LocalEngine(2, perform=performers.write_down).run(tasks, place))

    assert outcomes(events) == {
        ("extract", "finished"): 12, ("knn", "finished"): 12, ("probe", "finished"): 12,
    }  # fmt: skip
    notes = [(Path(place.runs) / f"{job.id}.note").read_text().split() for job in jobs]
    assert len({process for process, _ in notes}) <= 2
    assert {int(threads) for _, threads in notes} == {max(local.cores() // 2, 1)}
    assert multiprocessing.active_children() == []


def test_there_are_no_more_workers_than_tasks(performers: types.ModuleType, place: Place):
    events = list(LocalEngine(8, perform=performers.write_down).run([chain()], place))
    assert {event.worker for event in events} == {"worker 1"}


def test_a_killed_worker_is_told_apart_and_replaced(performers: types.ModuleType, place: Place):
    """Of extract, knn, probe the worker dies in knn: probe does not need it, and is done."""
    tasks = [chain("a"), chain("b")]

    events = list(LocalEngine(1, perform=performers.die_in_knn).run(tasks, place))

    assert outcomes(events) == {
        ("extract", "finished"): 2, ("knn", "failed"): 2, ("probe", "finished"): 2,
    }  # fmt: skip
    failures = Desk(Path(place.runs)).failures()
    assert set(failures) == {job("knn", "a").id, job("knn", "b").id}
    assert {f.kind for f in failures.values()} == {"killed"}
    assert len({f.pid for f in failures.values()}) == 2
    assert all("SIGKILL" in f.message and "memory" in f.message for f in failures.values())


def test_what_needs_the_job_of_a_killed_worker_is_blocked(
    performers: types.ModuleType, place: Place
):
    events = list(LocalEngine(1, perform=performers.die_in_extract).run([chain()], place))

    assert outcomes(events) == {
        ("extract", "failed"): 1, ("knn", "blocked"): 1, ("probe", "blocked"): 1,
    }  # fmt: skip


def test_out_of_memory_is_said_where_the_system_counts_it(
    performers: types.ModuleType, place: Place, monkeypatch: pytest.MonkeyPatch
):
    counts = iter([3, 4])
    monkeypatch.setattr(local, "times_out_of_memory", lambda: next(counts))

    events = list(LocalEngine(1, perform=performers.die_in_extract).run([chain()], place))

    [message] = [e.message for e in events if isinstance(e, Ended) and e.outcome == "failed"]
    assert message.startswith("the system ran out of memory and killed its process")


def test_a_process_that_leaves_is_told_with_its_code(performers: types.ModuleType, place: Place):
    events = list(LocalEngine(1, perform=performers.leave).run([chain()], place))
    [message] = [e.message for e in events if isinstance(e, Ended) and e.outcome == "failed"]
    assert "exit code 3" in message


def test_a_worker_that_cannot_start_ends_the_sweep(place: Place, monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("only_here")  # workers cannot import it
    exec("def perform(*arguments): pass", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(SweepError, match="worker 1 could not start"):
        list(LocalEngine(1, perform=module.perform).run([chain()], place))


def test_an_interrupt_reaches_the_workers_and_ends_them(performers: types.ModuleType, place: Place):
    tasks = [chain("a"), chain("b"), chain("c")]
    running = LocalEngine(2, perform=performers.never_end).run(tasks, place)
    started = set()
    for event in running:
        if isinstance(event, Doing):
            started.add(event.worker)
        if len(started) == 2:
            break

    running.close()

    assert multiprocessing.active_children() == []
    first = [task.jobs[0] for task in tasks]
    notes = [(Path(place.runs) / f"{job.id}.note").exists() for job in first]
    assert notes == [True, True, False]
    desk = Desk(Path(place.runs))
    assert [desk.holder(job) for job in first] == [None] * 3
    assert desk.failures() == {}


def test_a_second_interrupt_kills_them(
    performers: types.ModuleType, place: Place, monkeypatch: pytest.MonkeyPatch
):
    running = LocalEngine(1, perform=performers.never_end).run([chain()], place)
    next(running)
    [process] = multiprocessing.active_children()
    monkeypatch.setattr(type(process), "terminate", lambda self: None)  # it does not listen
    joins = iter([KeyboardInterrupt])
    join = type(process).join

    def interrupted_join(self: object, timeout: float | None = None) -> None:
        for error in joins:
            raise error
        join(self, timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(type(process), "join", interrupted_join)
    running.close()

    assert process.exitcode == -signal.SIGKILL


def test_workers_end_when_their_parent_is_gone(performers: types.ModuleType, place: Place):
    """The parent dies without a word; its worker hears of it, and is interrupted."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import os, performers
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.job import Job, Place, Task
from medplus.spec import ExtractSpec
if __name__ == "__main__":
    spec = ExtractSpec("a", 28, "pixels", "none")
    task = Task((Job("knn", spec, {{"seconds": 0}}, 1),), None, 1.0)
    place = Place(*{(place.data_root, place.store, place.runs)!r})
    for event in LocalEngine(1, perform=performers.never_end).run([task], place):
        os._exit(0)
"""
    script = Path(place.runs) / "parent.py"
    script.write_text(code)
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)

    note = Path(place.runs) / f"{job('knn').id}.note"
    deadline = time.monotonic() + 30
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert note.read_text() == "interrupted"


# --- who does what -------------------------------------------------------------------------------


def task(dataset: str, seconds: float) -> Task:
    return Task((job("extract", dataset, int(seconds)),), None, seconds)


def test_a_worker_goes_on_with_images_that_it_has_read(performers: types.ModuleType, place: Place):
    """Largest first; but first what is on the worker's own images."""
    tasks = [task("a", 9), task("b", 8), task("a", 7), task("c", 6), task("b", 5), task("a", 4)]

    events = LocalEngine(1, perform=performers.write_down).run(tasks, place)
    done = [e.job.options["seconds"] for e in events if isinstance(e, Ended)]

    assert done == [9, 7, 4, 8, 5, 6]


def test_workers_begin_with_different_images(performers: types.ModuleType, place: Place):
    tasks = [task("a", 9), task("a", 8), task("b", 7)]
    running = LocalEngine(2, perform=performers.never_end).run(tasks, place)
    begun: dict[str, str] = {}
    while len(begun) < 2:
        event = next(running)
        if isinstance(event, Started):
            begun[event.worker] = event.job.spec.dataset
    running.close()

    assert sorted(begun.values()) == ["a", "b"]


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        ([], {"worker 1": "", "worker 2": ""}),
        (["0", "GPU-abc"], {"GPU 0": "0", "GPU GPU-abc": "GPU-abc"}),
        (["3"], {"GPU 3.1": "3", "GPU 3.2": "3"}),
    ],
)
def test_workers_are_named_after_their_gpus_and_see_only_those(
    devices: list[str], names: dict[str, str], performers: types.ModuleType, place: Place,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(local, "gpus", lambda: devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tasks = [task("a", 9), task("b", 8)]
    running = LocalEngine(2, perform=performers.tell_gpu).run(tasks, place)
    seen: dict[str, str] = {}
    while len(seen) < 2:
        event = next(running)
        if isinstance(event, Doing):
            seen[event.worker] = event.text
    running.close()

    assert seen == names


def test_one_worker_per_gpu_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "gpus", lambda: ["0", "1", "2"])
    assert LocalEngine().workers == 3
    assert LocalEngine(device="cpu").workers == 1
    assert LocalEngine(5).workers == 5
