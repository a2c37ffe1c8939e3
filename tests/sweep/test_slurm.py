"""The SLURM engine without SLURM: through submitit's local executor, and stand-ins for commands."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.errors import SweepError, UsageError
from medplus.spec import ExtractSpec
from medplus.sweep.conduct import Sweep
from medplus.sweep.desk import Desk
from medplus.sweep.engines.slurm import SlurmEngine, SlurmSettings, read_extras
from medplus.sweep.engines.slurm_array import Pace
from medplus.sweep.engines.slurm_bundles import make_bundles, seconds_of
from medplus.sweep.engines.slurm_cluster import GONE, SlurmCluster, read_states
from medplus.sweep.engines.slurm_worker import Element, Performance, from_lines, to_line
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.gridfile import read_grid
from medplus.sweep.job import Job, Place, Task

submitit = pytest.importorskip("submitit")


def job(kind: Any = "knn", dataset: str = "toy", **options: Any) -> Job:
    return Job(kind, ExtractSpec(dataset, 28, "pixels", "none"), options, 1)


def task(seconds: float = 1.0, dataset: str = "toy", number: int = 0) -> Task:
    return Task((job("finetune", dataset, seed=number),), None, seconds)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path), str(tmp_path / "store"), str(tmp_path / "runs"), "cpu")
    Desk(Path(place.runs)).prepare()
    return place


class TestBundles:
    tasks = st.lists(st.tuples(st.floats(0, 1e5), st.sampled_from("abcd")), min_size=1).map(
        lambda cells: [task(seconds, group, i) for i, (seconds, group) in enumerate(cells)]
    )

    @given(tasks, st.integers(1, 12))
    def test_every_task_is_in_exactly_one_bundle(self, tasks: list[Task], most: int) -> None:
        bundles = make_bundles(tasks, most)
        assert len(bundles) <= most
        assert all(bundles)
        together = [task for bundle in bundles for task in bundle]
        assert sorted(t.jobs[0].id for t in together) == sorted(t.jobs[0].id for t in tasks)

    @given(tasks, st.integers(1, 12))
    def test_longest_bundle_is_no_longer_than_that_of_the_largest_first_rule(
        self, tasks: list[Task], most: int
    ) -> None:
        loads = [0.0] * most
        for seconds in sorted((task.seconds for task in tasks), reverse=True):
            loads[loads.index(min(loads))] += seconds
        longest = max(map(seconds_of, make_bundles(tasks, most)))
        assert longest <= max(loads) * (1 + 1e-12)

    def test_few_tasks_have_an_element_each_the_largest_first(self) -> None:
        tasks = [task(seconds) for seconds in (1, 3, 2)]
        assert [seconds_of(bundle) for bundle in make_bundles(tasks, 1000)] == [3, 2, 1]

    def test_tasks_of_the_same_images_go_together_where_it_costs_nothing(self) -> None:
        tasks = [task(1, dataset, i) for i in range(3) for dataset in "abcd"]
        for bundle in make_bundles(tasks, 4):
            assert len({task.group for task in bundle}) == 1


class TestEvents:
    event = st.one_of(
        st.builds(Started, st.text(), st.just(job())),
        st.builds(Doing, st.text(), st.text()),
        st.builds(Ended, st.text(), st.just(job()), st.just("held"), st.floats(0, 9), st.text()),
        st.builds(Element, st.text(), st.text(), st.integers(0), st.just("saved")),
    )

    @given(st.lists(event))
    def test_events_survive_their_way_through_a_file(self, events: list[Event]) -> None:
        text = b"".join(map(to_line, events))
        assert list(from_lines(text, {job().id: job()})) == events

    def test_a_damaged_line_is_passed_over(self) -> None:
        whole = to_line(Doing("w", "1/2"))
        assert list(from_lines(whole[:9] + b"\n[]\n" + whole, {})) == [Doing("w", "1/2")]


def stand_in(folder: Path, name: str, script: str) -> None:
    """Put a command of this name before all others."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes stand-ins for SLURM's commands."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(**scripts: str) -> None:
        for name, script in scripts.items():
            stand_in(folder, name, script)

    return make


