from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.gains import resolution_gains
from medplus.analysis.results.cells import order_backbones

pytestmark = pytest.mark.filterwarnings("error")


def gains(cells):
    return list(resolution_gains(cells).itertuples(index=False, name=None))


def gains_by_hand(acc):
    sizes = sorted({key[3] for key in acc})
    rows = []
    for protocol in ("finetune", "probe", "knn"):
        for backbone in order_backbones(key[2] for key in acc):
            for i in range(len(sizes) - 1):
                improved = total = 0
                for dataset in {key[0] for key in acc}:
                    small = acc.get((dataset, protocol, backbone, sizes[i]))
                    large = acc.get((dataset, protocol, backbone, sizes[i + 1]))
                    if small is not None and large is not None:
                        total += 1
                        improved += large > small
                if total:
                    rows.append((protocol, backbone, sizes[i], sizes[i + 1], improved, total))
    return rows


def test_vgg16_fine_tuned_counted_by_hand(baseline):
    # Of the published table: 12 of 12 from 28 to 64 px, then 8, then 6.
    assert gains(baseline)[:3] == [
        ("finetune", "vgg16", 28, 64, 12, 12),
        ("finetune", "vgg16", 64, 128, 8, 12),
        ("finetune", "vgg16", 128, 224, 6, 12),
    ]


@pytest.mark.parametrize("scores", [(50.0, 50.0), (0.3, 0.1 + 0.2)])
def test_equal_but_for_rounding_is_no_improvement(make_cells, scores):
    acc = {("x", "knn", "a", size): one for size, one in zip((28, 64), scores, strict=True)}
    assert gains(make_cells(acc)) == [("knn", "a", 28, 64, 0, 1)]


def test_step_that_no_dataset_has_is_left_out(make_cells):
    acc = {("x", "knn", "a", 28): 50.0, ("y", "knn", "a", 64): 60.0, ("x", "probe", "a", 64): 60.0}
    assert gains(make_cells(acc)) == []


def test_one_size_has_no_steps(baseline):
    assert gains(baseline[baseline["size"] == 28]) == []
    assert gains(baseline.iloc[:0]) == []


@settings(max_examples=20)
@given(data=st.data())
def test_any_grid_equals_a_plain_loop(data, grids, acc_of):
    cells = data.draw(grids)
    acc = acc_of(cells)
    found = gains(cells)
    if set(cells["size"]) == {key[3] for key in acc}:
        assert found == gains_by_hand(acc)
    assert found == gains(cells.sample(frac=1, random_state=3))
    assert all(0 <= improved <= n for *_, improved, n in found)
