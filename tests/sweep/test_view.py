"""What is shown of a sweep: counts, the time that is left, lines, and a live view."""

from __future__ import annotations

import re
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from medplus.spec import ExtractSpec
from medplus.sweep import view as view_module
from medplus.sweep.estimate import Estimator
from medplus.sweep.events import Doing, Ended, Started
from medplus.sweep.job import Job, Task
from medplus.sweep.plan import Plan, PlannedJob
from medplus.sweep.view import Standing, View, duration


def job(dataset: str = "breastmnist", seed: int = 1) -> Job:
    return Job("finetune", ExtractSpec(dataset, 28, "resnet18", "none"), {"seed": seed}, 1)


def plan(*jobs: Job, seconds: float = 10.0, finished: int = 0) -> Plan:
    """Return a plan in which each job is left, and some others are finished."""
    left = [PlannedJob(one, "left", 0, seconds) for one in jobs]
    done = [PlannedJob(job(seed=1000 + i), "finished", 1) for i in range(finished)]
    tasks = tuple(Task((one,), None, seconds) for one in jobs)
    return Plan((*left, *done), tasks, (), (), cast(Estimator, None))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The view's time, which passes only as a test says."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(view_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class TestStanding:
    def test_events_are_counted(self):
        standing = Standing()
        jobs = [job(seed=i) for i in range(5)]
        standing.begin(plan(*jobs, finished=3))
        outcomes = ("finished", "finished", "failed", "blocked", "held")
        for one, outcome in zip(jobs, outcomes, strict=True):
            standing.hear(Started("a", one))
            standing.hear(Ended("a", one, outcome))  # type: ignore[arg-type]
        assert standing.total == 5
        assert (standing.finished, standing.failed, standing.blocked) == (2, 1, 1)
        assert standing.busy == {}

    def test_what_another_sweep_has_finished_is_finished(self):
        standing = Standing()
        standing.begin(plan(job()))
        standing.hear(Ended("a", job(), "skipped"))
        assert standing.finished == 1

    def test_workers_are_shown_with_what_they_do(self, clock):
        standing = Standing()
        standing.begin(plan(job(seed=1), job(seed=2)))
        standing.hear(Started("a", job(seed=1)))
        clock.now += 5
        standing.hear(Started("b", job(seed=2)))
        standing.hear(Doing("a", "epoch 3/5"))
        standing.hear(Doing("nobody", "nothing"))
        assert standing.busy == {
            "a": (job(seed=1), "epoch 3/5", 1000.0), "b": (job(seed=2), "", 1005.0)
        }  # fmt: skip

    def test_remaining_time_is_unknown_until_something_has_ended(self, clock):
        standing = Standing()
        standing.begin(plan(job()))
        clock.now += 60
        standing.hear(Started("a", job()))
        assert standing.remaining is None

    @given(
        weights=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=8),
        data=st.data(),
        passed=st.floats(1, 1e5),
    )
    def test_remaining_time_is_in_proportion_to_the_work_left(self, weights, data, passed):
        ended = data.draw(st.integers(1, len(weights)))
        jobs = [job(seed=i) for i in range(len(weights))]
        left = [PlannedJob(one, "left", 0, w) for one, w in zip(jobs, weights, strict=True)]
        whole = Plan(tuple(left), (Task(tuple(jobs), None, 1.0),), (), (), cast(Estimator, None))
        with pytest.MonkeyPatch.context() as patch:
            now = SimpleNamespace(monotonic=lambda: 0.0)
            patch.setattr(view_module, "time", now)
            standing = Standing()
            standing.begin(whole)
            now.monotonic = lambda: passed
            for one in jobs[:ended]:
                standing.hear(Ended("a", one, "finished"))
            expected = passed * sum(weights[ended:]) / sum(weights[:ended])
            assert standing.elapsed == passed
            assert standing.remaining == pytest.approx(expected, abs=1e-6 * passed)

    def test_held_job_is_still_to_be_waited_for(self, clock):
        standing = Standing()
        standing.begin(plan(job(seed=1), job(seed=2)))
        clock.now += 30
        standing.hear(Ended("a", job(seed=1), "finished"))
        standing.hear(Ended("a", job(seed=2), "held"))
        assert standing.remaining == pytest.approx(30)

    def test_blocked_jobs_do_not_make_the_rest_seem_fast(self, clock):
        standing = Standing()
        standing.begin(plan(*(job(seed=i) for i in range(4))))
        clock.now += 30
        standing.hear(Ended("a", job(seed=0), "finished"))
        standing.hear(Ended("a", job(seed=1), "blocked"))
        standing.hear(Ended("a", job(seed=2), "blocked"))
        assert standing.remaining == pytest.approx(30)