class TestCluster:
    @pytest.fixture
    def cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
        from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

        monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher())
        return SlurmCluster([SlurmJob(tmp_path, f"7_{i}") for i in range(2)])

    def test_states_are_those_of_squeue(
        self, cluster: SlurmCluster, commands: Callable[..., None]
    ) -> None:
        commands(squeue="printf '7_0|RUNNING\\n7_1|PENDING\\n'", sacct="exit 1")
        assert cluster.states() == {"7_0": "RUNNING", "7_1": "PENDING"}

    def test_what_squeue_has_forgotten_is_asked_of_sacct(
        self, cluster: SlurmCluster, commands: Callable[..., None]
    ) -> None:
        commands(
            squeue="printf '7_1|RUNNING\\n'",
            sacct="printf 'JobID|State|NodeList\\n7_0|CANCELLED by 5|n\\n7_1|PENDING|n\\n'",
        )
        assert cluster.states() == {"7_0": "CANCELLED", "7_1": "RUNNING"}

    def test_without_sacct_what_squeue_has_forgotten_is_gone(
        self, cluster: SlurmCluster, commands: Callable[..., None]
    ) -> None:
        commands(
            squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
            sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1",
        )
        assert cluster.states() == {"7_0": GONE, "7_1": GONE}

    def test_a_controller_that_does_not_answer_tells_nothing(
        self, cluster: SlurmCluster, commands: Callable[..., None]
    ) -> None:
        commands(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
        assert cluster.states() == {}

    def test_lines_of_squeue(self) -> None:
        assert read_states("12_3|RUNNING\n\n12|NODE_FAIL+\n") == {
            "12_3": "RUNNING",
            "12": "NODE_FAIL",
        }


class TestSubmission:
    def test_settings_reach_sbatch(
        self, place: Place, commands: Callable[..., None], tmp_path: Path
    ) -> None:
        script = tmp_path / "script"
        commands(srun="", sbatch=f'cat "$1" > {script}; echo "Submitted batch job 12"')
        settings = SlurmSettings(
            partition="gpu", minutes=30, gres="gpu:1", cpus=4, memory_gb=8, account="me",
            extras={"qos": "long"}, requeues=1, notice_s=45,
        )  # fmt: skip
        engine = SlurmEngine(3, settings, detach=True)

        assert list(engine.run([task(number=i) for i in range(5)], place)) == []
        assert engine.array == "12"
        lines = script.read_text().splitlines()
        for option in (
            "partition=gpu", "time=30", "gres=gpu:1", "cpus-per-task=4", "mem=8GB", "account=me",
            "qos=long", "requeue", "signal=USR2@45", "array=0-4%3",
        ):  # fmt: skip
            assert f"#SBATCH --{option}" in lines
        assert any("srun" in line and "--cpus-per-task=4" in line for line in lines)

    def test_refusal_is_told_in_the_words_of_sbatch(
        self, place: Place, commands: Callable[..., None]
    ) -> None:
        commands(srun="", sbatch="echo 'sbatch: error: invalid partition: x' >&2; exit 1")
        with pytest.raises(SweepError, match=r"^SLURM refused the array: invalid partition: x$"):
            list(SlurmEngine().run([task()], place))

    def test_no_sbatch(self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SweepError, match="no sbatch on this machine; start the sweep on"):
            list(SlurmEngine().run([task()], place))

    def test_no_submitit(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "submitit", None)
        with pytest.raises(SweepError, match=r"pip install 'medplus\[slurm\]'"):
            list(SlurmEngine().run([task()], place))

    def test_a_time_limit_shorter_than_its_notice_is_refused(self) -> None:
        with pytest.raises(UsageError, match="minutes = 1: the time limit must be longer"):
            SlurmSettings(minutes=1, notice_s=60)

    def test_extras(self) -> None:
        assert read_extras(["qos=long", "--constraint=a=b"]) == {"qos": "long", "constraint": "a=b"}
        with pytest.raises(UsageError, match="'qos': an option for sbatch is written as KEY=VALUE"):
            read_extras(["qos"])


HEADS = Task((job("extract"), job("knn"), job("probe")), None, 3.0)
TRAINING = task(1.0, number=1)


class Play:
    """An array of one element that has told what is given, and is in the states given."""

    def __init__(self, told: Sequence[Event | Element], states: Sequence[str]) -> None:
        self.done: list[str] = []
        self.leaves: tuple[str, ...] = ("7_0_result.pkl",)
        self._told = told
        self._states = iter(states)

    def submit(self, performances: Sequence[Performance], folder: Path) -> list[Any]:
        folder.mkdir(parents=True)
        [performance] = performances
        performance.events.write_bytes(b"".join(map(to_line, self._told)))
        for name in ("7_submission.sh", "7_submitted.pkl", "7_0_log.err", *self.leaves):
            (folder / name).touch()
        paths = SimpleNamespace(
            stderr=folder / "7_0_log.err", result_pickle=folder / "7_0_result.pkl"
        )
        return [SimpleNamespace(job_id="7", paths=paths)]

    def states(self) -> dict[str, str]:
        return {"7": next(self._states)}

    def interrupt(self) -> None:
        self.done.append("interrupted")

    def cancel(self) -> None:
        self.done.append("cancelled")


@pytest.fixture
def played(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], Iterator[Event]]:
    """Return a function that runs two tasks in one element of a played array."""
    pace = Pace(read_s=0.0, ask_s=(0.0, 0.0), patience_s=0.05, last_words_s=0.0)

    def run(play: Play) -> Iterator[Event]:
        engine = SlurmEngine(
            settings=SlurmSettings(array_size=1), pace=pace, _cluster=lambda submissions: play
        )
        monkeypatch.setattr(engine, "_submit", play.submit)
        return engine.run([HEADS, TRAINING], place)

    return run


