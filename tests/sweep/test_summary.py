"""A plan in a few rows."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from medplus.spec import ExtractSpec
from medplus.sweep.estimate import Estimator
from medplus.sweep.job import Job
from medplus.sweep.plan import Plan, PlannedJob
from medplus.sweep.summary import WorkRow, summarise

KINDS = ("extract", "knn", "probe", "finetune")


def planned(
    kind: Any, state: Any, n_runs: int = 0, done: int = 0, seconds: float = 0.0, nbytes: int = 0
) -> PlannedJob:
    job = Job(kind, ExtractSpec("breastmnist", 28, "pixels", "none"), {"seed": 1}, n_runs)
    return PlannedJob(job, state, done, seconds, nbytes)


def plan(*jobs: PlannedJob) -> Plan:
    return Plan(jobs, (), (), (), cast(Estimator, None))


def test_empty_plan_has_no_rows():
    assert summarise(plan()) == []


def test_rows_count_jobs_runs_and_what_is_left():
    rows = summarise(
        plan(
            planned("finetune", "left", 1, 0, 100.0, 1000),
            planned("extract", "finished"),
            planned("extract", "left", 0, 0, 10.0, 50),
            planned("extract", "failed", 0, 0, 20.0, 70),
            planned("knn", "finished", 4, 4),
            planned("knn", "left", 4, 1, 3.0, 5),
            planned("knn", "failed", 4, 2, 7.0, 9),
        )
    )
    assert rows == [
        WorkRow("extract", 3, 1, 3, 1, 1, 1, 10.0, 50),
        WorkRow("knn", 12, 7, 3, 1, 1, 1, 3.0, 5),
        WorkRow("finetune", 1, 0, 1, 0, 0, 1, 100.0, 1000),
    ]


JOBS = st.builds(
    planned,
    st.sampled_from(KINDS),
    st.sampled_from(["finished", "failed", "left"]),
    st.integers(1, 5),
    st.integers(0, 1),
    st.integers(0, 100).map(float),
    st.integers(0, 100),
)


@given(jobs=st.lists(JOBS, max_size=12))
def test_rows_add_up_to_the_plan(jobs):
    whole = plan(*jobs)
    rows = summarise(whole)
    assert [row.kind for row in rows] == [
        kind for kind in KINDS if any(job.job.kind == kind for job in jobs)
    ]
    for state in ("finished", "failed", "left"):
        assert sum(getattr(row, state) for row in rows) == whole.count(state)
    for row in rows:
        assert row.jobs == row.finished + row.failed + row.left
        assert 0 <= row.runs_finished <= row.runs
    left = [job for job in jobs if job.state == "left"]
    assert sum(row.seconds_left for row in rows) == sum(job.seconds for job in left)
    assert sum(row.bytes_left for row in rows) == sum(job.nbytes for job in left)
