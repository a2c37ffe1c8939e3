"""A plan in a few numbers: the work in rows, and every job's cost once, shared work by shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.run.record import RunRecord
from medplus.spec import ExtractSpec
from medplus.sweep.estimate import Estimator
from medplus.sweep.job import Job
from medplus.sweep.plan import Plan
from medplus.sweep.summary import summarise, total_cost
from tests.records import make_record

KINDS = ("extract", "knn", "probe", "finetune")


def planned(
    kind: Any, state: Any, n_runs: int = 0, done: int = 0, seconds: float = 0.0, nbytes: int = 0
) -> Job:
    spec = ExtractSpec("breastmnist", 28, "pixels", "none")
    return Job(kind, spec, {"seed": 1}, n_runs, done, state, seconds, nbytes)


def plan(*jobs: Job) -> Plan:
    return Plan(jobs, (), (), (), cast(Estimator, None))


def test_rows_count_jobs_runs_and_what_is_left():
    rows = summarise(
        plan(
            planned("finetune", "left", 1, 0, 100.0, 1000),
            planned("extract", "finished", 1, 1),
            planned("extract", "left", 1, 0, 10.0, 50),
            planned("extract", "failed", 1, 0, 20.0, 70),
            planned("knn", "finished", 4, 4),
            planned("knn", "left", 4, 1, 3.0, 5),
            planned("knn", "failed", 4, 2, 7.0, 9),
        )
    )
    names = (
        "kind", "runs", "runs_finished", "jobs", "finished", "failed", "left", "seconds_left",
        "bytes_left",
    )  # fmt: skip
    assert rows == [
        dict(zip(names, row, strict=True))
        for row in (
            ("extract", 3, 1, 3, 1, 1, 1, 10.0, 50),
            ("knn", 12, 7, 3, 1, 1, 1, 3.0, 5),
            ("finetune", 1, 0, 1, 0, 0, 1, 100.0, 1000),
        )
    ]


# --- costs ----------------------------------------------------------------------------------------


def record(seconds: float, **cost: Any) -> RunRecord:
    return make_record(seconds=seconds, cost={"seconds": seconds, **cost})


@pytest.fixture(scope="module")
def store(store_info) -> Callable[..., Any]:
    return lambda **cost: store_info((3, 2, 2), 4).model_copy(update={"cost": cost})


def done(records: Any = (), stores: Any = ()) -> Plan:
    return Plan((), (), tuple(records), tuple(stores), cast(Estimator, None))


def test_stores_and_runs_are_added(store):
    totals = total_cost(
        done(
            [
                record(2.0, device="CPU", device_seconds=3.0, energy_joules=5.0,
                       peak_memory_bytes=70),
                record(4.0, device="GPU", device_seconds=8.0, peak_device_memory_bytes=90,
                       peak_memory_bytes=60),
            ],
            [store(seconds=1.0, device_seconds=1.5, energy_joules=2.0, device="GPU",
                   peak_memory_bytes=50)],
        )
    )  # fmt: skip
    assert totals == {
        "stores": 1, "runs": 2, "seconds": 7.0, "device_seconds": 12.5, "energy_joules": 7.0,
        "peak_memory_bytes": 70, "peak_device_memory_bytes": 90, "devices": ["CPU", "GPU"],
    }  # fmt: skip


def test_energy_that_nobody_measured_is_not_zero(store):
    assert total_cost(done([record(1.0)], [store(seconds=1.0)]))["energy_joules"] is None
    assert total_cost(done([record(1.0, energy_joules=0.0)]))["energy_joules"] == 0.0


GROUPS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5)),
    max_size=6,
)


@given(groups=GROUPS)
def test_runs_that_were_computed_together_cost_together_what_one_computation_did(groups):
    """Oracle: the sum over computations, not over runs."""
    records = [
        record(s, shared_by=n, device_seconds=d, energy_joules=e)
        for n, s, d, e in groups
        for _ in range(n)
    ]
    totals = total_cost(done(records))
    assert totals["runs"] == len(records)
    assert totals["seconds"] == pytest.approx(sum(s for _, s, _, _ in groups))
    assert totals["device_seconds"] == pytest.approx(sum(d for _, _, d, _ in groups))
    assert (totals["energy_joules"] or 0) == pytest.approx(sum(e for _, _, _, e in groups))
