"""The shape of tables of cells, and which backbones can be compared."""

from __future__ import annotations

import random
from itertools import product

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from medplus.analysis.results.cells import comparable, complete_blocks, order_backbones, sort_cells
from medplus.backbones.catalog import PAPER


def table(rows):
    cells = pd.DataFrame(rows, columns=["dataset", "protocol", "backbone", "size"])
    return cells.assign(acc_mean=50.0)


def test_backbones_stand_in_the_papers_order_then_by_name_and_pixels_last():
    names = ["pixels", "zeta", *reversed(PAPER), "alpha", "zeta"]
    assert order_backbones(names) == [*PAPER, "alpha", "zeta", "pixels"]


def test_cells_are_sorted_by_dataset_protocol_backbone_and_size():
    rows = list(product("ab", ["finetune", "probe", "knn"], ["vgg16", "resnet18"], [28, 128]))
    shuffled = rows[:]
    random.Random(0).shuffle(shuffled)
    found = sort_cells(table(shuffled))
    assert list(found[["dataset", "protocol", "backbone", "size"]].itertuples(index=False)) == rows


def test_a_backbone_without_a_protocol_does_not_cost_the_others_that_protocol():
    networks = product("ab", ["finetune", "probe", "knn"], ["vgg16", "alexnet", "resnet18"], [28])
    pixels = product("ab", ["probe", "knn"], ["pixels"], [28])
    cells, left_out = comparable(table([*networks, *pixels]))
    assert left_out == ["pixels"]
    assert len(complete_blocks(cells)) == 2 * 3 * 3


places = st.sets(st.sampled_from(list(product("abc", ["knn", "probe"], "vwxyz", [28, 64]))))


@given(places.filter(bool))
def test_leaving_out_never_costs_cells_and_stops_where_nothing_is_gained(rows):
    before = table(sorted(rows))
    cells, left_out = comparable(before)
    names = set(before["backbone"])
    assert set(cells["backbone"]) == names - set(left_out)
    assert len(complete_blocks(cells)) >= len(complete_blocks(before))
    if len(names) >= 2:
        assert cells["backbone"].nunique() >= 2
    if cells["backbone"].nunique() > 2:
        for name in set(cells["backbone"]):
            rest = cells[cells["backbone"] != name]
            assert len(complete_blocks(rest)) <= len(complete_blocks(cells))


@given(places)
def test_complete_blocks_have_every_backbone(rows):
    cells = table(sorted(rows))
    kept = complete_blocks(cells)
    names = set(cells["backbone"])
    full = {
        key
        for key in product("abc", ["knn", "probe"], [28, 64])
        if names and all((key[0], key[1], name, key[2]) in rows for name in names)
    }
    found = set(kept[["dataset", "protocol", "size"]].itertuples(index=False, name=None))
    assert found == full
    assert len(kept) == len(full) * len(names)
