"""What a grid has cost: every job once, shared work by its shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.runs.record import RunRecord
from medplus.sweep.estimate import Estimator
from medplus.sweep.plan import Plan
from medplus.sweep.summary import Totals, total_cost
from tests.records import make_record


def record(seconds: float, **cost: Any) -> RunRecord:
    return make_record(seconds=seconds, cost=cost)


@pytest.fixture(scope="module")
def store(store_info) -> Callable[..., Any]:
    return lambda **cost: store_info((3, 2, 2), 4).model_copy(update={"cost": cost})


def plan(records: Any = (), stores: Any = ()) -> Plan:
    return Plan((), (), tuple(records), tuple(stores), cast(Estimator, None))


def test_nothing_costs_nothing():
    assert total_cost(plan()) == Totals(0, 0, 0, 0, None, 0, 0, ())


def test_stores_and_runs_are_added(store):
    totals = total_cost(
        plan(
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
    assert totals == Totals(
        stores=1, runs=2, seconds=7.0, device_seconds=12.5, energy_joules=7.0,
        peak_memory_bytes=70, peak_device_memory_bytes=90, devices=("CPU", "GPU"),
    )  # fmt: skip


def test_energy_that_nobody_measured_is_not_zero(store):
    assert total_cost(plan([record(1.0)], [store(seconds=1.0)])).energy_joules is None
    assert total_cost(plan([record(1.0, energy_joules=0.0)])).energy_joules == 0.0


def test_old_store_without_costs_counts_as_a_store(store):
    totals = total_cost(plan(stores=[store()]))
    assert (totals.stores, totals.seconds, totals.devices) == (1, 0.0, ())


def test_record_without_device_seconds_held_one_device_all_the_time():
    assert total_cost(plan([record(3.0)])).device_seconds == 3.0


def test_peaks_are_not_divided():
    assert total_cost(plan([record(3.0, shared_by=3, peak_memory_bytes=9)])).peak_memory_bytes == 9


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
    totals = total_cost(plan(records))
    assert totals.runs == len(records)
    assert totals.seconds == pytest.approx(sum(s for _, s, _, _ in groups))
    assert totals.device_seconds == pytest.approx(sum(d for _, _, d, _ in groups))
    assert (totals.energy_joules or 0) == pytest.approx(sum(e for _, _, _, e in groups))


def test_part_of_what_was_computed_together_costs_its_share():
    shared = record(9.0, shared_by=3)
    assert total_cost(plan([shared, shared])).seconds == pytest.approx(6.0)


def test_totals_are_json():
    document = json.loads(json.dumps(asdict(total_cost(plan([record(1.0, device="CPU")])))))
    assert (document["runs"], document["seconds"], document["devices"]) == (1, 1.0, ["CPU"])
