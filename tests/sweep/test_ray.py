"""The Ray engine on a cluster of two nodes on this machine, of which one is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from medplus.errors import SweepError  # noqa: E402
from medplus.runs.ledger import list_runs, read_record  # noqa: E402
from medplus.spec import ExtractSpec  # noqa: E402
from medplus.sweep.conduct import Sweep  # noqa: E402
from medplus.sweep.desk import Desk  # noqa: E402
from medplus.sweep.engines.ray import RayEngine, _Round  # noqa: E402
from medplus.sweep.engines.ray_cluster import check_address, check_room, room  # noqa: E402
from medplus.sweep.events import Doing, Ended, Event, Started  # noqa: E402
from medplus.sweep.grid import Grid  # noqa: E402
from medplus.sweep.gridfile import read_grid  # noqa: E402
from medplus.sweep.job import Job, Place, Task  # noqa: E402
from medplus.sweep.work import perform  # noqa: E402
from tests.sweep.here import Here  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
GRID = """
datasets: [{datasets}]
backbones: [pixels]
weights: none
seeds: [1, 2]
protocols:
  knn: {{k: [1, 3]}}
  probe: {{epochs: 2, lr: [0.01], weight_decay: [0.0]}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start a cluster of two nodes, and connect to the first."""
    before = signal.getsignal(signal.SIGTERM)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    nodes.add_node(**NODE)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return folders of a sweep's own, with a desk."""
    runs = tmp_path / "runs"
    Desk(runs).prepare()
    return Place(str(tmp_path), str(tmp_path / "store"), str(runs), "cpu", bootstrap=0)


def job(kind: Any, seed: int = 1) -> Job:
    return Job(kind, ExtractSpec("toy", 28, "pixels", "none"), {"seed": seed}, 1)


def task(*jobs: Job) -> Task:
    return Task(jobs, None, 1.0)


def endings(events: list[Event]) -> list[tuple[str, str]]:
    return sorted((e.job.name, e.outcome) for e in events if isinstance(e, Ended))


def finish(task: Task, place: Place, worker: str, tell: Callable[[Event], None]) -> None:
    """Stand in for `perform`."""
    for job in task.jobs:
        tell(Started(worker, job))
        tell(Ended(worker, job, "finished"))


# --- what can happen to a task -------------------------------------------------------------------


def test_a_killed_process_fails_its_job_and_the_rest_goes_on(
    cluster: Cluster, place: Place
) -> None:
    def die_in_knn(task: Task, place: Place, worker: str, tell: Any) -> None:
        for job in task.jobs:
            tell(Started(worker, job))
            if job.kind == "knn":
                os.kill(os.getpid(), signal.SIGKILL)
            tell(Ended(worker, job, "finished"))

    jobs = job("extract"), job("knn"), job("probe")
    engine = RayEngine(_perform=die_in_knn)

    events = list(engine.run([task(*jobs)], place))

    assert endings(events) == [
        ("extract toy 28 pixels", "finished"),
        ("knn toy 28 pixels", "failed"),
        ("probe toy 28 pixels", "finished"),
    ]
    [failure] = Desk(Path(place.runs)).failures().values()
    assert (failure.job_id, failure.kind) == (jobs[1].id, "killed")
    assert "killed or crashed" in failure.message
    assert failure.pid > 0


def test_an_error_outside_of_a_job_fails_the_job_under_way(cluster: Cluster, place: Place) -> None:
    def stumble(task: Task, place: Place, worker: str, tell: Any) -> None:
        for job in task.jobs:
            tell(Started(worker, job))
            if job.kind == "knn":
                raise LookupError("no such thing")
            tell(Ended(worker, job, "finished"))

    events = list(RayEngine(_perform=stumble).run([task(job("knn"), job("probe"))], place))

    assert endings(events) == [("knn toy 28 pixels", "failed"), ("probe toy 28 pixels", "finished")]
    [failure] = Desk(Path(place.runs)).failures().values()
    assert (failure.error, failure.message) == ("LookupError", "no such thing")


def test_a_lost_mailbox_loses_no_ending(
    cluster: Cluster, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailboxes: list[Any] = []
    opened = _Round._open_mailbox
    monkeypatch.setattr(
        _Round, "_open_mailbox", lambda self: mailboxes.append(opened(self)) or mailboxes[-1]
    )

    def perform_slowly(task: Task, place: Place, worker: str, tell: Any) -> None:
        for job in task.jobs:
            tell(Started(worker, job))
            time.sleep(0.5)
            tell(Ended(worker, job, "finished"))

    events = []
    for event in RayEngine(_perform=perform_slowly).run([task(job("knn"), job("probe"))], place):
        events.append(event)
        if len(events) == 1:
            ray.kill(mailboxes[0], no_restart=True)

    assert endings(events) == [
        ("knn toy 28 pixels", "finished"),
        ("probe toy 28 pixels", "finished"),
    ]


@pytest.mark.extensive  # it once took pytest's own worker down with it
def test_an_interrupt_lets_workers_save(cluster: Cluster, place: Place, tmp_path: Path) -> None:
    saved = tmp_path / "saved"

    def work_on(task: Task, place: Place, worker: str, tell: Any) -> None:
        tell(Started(worker, task.jobs[0]))
        try:
            for _ in range(600):
                time.sleep(0.1)
        except KeyboardInterrupt:
            time.sleep(1)
            saved.touch()
            raise

    events = RayEngine(_perform=work_on).run([task(job("knn", i)) for i in range(3)], place)
    first = next(events)
    events.close()  # type: ignore[attr-defined]

    assert isinstance(first, Started)
    assert saved.exists()


def test_tasks_are_done_one_at_a_time_in_one_process_in_order(
    cluster: Cluster, place: Place
) -> None:
    def report(task: Task, place: Place, worker: str, tell: Any) -> None:
        import torch

        tell(Doing(worker, f"{torch.get_num_threads()} thread in {Path.cwd()}"))
        finish(task, place, worker, tell)

    tasks = [task(job("finetune", i)) for i in range(4)]
    engine = RayEngine(workers=1, _perform=report)

    events = list(engine.run(tasks, place))

    assert engine.workers == 1
    ended = [e for e in events if isinstance(e, Ended)]
    assert [e.job for e in ended] == [t.jobs[0] for t in tasks]
    assert len({e.worker for e in ended}) == 1
    assert {e.text for e in events if isinstance(e, Doing)} == {f"1 thread in {Path.cwd()}"}


@pytest.mark.extensive
def test_the_loss_of_all_nodes_that_fit_is_told(
    cluster: Cluster, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report_and_wait(task: Task, place: Place, worker: str, tell: Any) -> None:
        import torch

        tell(Doing(worker, f"{torch.get_num_threads()} threads"))
        time.sleep(600)

    monkeypatch.setattr("medplus.sweep.engines.ray._SILENCE_S", 1.0)
    large = cluster.add_node(**(NODE | {"num_cpus": 2}))
    events = RayEngine(cpus=2, _perform=report_and_wait).run([task(job("knn"))], place)

    assert getattr(next(events), "text", "") == "2 threads"
    cluster.remove_node(large)
    with pytest.raises(SweepError, match=r"asks for 2 CPU cores, and the most .* is 1 CPU core;"):
        list(events)


# --- a grid on two nodes -------------------------------------------------------------------------


@pytest.fixture
def grid(write_npz: Callable[..., Path], tmp_path: Path) -> Grid:
    """Return a grid of eight small datasets."""
    paths = [str(write_npz(f"toy{i}", seed=i, folder=tmp_path)) for i in range(8)]
    file = tmp_path / "grid.yaml"
    file.write_text(GRID.format(datasets=", ".join(paths)))
    return read_grid(file)


def metrics(runs: str) -> dict[tuple[Any, ...], Any]:
    """Return what the records measured by what they are, each once."""
    records = [read_record(folder) for folder in list_runs(Path(runs))]
    found = {(r.dataset, r.run_id): r.metrics for r in records}
    assert len(found) == len(records)
    return found


def test_a_grid_is_finished_exactly_once_though_a_node_is_lost(
    cluster: Cluster, grid: Grid, place: Place, tmp_path: Path
) -> None:
    [second_node] = cluster.worker_nodes
    head = ray.get_runtime_context().get_node_id()
    [doomed] = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != head]
    stuck = tmp_path / "stuck"

    def perform_until_stuck(task: Task, place: Place, worker: str, tell: Any) -> None:
        """Do a task; on the node that will be lost, get stuck within its first kNN."""
        here = ray.get_runtime_context().get_node_id()

        def told(event: Event) -> None:
            tell(event)
            if here == doomed and isinstance(event, Started) and event.job.kind == "knn":
                stuck.touch()
                time.sleep(600)

        perform(task, place, worker, told)

    def lose_the_node() -> None:
        while not stuck.exists():
            time.sleep(0.05)
        cluster.remove_node(second_node, allow_graceful=False)

    losing = threading.Thread(target=lose_the_node, daemon=True)
    losing.start()
    events: list[Event] = []
    plan = Sweep(grid, place).run(RayEngine(_perform=perform_until_stuck), events.append)
    losing.join(10)

    assert stuck.exists()
    assert not losing.is_alive()
    assert plan.count("finished") == len(plan.jobs) == 24
    finished = Counter(e.job.id for e in events if isinstance(e, Ended) and e.outcome == "finished")
    assert finished == {planned.job.id: 1 for planned in plan.jobs}
    assert Sweep(grid, place).desk.failures() == {}
    undisturbed = Place(place.data_root, str(tmp_path / "s"), str(tmp_path / "r"), "cpu", 0)
    Sweep(grid, undisturbed).run(Here(), lambda event: None)
    assert metrics(place.runs) == metrics(undisturbed.runs)


# --- clusters that cannot be used ----------------------------------------------------------------


def test_more_than_any_node_has_is_refused(cluster: Cluster, place: Place) -> None:
    tasks = [task(job("knn"))]
    for options, says in (
        ({"gpus": 1}, "asks for 1 GPU, and the most that a node of the Ray cluster has is 0 GPUs"),
        ({"cpus": 3}, "asks for 3 CPU cores, and the most that a node"),
        ({"memory_gb": 1e6}, "GB of memory"),
    ):
        with pytest.raises(SweepError, match=says):
            list(RayEngine(**options).run(tasks, place))  # type: ignore[arg-type]


def test_a_request_must_fit_on_one_node() -> None:
    have = [{"CPU": 8.0, "memory": 8e9}, {"CPU": 1.0, "GPU": 2.0, "memory": 4e9}]

    assert room({"CPU": 1, "GPU": 0, "memory": 0}, have) == 9
    assert room({"CPU": 1, "GPU": 0.5, "memory": 1e9}, have) == 1
    with pytest.raises(SweepError, match="all that each task asks for \\(2 CPU cores, 1 GPU\\)"):
        check_room({"CPU": 2, "GPU": 1, "memory": 0}, have)


def test_workers_that_cannot_import_are_told(
    cluster: Cluster, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    exec("def perform(*arguments): pass", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)

    with pytest.raises(SweepError, match=r"workers cannot import .*'only_here'.*; install") as told:
        list(RayEngine(_perform=module.perform).run([task(job("knn"))], place))
    assert "\n" not in str(told.value)


@pytest.fixture
def unconnected(cluster: Cluster) -> Iterator[None]:
    """Leave the cluster for the duration of a test."""
    ray.shutdown()
    yield
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")


def test_an_address_is_joined_and_left_in_silence(
    cluster: Cluster, unconnected: None, place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    def die(task: Task, place: Place, worker: str, tell: Any) -> None:
        tell(Started(worker, task.jobs[0]))
        os._exit(3)

    handler = signal.getsignal(signal.SIGTERM)

    events = list(RayEngine(address=cluster.address, _perform=die).run([task(job("knn"))], place))

    assert endings(events) == [("knn toy 28 pixels", "failed")]
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capfd.readouterr() == ("", "")


def test_another_version_of_ray_is_told(
    cluster: Cluster, unconnected: None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RayEngine(address=cluster.address)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "2.0.0")
        with pytest.raises(SweepError, match="cannot be used: ") as told:
            list(engine.run([task(job("knn"))], place))
    assert "\n" not in str(told.value)


# In a process of its own: one that has started a cluster cannot go back to another one.
ALONE = """
import sys
import ray
from medplus.sweep.engines.ray import RayEngine
from medplus.sweep.events import Ended
from medplus.spec import ExtractSpec
from medplus.sweep.job import Job, Place, Task

def finish(task, place, worker, tell):
    for job in task.jobs:
        tell(Ended(worker, job, "finished"))

task = Task((Job("knn", ExtractSpec("toy", 28, "pixels", "none"), {}, 1),), None, 1.0)
place = Place("", "", sys.argv[1], "cpu")
print([event.outcome for event in RayEngine(_perform=finish).run([task], place)])
print(ray.is_initialized())
"""


def test_without_an_address_a_cluster_of_its_own_is_started_and_shut_down(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "['finished']\nFalse\n"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9 \\(connection refused\\)"),
        ("head", "'head' is not HOST:PORT"),
        ("ray://head:10001", "is one for clients"),
        ("nowhere.invalid:6379", "no Ray cluster answers at nowhere.invalid:6379"),
    ],
)
def test_an_address_that_does_not_answer_is_told_at_once(address: str, says: str) -> None:
    start = time.monotonic()

    with pytest.raises(SweepError, match=says):
        check_address(address)

    assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_service_is_not_taken_for_ray(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:

        def serve() -> None:
            link, _ = service.accept()
            link.sendall(answer)
            time.sleep(1)
            link.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{service.getsockname()[1]}"
        says = "is no Ray cluster" if answer else "no Ray cluster answers .* \\(timed out"
        with pytest.raises(SweepError, match=says):
            check_address(address, timeout_s=0.5)


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(SweepError, match="pip install 'medplus\\[ray\\]'"):
        RayEngine()
