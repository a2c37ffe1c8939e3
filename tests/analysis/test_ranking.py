from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.ranking import top_ranks
from medplus.analysis.results.cells import ALL, order_backbones

pytestmark = pytest.mark.filterwarnings("error")


def counts(cells, top=5):
    table = top_ranks(cells, top)
    keys = table[["protocol", "size", "backbone", "rank"]].itertuples(index=False, name=None)
    return dict(zip(keys, table["count"], strict=True))


def count_by_hand(acc, top=5):
    """Take out the best again and again; with equal scores, whoever comes first."""
    backbones = order_backbones(key[2] for key in acc)
    found, n_settings = Counter(), Counter()
    for dataset, protocol, size in {(d, p, s) for d, p, _, s in acc}:
        scores = {b: acc.get((dataset, protocol, b, size)) for b in backbones}
        if None in scores.values():
            continue
        pooled = [(ALL, ALL), (protocol, ALL), (protocol, size)]
        n_settings.update(pooled)
        for rank in range(1, top + 1):
            if scores:
                best = next(b for b in scores if scores[b] == max(scores.values()))
                del scores[best]
                found.update((*group, best, rank) for group in pooled)
    return found, n_settings


def test_every_rank_is_taken_once_per_setting(baseline):
    table = top_ranks(baseline)
    sums = table.groupby(["protocol", "size", "rank"], sort=False)["count"].sum().to_dict()
    for (protocol, size, _), total in sums.items():
        assert total == (144 if protocol == ALL else 48 if size == ALL else 12)
    assert len(sums) == 16 * 5
    assert list(dict.fromkeys(table["size"])) == [ALL, 28, 64, 128, 224]
    assert list(dict.fromkeys(table["protocol"])) == [ALL, "finetune", "probe", "knn"]


def test_of_equals_the_first_in_the_papers_order_wins(make_cells):
    names = ["aaa", "pixels", "resnet18", "vgg16"]
    cells = make_cells({("x", "knn", name, 28): 50.0 for name in names})
    found = counts(cells, top=4)
    winners = [name for rank in range(1, 5) for name in names if found[ALL, ALL, name, rank]]
    assert winners == ["vgg16", "resnet18", "aaa", "pixels"]


def test_scores_that_differ_by_a_rounding_error_are_equal(make_cells):
    cells = make_cells({("x", "knn", "vgg16", 28): 0.3, ("x", "knn", "resnet18", 28): 0.1 + 0.2})
    assert counts(cells)[ALL, ALL, "vgg16", 1] == 1


def test_fewer_backbones_than_ranks(make_cells):
    found = counts(make_cells({("x", "knn", "vgg16", 28): 50.0}), top=3)
    assert found == {
        (*group, "vgg16", rank): int(rank == 1)
        for group in [(ALL, ALL), ("knn", ALL), ("knn", 28)]
        for rank in (1, 2, 3)
    }


def test_setting_that_a_backbone_lacks_does_not_count(make_cells):
    acc = {(d, "knn", b, 28): 50.0 for d in "xy" for b in "ab"}
    del acc["y", "knn", "b", 28]
    cells = make_cells(acc)
    assert set(top_ranks(cells)["n_settings"]) == {1}
    assert counts(cells)[ALL, ALL, "a", 1] == 1


def test_no_cells(baseline):
    assert top_ranks(baseline.iloc[:0]).empty


@settings(max_examples=15)
@given(data=st.data(), top=st.integers(1, 6))
def test_any_grid_equals_a_plain_loop(data, top, grids, acc_of):
    cells = data.draw(grids)
    found = counts(cells, top)
    scored = cells.dropna(subset="acc_mean")
    expected, n_settings = count_by_hand(acc_of(scored), top)
    assert {key: n for key, n in found.items() if n} == dict(expected)
    n_groups = 1 + cells["protocol"].nunique() * (1 + cells["size"].nunique())
    assert len(found) == n_groups * cells["backbone"].nunique() * top
    table = top_ranks(cells)
    groups = zip(table["protocol"], table["size"], strict=True)
    of_group = dict(zip(groups, table["n_settings"], strict=True))
    assert {group: n for group, n in of_group.items() if n} == dict(n_settings)
    assert top_ranks(cells.sample(frac=1, random_state=2), top).equals(top_ranks(cells, top))
