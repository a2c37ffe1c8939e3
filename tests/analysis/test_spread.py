from __future__ import annotations

import math
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.results.averages import dataset_means
from medplus.analysis.results.cells import order_backbones
from medplus.analysis.spread import percentiles

pytestmark = pytest.mark.filterwarnings("error")


def means_by_hand(acc):
    backbones = order_backbones(key[2] for key in acc)
    found = {}
    for dataset in sorted({key[0] for key in acc}):
        chosen = [
            setting
            for setting in sorted({(p, s) for _, p, _, s in acc})
            if all((dataset, setting[0], b, setting[1]) in acc for b in backbones)
        ]
        if chosen:
            found[dataset] = [
                math.fsum(acc[dataset, p, b, s] for p, s in chosen) / len(chosen) for b in backbones
            ]
    return backbones, found


def quantile_by_hand(values, share):
    """Walk along the sorted values: linear between neighbours, exact in fractions."""
    ordered = sorted(Fraction(value) for value in values)
    place = Fraction(share) * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def test_quartiles_of_the_baseline_equal_a_plain_loop(baseline):
    means = dataset_means(baseline)
    table = percentiles(means)
    assert list(table.columns) == ["backbone", "p25", "p50", "p75"]
    assert list(table["backbone"]) == list(means.columns)
    for backbone, *quartiles in table.itertuples(index=False):
        expected = [quantile_by_hand(means[backbone], f"{q}/4") for q in (1, 2, 3)]
        assert quartiles == pytest.approx(expected, abs=1e-12)


def test_quartiles_of_four_values():
    table = percentiles(pd.DataFrame({"a": [4.0, 1.0, 3.0, 2.0]}))
    assert list(table.iloc[0]) == ["a", 1.75, 2.5, 3.25]


def test_only_settings_that_all_backbones_have_are_averaged(make_cells):
    acc = {
        ("x", "knn", "a", 28): 10.0, ("x", "knn", "b", 28): 20.0, ("x", "probe", "a", 28): 90.0,
        ("y", "knn", "a", 28): 10.0,
    }  # fmt: skip
    means = dataset_means(make_cells(acc))
    assert means.to_dict("index") == {"x": {"a": 10.0, "b": 20.0}}


def test_no_common_setting_leaves_no_dataset(make_cells):
    means = dataset_means(make_cells({("x", "knn", "a", 28): 1.0, ("x", "knn", "b", 64): 1.0}))
    assert means.shape == (0, 2)
    assert percentiles(means)[["p25", "p50", "p75"]].isna().all(axis=None)
    assert list(percentiles(means)["backbone"]) == ["a", "b"]


def test_no_cells(baseline):
    assert percentiles(dataset_means(baseline.iloc[:0])).empty


@settings(max_examples=20)
@given(data=st.data())
def test_any_grid_equals_a_plain_loop(data, grids, acc_of):
    cells = data.draw(grids)
    means = dataset_means(cells)
    backbones, expected = means_by_hand(acc_of(cells))
    assert list(means.columns) == backbones
    assert list(means.index) == list(expected)
    for dataset, row in expected.items():
        assert list(means.loc[dataset]) == pytest.approx(row, abs=1e-9)
    assert dataset_means(cells.sample(frac=1, random_state=4)).equals(means)
    if expected:
        for backbone, *quartiles in percentiles(means).itertuples(index=False):
            by_hand = [quantile_by_hand(means[backbone], f"{q}/4") for q in (1, 2, 3)]
            assert quartiles == pytest.approx(by_hand, abs=1e-9)