W = "7 on node"
BEGUN = Element(W, "node", 123, "begun")


def outcomes(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(e.job.kind, e.outcome) for e in events if isinstance(e, Ended)]


class TestFollowing:
    def test_job_under_way_of_a_dead_element_has_failed_and_the_rest_is_left(
        self, played: Any, place: Place
    ) -> None:
        extraction, knn = HEADS.jobs[:2]
        told = [BEGUN, Started(W, extraction), Ended(W, extraction, "finished"), Started(W, knn)]
        events = list(played(Play(told, ["RUNNING", "OUT_OF_MEMORY", "OUT_OF_MEMORY"])))

        assert outcomes(events) == [
            ("extract", "finished"),
            ("knn", "failed"),
            ("probe", "held"),
            ("finetune", "held"),
        ]
        failure = Desk(Path(place.runs)).failures()[knn.id]
        assert (failure.kind, failure.pid) == ("killed", 123)
        assert "more memory than it was given (OUT_OF_MEMORY)" in failure.message

    def test_heads_of_an_extraction_that_has_died_are_blocked(self, played: Any) -> None:
        events = list(played(Play([BEGUN, Started(W, HEADS.jobs[0])], ["TIMEOUT"] * 2)))
        assert outcomes(events) == [
            ("extract", "failed"),
            ("knn", "blocked"),
            ("probe", "blocked"),
            ("finetune", "held"),
        ]

    def test_element_that_has_saved_leaves_all_without_failure(
        self, played: Any, place: Place
    ) -> None:
        told = [BEGUN, Started(W, HEADS.jobs[0]), Element(W, "node", 123, "saved")]
        events = list(played(Play(told, ["COMPLETED"] * 2)))
        assert {outcome for _, outcome in outcomes(events)} == {"held"}
        assert Desk(Path(place.runs)).failures() == {}

    def test_requeued_element_ends_each_job_once(self, played: Any) -> None:
        jobs = [*HEADS.jobs, *TRAINING.jobs]
        ends = [event for job in jobs for event in (Started(W, job), Ended(W, job, "finished"))]
        told = [
            BEGUN,
            *ends[:3],
            Element(W, "node", 1, "saved"),
            BEGUN,
            *ends,
            Element(W, "node", 2, "over"),
        ]
        events = list(played(Play(told, [])))
        assert outcomes(events) == [(job.kind, "finished") for job in jobs]

    def test_element_between_two_lives_is_waited_for(self, played: Any) -> None:
        states = ["COMPLETED", "PENDING", "COMPLETING", "NODE_FAIL", "RUNNING", GONE, GONE]
        play = Play([BEGUN, Started(W, HEADS.jobs[0])], states)
        assert next(outcome for _, outcome in outcomes(list(played(play)))) == "failed"
        assert next(play._states, None) is None

    @pytest.mark.parametrize("state", ["FAILED", "BOOT_FAIL", "TIMEOUT", GONE])
    def test_element_that_could_not_start_ends_the_sweep(self, played: Any, state: str) -> None:
        run = played(Play([], [state] * 2))
        with pytest.raises(SweepError, match="element 7 could not start: "):
            for event in run:
                assert isinstance(event, Ended)
                assert event.outcome == "held"

    def test_node_that_failed_before_the_start_is_no_trouble(self, played: Any) -> None:
        assert len(outcomes(list(played(Play([], ["NODE_FAIL"] * 2))))) == 4

    def test_cancelled_element_ends_the_sweep(self, played: Any) -> None:
        with pytest.raises(SweepError, match="element 7 was cancelled; sweep again"):
            list(played(Play([], ["CANCELLED"] * 2)))

    def test_closing_the_iterator_interrupts_and_then_cancels(self, played: Any) -> None:
        play = Play([BEGUN, Started(W, HEADS.jobs[0])], ["RUNNING"] * 9)
        run = played(play)
        next(run)
        run.close()
        assert play.done == ["interrupted", "cancelled"]


