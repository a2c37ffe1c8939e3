from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.costs import pareto

pytestmark = pytest.mark.filterwarnings("error")

COLUMNS = ["protocol", "backbone", "size", "acc", "device_seconds", "n_datasets", "front"]


def front_of(make_cells, points):
    """Return the names on the front of {name: (cost, ACC)}."""
    acc = {("x", "knn", name, 28): score for name, (_, score) in points.items()}
    cost = [seconds for seconds, _ in points.values()]
    table = pareto(make_cells(acc, device_seconds=cost))
    return set(table.loc[table["front"], "backbone"])


def by_hand(cells):
    """Return {setting: (acc, seconds, n_datasets, front)} of a plain loop."""
    rows = [r for r in cells.to_dict("records") if r["device_seconds"] == r["device_seconds"]]
    rows = [r for r in rows if r["acc_mean"] == r["acc_mean"]]
    of = {}
    for r in rows:
        of.setdefault((r["protocol"], r["backbone"], r["size"]), {})[r["dataset"]] = r
    shared = set.intersection(*(set(datasets) for datasets in of.values())) if of else set()
    if not shared:
        return {}
    means = {
        setting: [
            round(math.fsum(datasets[d][name] for d in shared) / len(shared), 8)
            for name in ("acc_mean", "device_seconds")
        ]
        for setting, datasets in of.items()
    }
    return {
        setting: (acc, cost, len(shared), not any(
            a >= acc and c <= cost and (a > acc or c < cost) for a, c in means.values()
        ))
        for setting, (acc, cost) in means.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({"a": (1, 50.0), "b": (2, 70.0), "c": (3, 60.0), "d": (4, 90.0)}, "abd"),
        ({"a": (1, 50.0), "b": (1, 60.0), "c": (2, 60.0)}, "b"),
        ({"a": (1, 0.3), "b": (1, 0.1 + 0.2), "c": (2, 0.3)}, "ab"),  # twins but for rounding
        ({"a": (1, 50.0), "b": (math.nan, 60.0)}, "a"),  # not measured
    ],
)
def test_front_holds_what_nothing_beats_in_cost_or_accuracy(make_cells, points, front):
    assert front_of(make_cells, points) == set(front)


def test_means_are_over_the_datasets_that_all_share(make_cells):
    acc = {("x", "knn", "a", 28): 50.0, ("x", "probe", "a", 28): 60.0, ("y", "knn", "a", 28): 99.0}
    table = pareto(make_cells(acc, device_seconds=[1.0, 2.0, 50.0]))
    assert list(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [
        ["probe", "a", 28, 60.0, 2.0, 1, True],
        ["knn", "a", 28, 50.0, 1.0, 1, True],
    ]


def test_settings_that_share_no_dataset_are_not_compared(make_cells):
    acc = {("x", "knn", "a", 28): 50.0, ("y", "probe", "a", 28): 60.0}
    table = pareto(make_cells(acc, device_seconds=[1.0, 2.0]))
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_nothing_measured_gives_an_empty_table(baseline):
    for cells in (baseline, baseline.assign(device_seconds=math.nan), baseline.iloc[:0]):
        table = pareto(cells)
        assert table.empty
        assert list(table.columns) == COLUMNS


@settings(max_examples=15)
@given(data=st.data())
def test_any_grid_equals_a_plain_loop(data, grids):
    cells = data.draw(grids)
    levels = data.draw(st.sampled_from([1, 3, 100]))
    cost = [float((7 * i) % levels) if i % 11 else math.nan for i in range(len(cells))]
    cells = cells.assign(device_seconds=cost)
    table, expected = pareto(cells), by_hand(cells)
    found = {tuple(row[:3]): row[3:] for row in table.itertuples(index=False, name=None)}
    assert set(found) == set(expected)
    for setting, (acc, seconds, n_datasets, front) in expected.items():
        assert found[setting][:3] == pytest.approx((acc, seconds, n_datasets), abs=1e-6)
        assert found[setting][3] == front
    assert pareto(cells.sample(frac=1, random_state=8)).equals(table)
