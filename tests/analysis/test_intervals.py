from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medplus.analysis.intervals import over_datasets, over_samples, over_seeds
from medplus.analysis.results.averages import with_averages
from medplus.analysis.results.cells import AVERAGE, KEYS

pytestmark = pytest.mark.filterwarnings("error")

NAN = math.nan
GROUP = ["protocol", "backbone", "size"]
VALUES = ["over", "mean", "low", "high", "n"]


def runs_of(scores):
    """Return runs from {backbone: [ACC of each seed]}."""
    rows = [
        ("x", "probe", backbone, 28, seed, acc)
        for backbone, of_seeds in scores.items()
        for seed, acc in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "seed", "acc"])


def test_three_seeds_have_students_interval():
    # sd 1, so the half width is 4.303 / sqrt(3), with 4.303 from a table of t for 2 degrees.
    row = over_seeds(runs_of({"a": [81.0, 80.0, 82.0]})).iloc[0]
    assert list(over_seeds(runs_of({"a": [81.0]})).columns) == [*KEYS, *VALUES]
    assert (row["over"], row["mean"], row["n"]) == ("seeds", 81.0, 3)
    assert row["high"] - 81 == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert 81 - row["low"] == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_one_seed_has_no_interval():
    rows = over_seeds(runs_of({"a": [81.0], "b": [80.0, NAN]}))
    assert list(rows["n"]) == [1, 1]
    assert list(rows["mean"]) == [81.0, 80.0]
    assert rows[["low", "high"]].isna().all(axis=None)


def test_no_runs_have_no_intervals():
    assert over_seeds(runs_of({})).empty
    assert over_seeds(runs_of({"a": [NAN]})).empty


@settings(max_examples=12)
@given(
    scores=st.dictionaries(
        st.sampled_from(["vgg16", "alexnet", "z", "pixels"]),
        st.lists(st.floats(0, 100), min_size=2, max_size=6),
        min_size=1,
    )
)
def test_seeds_equal_scipys_interval(scores):
    found = over_seeds(runs_of(scores)).set_index("backbone")
    assert len(found) == len(scores)
    for backbone, values in scores.items():
        row = found.loc[backbone]
        assert row["n"] == len(values)
        assert row["mean"] == pytest.approx(math.fsum(values) / len(values))
        error = stats.sem(values)
        if error > 1e-6:
            expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
            assert (row["low"], row["high"]) == pytest.approx(expected)
        else:
            assert row["high"] - row["low"] == pytest.approx(0, abs=1e-4)


def test_datasets_equal_scipys_interval(make_cells):
    scores = [50.0, 61.0, 75.0, 80.0, 84.0]
    cells = make_cells({(f"d{i}", "knn", "a", 28): acc for i, acc in enumerate(scores)})
    row = over_datasets(cells).iloc[0]
    expected = stats.t.interval(0.95, 4, 70, stats.sem(scores))
    assert (row["over"], row["mean"], row["n"]) == ("datasets", 70.0, 5)
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_no_interval_leaves_what_scores_can_be(make_cells):
    cells = make_cells({(f"d{i}", "knn", "a", 28): acc for i, acc in enumerate([60, 99.0, 100])})
    assert over_datasets(cells).iloc[0]["high"] == 100


@pytest.mark.parametrize(("n_datasets", "known"), [(1, False), (2, False), (3, True)])
def test_few_datasets_have_no_interval(make_cells, n_datasets, known):
    cells = make_cells({(f"d{i}", "knn", "a", 28): 60.0 + i for i in range(n_datasets)})
    row = over_datasets(cells).iloc[0]
    assert row["n"] == n_datasets
    assert row["mean"] == pytest.approx(60 + (n_datasets - 1) / 2)
    assert (not math.isnan(row["low"]), not math.isnan(row["high"])) == (known, known)


@settings(max_examples=12)
@given(data=st.data())
def test_datasets_of_any_grid_are_those_of_the_benchmark_table(data, grids):
    cells = data.draw(grids)
    found = over_datasets(cells)
    table = with_averages(cells)
    averages = table[(table["dataset"] == AVERAGE) & table["acc_mean"].notna()]
    assert found[GROUP].to_numpy().tolist() == averages[GROUP].to_numpy().tolist()
    assert list(found["mean"]) == list(averages["acc_mean"])
    shuffled = cells.sample(frac=1, random_state=6)
    assert over_datasets(shuffled).equals(found)


def test_samples_pass_on_what_was_measured(make_cells):
    cells = make_cells(
        {("x", "knn", "a", 28): 60.0, ("x", "probe", "a", 28): 70.0},
        acc_low=[NAN, 65.0],
        acc_high=[NAN, 76.0],
    )
    found = over_samples(cells)
    assert list(found.columns) == [*KEYS, *VALUES]
    row = ("x", "probe", "a", 28, "test samples", 70.0, 65.0, 76.0, 3)
    assert list(found.itertuples(index=False, name=None)) == [row]


def test_the_papers_numbers_have_no_interval_over_samples(baseline):
    found = over_samples(baseline)
    assert found.empty
    assert list(found.columns) == [*KEYS, *VALUES]