class TestFilesOfAnArray:
    OVER = Element(W, "node", 123, "over")

    def told(self, *outcomes: Any) -> list[Event | Element]:
        ends = [Ended(W, HEADS.jobs[i], outcome) for i, outcome in enumerate(outcomes)]
        return [BEGUN, *ends, self.OVER]

    def files(self, place: Place) -> set[str]:
        root = Desk(Path(place.runs)).folder / "slurm"
        return {path.name for path in root.rglob("*") if path.is_file()}

    def test_are_gone_once_all_has_ended_well(self, played: Any, place: Place) -> None:
        list(played(Play(self.told("finished", "skipped", "held"), [])))
        assert list((Desk(Path(place.runs)).folder / "slurm").iterdir()) == []

    def test_stay_where_a_job_has_failed(self, played: Any, place: Place) -> None:
        list(played(Play(self.told("finished", "failed", "finished"), [])))
        assert {"0.events", "7_0_log.err", "7_submission.sh"} < self.files(place)

    def test_stay_where_an_element_has_died(self, played: Any, place: Place) -> None:
        list(played(Play([BEGUN, Started(W, HEADS.jobs[0])], ["FAILED"] * 2)))
        assert {"0.events", "7_0_log.err"} < self.files(place)

    def test_stay_where_the_process_has_not_ended(self, played: Any, place: Place) -> None:
        play = Play(self.told("finished"), [])
        play.leaves = ()
        list(played(play))
        assert {"0.events", "7_0_log.err"} < self.files(place)