@given(seconds=st.floats(0, 1e8))
def test_duration_names_its_unit_and_is_close(seconds):
    value, unit = duration(seconds).split()
    in_seconds = {"s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    assert float(value) * in_seconds == pytest.approx(seconds, rel=0.26, abs=0.051)
    assert len(duration(seconds)) <= 12


class Screen:
    """A console of 80 columns that is or is not a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.file = StringIO()
        self.console = Console(
            file=self.file, force_terminal=terminal, width=80, height=25,
            _environ={"TERM": "xterm"}, color_system=None,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """What has been printed, without the commands to a terminal."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def show(terminal: bool, whole: Plan, *events: Any) -> list[str]:
    screen = Screen(terminal)
    with View(screen.console) as view:
        view.begin(whole)
        for event in events:
            view.hear(event)
    return screen.lines


def test_lines_tell_every_end_where_there_is_no_terminal():
    jobs = [job(seed=i) for i in range(5)]
    lines = show(
        False,
        plan(*jobs, finished=3),
        Started("a", jobs[0]),
        Doing("a", "epoch 1/2"),
        Ended("a", jobs[0], "finished", 12.0),
        Ended("a", jobs[1], "failed", 1.0, "no memory"),
        Ended("a", jobs[2], "blocked"),
        Ended("a", jobs[3], "held", 0.0, "somebody has it"),
        Ended("a", jobs[4], "skipped"),
    )
    assert lines[0] == "5 jobs to do, 3 done or failed before"
    assert lines[1].startswith("[1/5] finished finetune breastmnist 28 resnet18 seed0 · 12 s")
    assert lines[2] == "[2/5] failed finetune breastmnist 28 resnet18 seed1: no memory"
    assert lines[3] == "[3/5] blocked finetune breastmnist 28 resnet18 seed2"
    assert lines[4].startswith("[4/5] skipped finetune breastmnist 28 resnet18 seed4")
    assert len(lines) == 5


def test_lines_are_not_broken_however_long():
    long = job("/data/" + "x" * 120 + ".npz")
    lines = show(False, plan(long), Ended("a", long, "failed", 1.0, "y" * 100))
    assert len(lines) == 2
    assert lines[1].endswith("y" * 100)


def test_nothing_left_shows_nothing():
    assert show(True, plan(finished=3)) == []
    assert show(False, plan(finished=3)) == []


def test_no_console_shows_nothing_and_does_not_fail(capsys):
    with View(None) as view:
        view.begin(plan(job()))
        view.hear(Ended("a", job(), "failed", 1.0, "no"))
        view.waiting(["somebody"])
    assert capsys.readouterr() == ("", "")


def test_waiting_is_told_once():
    screen = Screen(False)
    view = View(screen.console)
    for _ in range(3):
        view.waiting(["process 1 on a", "process 2 on b"])
    view.waiting(["process 2 on b"])
    assert screen.lines == [
        "waiting for what process 1 on a and process 2 on b will finish",
        "waiting for what process 2 on b will finish",
    ]


def test_live_view_shows_workers_and_counts_in_80_columns():
    long = job("/data/" + "an-uncommonly-long-name-of-a-dataset-" * 3 + ".npz", seed=5)
    jobs = [long, *(job(seed=i) for i in range(5))]
    lines = show(
        True, plan(*jobs),
        Started("worker 1", jobs[1]), Ended("worker 1", jobs[1], "finished", 3.0),
        Started("worker 1", long), Doing("worker 1", "epoch 3/50, 12%"),
        Started("worker 2", jobs[2]), Doing("worker 2", "128/4096 images"),
        Ended("worker 3", jobs[3], "failed", 1.0, "no memory"),
    )  # fmt: skip
    assert max(cell_len(line) for line in lines) <= 80
    text = " ".join(lines)
    assert "worker 1" in text
    assert "worker 2  finetune" in text
    assert "1 of 6 jobs finished, 1 failed, 2 running" in text
    assert "failed finetune breastmnist 28 resnet18 seed2: no memory" in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        "in [1, 2]", "see [bold] and [red]x[/red]", "the file [/data/x.npz] is gone",
        "failed :smile: there",
    ],
)  # fmt: skip
def test_brackets_and_colons_in_messages_are_printed_as_they_are(terminal, said):
    lines = show(terminal, plan(job(seed=7)), Ended("a", job(seed=7), "failed", 1.0, said))
    assert any(line.endswith(f"seed7: {said}") for line in lines)


def test_brackets_in_names_are_printed_as_they_are():
    one = job("/data/scan[bold].npz")
    assert "scan[bold]" in show(False, plan(one), Ended("a", one, "finished"))[-1]


def test_brackets_in_the_live_view_are_printed_as_they_are():
    one = job("/data/scan[bold].npz")
    text = " ".join(show(True, plan(one), Started("a", one), Doing("a", "[red]3[/red]")))
    assert "scan[bold]" in text
    assert "[red]3[/red]" in text


def test_terminal_is_left_as_it_was_after_an_error():
    screen = Screen(True)
    with pytest.raises(KeyboardInterrupt), View(screen.console) as view:
        view.begin(plan(job()))
        raise KeyboardInterrupt
    printed = screen.file.getvalue()
    assert printed.rindex("\x1b[?25h") > printed.rindex("\x1b[?25l")  # the cursor is shown again
