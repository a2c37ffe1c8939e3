from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.results.averages import on_all_datasets, with_averages
from medplus.analysis.results.cells import AVERAGE, COLUMNS, SCORES

pytestmark = pytest.mark.filterwarnings("error")

NAN = math.nan
PUBLISHED = """
finetune vgg16                        28 82.34 0.88 92.66 0.41
finetune alexnet                     128 85.04 0.74 94.29 0.3
finetune resnet18                     64 83.42 0.65 92.49 0.5
finetune resnet18                    224 86.22 0.58 94.51 0.24
finetune efficientnet_b4             224 82.44 1.11 91.64 0.73
finetune vit_base_patch16_224         28 78.23 0.88 90.54 0.47
finetune eva02_base_patch16_clip_224  28 76.69 1.44 88.91 1.01
finetune eva02_base_patch16_clip_224 224 84.72 1.09 92.6  0.94
finetune vit_base_patch16_224.dino   224 84.84 1.08 93.9  0.73
finetune samvit_base_patch16         224 84.3  0.82 91.91 0.55
probe    resnet18                    224 76.89 0.08 90.37 0.17
probe    densenet121                 128 80.77 0.19 92.0  0.19
probe    vit_base_patch16_224        224 84.01 0.27 94.31 0.13
probe    eva02_base_patch16_clip_224  28 73.04 0.19 88.41 0.04
probe    eva02_base_patch16_clip_224 224 79.3  0.1  92.41 0.04
probe    vit_base_patch16_224.dino   128 84.46 0.24 94.5  0.11
probe    samvit_base_patch16          64 48.1  0.03 74.68 0.8
probe    samvit_base_patch16         128 54.14 0.04 80.46 0.13
probe    samvit_base_patch16         224 61.2  0.03 81.75 0.11
knn      vgg16                        28 66.07 nan  nan   nan
knn      vgg16                        64 70.65 nan  nan   nan
knn      resnet18                    224 76.6  nan  nan   nan
knn      eva02_base_patch16_clip_224 128 74.64 nan  nan   nan
knn      vit_base_patch16_224.dino   224 81.9  nan  nan   nan
knn      samvit_base_patch16          28 65.05 nan  nan   nan
""".strip().splitlines()
"""Rows of the paper's table, most with a mean that lies halfway between two decimals."""


def averages(cells):
    table = with_averages(cells)
    means = table[table["dataset"] == AVERAGE]
    return means.set_index(["protocol", "backbone", "size"])


def test_averages_are_the_published_ones_to_the_digit(baseline):
    found = averages(baseline)
    assert len(found) == 120
    for line in PUBLISHED:
        protocol, backbone, size, *scores = line.split()
        row = found.loc[(protocol, backbone, int(size))]
        mine = [float(np.round(row[name], 2)) for name in SCORES]
        assert mine == pytest.approx([float(score) for score in scores], abs=0, nan_ok=True), line


def test_cells_stand_first_and_unchanged(baseline):
    table = with_averages(baseline)
    assert list(table.columns) == COLUMNS
    assert len(table) == 1440 + 120
    assert table.iloc[:1440].equals(baseline)
    assert set(table["dataset"][1440:]) == {AVERAGE}


def test_backbone_without_all_datasets_has_no_average(make_cells):
    acc = {(d, "probe", b, 28): 50.0 for d in "xy" for b in "ab"}
    del acc["y", "probe", "b", 28]
    acc["x", "knn", "b", 28] = 40.0  # all datasets that kNN has
    found = averages(make_cells(acc))
    assert list(found.index) == [("probe", "a", 28), ("knn", "b", 28)]


def test_no_cells_have_no_averages(baseline):
    assert with_averages(baseline.iloc[:0]).empty


@settings(max_examples=15)
@given(data=st.data())
def test_averages_of_any_grid_equal_a_plain_loop(data, grids):
    cells = data.draw(grids)
    rows = cells.to_dict("records")
    expected = {}
    for row in rows:
        group = (row["protocol"], row["backbone"], row["size"])
        alike = [r for r in rows if (r["protocol"], r["size"]) == (group[0], group[2])]
        mine = [r for r in alike if r["backbone"] == group[1]]
        if {r["dataset"] for r in mine} == {r["dataset"] for r in alike}:
            scores = [math.fsum(r[name] for r in mine) / len(mine) for name in SCORES]
            expected[group] = [*scores, min(r["n_seeds"] for r in mine)]
    found = averages(cells)[[*SCORES, "n_seeds"]]
    assert set(found.index) == set(expected)
    for group, values in expected.items():
        assert list(found.loc[group]) == pytest.approx(values, nan_ok=True)
    in_groups = on_all_datasets(cells).groupby(["protocol", "backbone", "size"]).groups
    assert set(in_groups) == set(expected)
    shuffled = cells.sample(frac=1, random_state=1)
    assert with_averages(shuffled).equals(with_averages(cells))
