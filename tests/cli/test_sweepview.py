"""What is shown of a sweep: what ends, the time that is left, and a live view."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from typing import Any, cast

import pytest
from rich.cells import cell_len
from rich.console import Console

from medplus.cli.sweepview import View
from medplus.spec import ExtractSpec
from medplus.sweep.claims import Claim
from medplus.sweep.conduct import Running
from medplus.sweep.job import Cell, Job
from medplus.sweep.plan import Plan

BEFORE = Job("knn", ExtractSpec("breastmnist", 28, "resnet18", "none"), {}, 1, 1, "finished")


def job(dataset: str = "breastmnist", seed: int = 1) -> Job:
    return Job("finetune", ExtractSpec(dataset, 28, "resnet18", "none"), {"seed": seed}, 1)


def plan(*jobs: Job, **states: str) -> Plan:
    """Return a plan in which each job is left, or has the state that is said of its place."""
    planned = [replace(one, seconds=10.0) for one in jobs]
    for place, state in states.items():
        i = int(place[1:])
        planned[i] = replace(planned[i], state=state)  # type: ignore[arg-type]
    cells = tuple(Cell((one,), None) for one in planned if one.state == "left")
    return Plan((*planned, BEFORE), cells, (), (), cast(Any, None))


def show(terminal: bool, *looks: Plan, running: Running = ()) -> list[str]:  # type: ignore[assignment]
    """Return what a console of 80 columns prints, without the commands to a terminal."""
    file = StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=80, height=25, _environ={"TERM": "xterm"},
        color_system=None,
    )  # fmt: skip
    with View(console) as view:
        for look in looks:
            view.look(look, running)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_lines_tell_every_end_once_where_there_is_no_terminal():
    jobs = [job(seed=i) for i in range(3)]
    looks = plan(*jobs), plan(*jobs, _1="finished"), plan(*jobs, _1="finished", _2="failed")
    lines = show(False, *looks, looks[-1])
    assert lines[0] == "3 jobs to do, 1 done or failed before"
    assert lines[1].startswith(
        "[1/3] finished finetune breastmnist 28 resnet18 random seed1 · about "
    )
    assert lines[2].startswith("[2/3] failed finetune breastmnist 28 resnet18 random seed2")
    assert len(lines) == 3


def test_what_a_budget_or_a_failure_leaves_out_is_told():
    whole = plan(*(job(seed=i) for i in range(3)))
    lines = show(False, replace(whole, cells=whole.cells[:1]))
    assert lines == ["1 jobs to do, 1 done or failed before, 2 out of reach"]


def test_nothing_left_shows_nothing():
    assert show(True, plan()) == show(False, plan()) == []


def test_no_console_shows_nothing_and_does_not_fail(capsys):
    with View(None) as view:
        view.look(plan(job()), [])
        view.look(plan(job(), _0="failed"), [])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["scan[bold]", "an-uncommonly-long-name-of-a-dataset-" * 4])
def test_live_view_shows_workers_and_counts_in_80_columns(name):
    jobs = [job(f"/data/{name}.npz", seed=5), *(job(seed=i) for i in range(3))]
    workers = [Claim("", "worker 1", "a", 1, doing="[red]3[/red]"), Claim("", "worker 2", "a", 2)]
    running = list(zip(jobs, workers, strict=False))
    looks = plan(*jobs), plan(*jobs, _2="finished", _3="failed")
    lines = show(True, *looks, running=running)
    assert max(cell_len(line) for line in lines) <= 80
    text = " ".join(lines)
    assert "worker 1" in text and "worker 2  finetune" in text
    assert "1 of 4 jobs finished, 1 failed, 2 running" in text
    assert "failed finetune breastmnist 28 resnet18 random seed2" in text
    assert "scan[bold]" not in name or ("scan[bold]" in text and "[red]3[/red]" in text)