class TestPerformance:
    @pytest.fixture(autouse=True)
    def _as_an_element(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
        monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        before = [signal.getsignal(number) for number in numbers]
        yield
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    @pytest.fixture
    def performance(self, place: Place) -> Performance:
        return Performance([task(number=1), task(number=2)], place, f"{place.runs}/events")

    @pytest.fixture
    def work(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
        """Return a function that replaces the work by what is given; it lists what was begun."""

        def replace(act: Callable[[], object] = lambda: None) -> list[int]:
            begun: list[int] = []

            def perform(task: Task, place: Place, worker: str, tell: Any) -> None:
                [job] = task.jobs
                begun.append(job.options["seed"])
                tell(Started(worker, job))
                act()
                tell(Ended(worker, job, "finished"))

            monkeypatch.setattr("medplus.sweep.work.perform", perform)
            return begun

        return replace

    def states(self, performance: Performance) -> list[str]:
        events = from_lines(performance.events.read_bytes(), {})
        return [event.state for event in events if isinstance(event, Element)]

    def test_second_run_begins_with_what_is_left(
        self, performance: Performance, work: Callable[..., list[int]]
    ) -> None:
        begun = work()
        performance()
        assert begun == [1, 2]
        performance()
        assert begun == [1, 2]
        assert self.states(performance) == ["begun", "over", "begun", "over"]

    def test_notice_of_the_end_saves_and_requeues(
        self, performance: Performance, work: Callable[..., list[int]]
    ) -> None:
        requeued: list[list[str]] = []
        signal.signal(signal.SIGUSR2, lambda *_: requeued.append(self.states(performance)))
        begun = work(lambda: signal.raise_signal(signal.SIGUSR2))
        performance()
        assert begun == [1]
        assert requeued == [["begun", "saved"]]
        assert performance.checkpoint().function is performance

    def test_sigterm_saves_and_does_not_requeue(
        self, performance: Performance, work: Callable[..., list[int]]
    ) -> None:
        requeued: list[int] = []
        signal.signal(signal.SIGUSR2, lambda number, _: requeued.append(number))
        work(lambda: signal.raise_signal(signal.SIGTERM))
        performance()
        assert requeued == []
        assert self.states(performance) == ["begun", "saved"]

    def test_job_that_may_not_be_requeued_has_failed(
        self, performance: Performance, work: Callable[..., list[int]], place: Place
    ) -> None:
        def refuse(*_: object) -> None:
            raise submitit.core.utils.UncompletedJobError("timed-out too many times")

        signal.signal(signal.SIGUSR2, refuse)
        work(lambda: signal.raise_signal(signal.SIGUSR2))
        performance()
        [failure] = Desk(Path(place.runs)).failures().values()
        assert "time limit was over once more" in failure.message


class LocalCluster:
    """submitit's local executor, which knows no SLURM: one process that minds each element."""

    def __init__(self, submissions: Sequence[Any]) -> None:
        self._submissions = submissions

    def states(self) -> dict[str, str]:
        words = {"FINISHED": "FAILED", "INTERRUPTED": "CANCELLED"}
        return {job.job_id: words.get(job.state, job.state) for job in self._submissions}

    def interrupt(self) -> None:
        raise AssertionError("nothing is interrupted here")

    def cancel(self) -> None:
        for job in self._submissions:
            job.cancel()


@pytest.fixture
def local_engine(monkeypatch: pytest.MonkeyPatch) -> SlurmEngine:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    settings = SlurmSettings(array_size=2, minutes=5)
    pace = Pace(read_s=0.1, ask_s=(0.5, 0.5))
    return SlurmEngine(settings=settings, pace=pace, _kind="local", _cluster=LocalCluster)


@pytest.fixture
def sweep(write_npz: Callable[..., Path], tmp_path: Path) -> Callable[[str], Sweep]:
    """Return a function that makes a sweep of one small dataset."""

    def make(grid: str) -> Sweep:
        path = tmp_path / "grid.yaml"
        path.write_text(f"datasets: {write_npz()}\nweights: none\nseeds: 1\n{grid}")
        place = Place(str(tmp_path), str(tmp_path / "store"), str(tmp_path / "runs"), "cpu")
        return Sweep(read_grid(path), place)

    return make


def test_grid_through_submitit(sweep: Callable[[str], Sweep], local_engine: SlurmEngine) -> None:
    events: list[Event] = []
    grid = "backbones: pixels\nprotocols: {knn: {k: [1, 3]}, probe: {epochs: 2}}"
    swept = sweep(grid)
    plan = swept.run(local_engine, events.append)

    assert (plan.count("finished"), plan.count("left")) == (3, 0)
    assert outcomes(events) == [(kind, "finished") for kind in ("extract", "knn", "probe")]
    assert list((swept.desk.folder / "slurm").iterdir()) == []
