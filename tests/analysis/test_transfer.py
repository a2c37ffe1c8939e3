from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from medplus.analysis.results.cells import order_backbones
from medplus.analysis.transfer import default_transfers, transfer

pytestmark = pytest.mark.filterwarnings("error")

CHEAP, TARGET = ("knn", 28), ("finetune", 224)


def two_settings(make_cells, *datasets):
    """Return cells from, per dataset, the ACC of each backbone at the cheap and the target."""
    acc = {}
    for i, (cheap, target) in enumerate(datasets):
        for setting, scores in [(CHEAP, cheap), (TARGET, target)]:
            for backbone, score in zip("abcdefg", scores, strict=False):
                acc[f"d{i}", setting[0], backbone, setting[1]] = float(score)
    return make_cells(acc)


def by_hand(acc, cheap, target):
    """Return n_datasets, n_backbones, rhos and mean regret of a plain loop, or None."""
    datasets = sorted({key[0] for key in acc})

    def has(dataset, backbone):
        return all((dataset, p, backbone, s) in acc for p, s in (cheap, target))

    names = order_backbones(key[2] for key in acc)
    backbones = [b for b in names if any(has(d, b) for d in datasets)]
    datasets = [d for d in datasets if all(has(d, b) for b in backbones)]
    if len(backbones) < 2 or not datasets:
        return None
    rhos, regrets = [], []
    for dataset in datasets:
        guess, truth = ([acc[dataset, p, b, s] for b in backbones] for p, s in (cheap, target))
        if len(set(guess)) > 1 and len(set(truth)) > 1:
            rhos.append(spearmanr(guess, truth).statistic)
        regrets.append(max(truth) - truth[guess.index(max(guess))])
    return len(datasets), len(backbones), rhos, sum(regrets) / len(regrets)


def test_baseline_equals_a_plain_loop(baseline, acc_of):
    cheap = CHEAP
    found = transfer(baseline, cheap, TARGET)
    assert found is not None
    n_datasets, n_backbones, rhos, regret = by_hand(acc_of(baseline), cheap, TARGET)
    assert (found.n_datasets, found.n_backbones) == (n_datasets, n_backbones) == (12, 10)
    assert found.rho == pytest.approx(np.mean(rhos))
    assert found.regret == pytest.approx(regret)
    assert (found.cheap, found.target) == (cheap, TARGET)
    # The normal approximation over 12 datasets.
    half = 1.96 * np.std(rhos) / math.sqrt(12)
    assert found.low == pytest.approx(np.mean(rhos) - half, abs=0.06)
    assert found.high == pytest.approx(np.mean(rhos) + half, abs=0.06)


def test_points_hold_the_ranks_within_each_dataset(baseline, acc_of):
    found = transfer(baseline, CHEAP, TARGET)
    assert found is not None
    acc = acc_of(baseline)
    backbones = order_backbones(baseline["backbone"])
    assert list(found.points.columns) == ["dataset", "backbone", "cheap_rank", "target_rank"]
    assert list(found.points["backbone"][:10]) == backbones
    assert len(found.points) == 120
    for row in found.points.itertuples():
        for rank, (protocol, size) in [(row.cheap_rank, CHEAP), (row.target_rank, TARGET)]:
            mine = acc[row.dataset, protocol, row.backbone, size]
            others = [acc[row.dataset, protocol, b, size] for b in backbones]
            assert rank == sum(o > mine for o in others) + (others.count(mine) + 1) / 2


def test_opposite_order_loses_all(make_cells):
    cells = two_settings(make_cells, ([3, 2, 1], [70, 80, 95]), ([3, 2, 1], [70, 80, 90]))
    found = transfer(cells, CHEAP, TARGET)
    assert found is not None
    assert found.rho == pytest.approx(-1)
    assert found.regret == pytest.approx((25 + 20) / 2)


def test_fewer_than_three_datasets_have_no_interval(make_cells):
    dataset = ([1, 2, 3], [70, 95, 80])
    for n_datasets in (1, 2, 3):
        found = transfer(two_settings(make_cells, *[dataset] * n_datasets), CHEAP, TARGET)
        assert found is not None
        assert found.rho == pytest.approx(0.5)
        expected = [0.5, 0.5] if n_datasets > 2 else [math.nan, math.nan]
        assert [found.low, found.high] == pytest.approx(expected, nan_ok=True)


def test_dataset_of_equal_scores_has_no_correlation(make_cells):
    cells = two_settings(make_cells, ([5, 5, 5], [70, 80, 95]), ([1, 2, 3], [70, 80, 95]))
    found = transfer(cells, CHEAP, TARGET)
    assert found is not None
    assert found.n_datasets == 2
    assert found.rho == pytest.approx(1)
    # Of equals the first is taken.
    assert found.regret == pytest.approx((95 - 70) / 2)


def test_too_little_to_compare(make_cells, baseline):
    assert transfer(two_settings(make_cells, ([1], [70])), CHEAP, TARGET) is None
    assert transfer(two_settings(make_cells, ([1, 2], [])), CHEAP, TARGET) is None
    assert transfer(baseline, ("knn", 29), TARGET) is None
    assert transfer(baseline.iloc[:0], CHEAP, TARGET) is None


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"finetune": (28, 224), "probe": (28, 224), "knn": (28, 224)},
         ["knn 28 finetune 224", "probe 28 finetune 224"]),
        ({"probe": (28, 224), "knn": (28, 224)}, ["knn 28 probe 224"]),
        ({"finetune": (28, 64), "probe": (128, 224), "knn": (64,)},
         ["knn 64 finetune 64", "probe 128 finetune 64"]),
        ({"finetune": (28, 64)}, []),
        ({"probe": (28, 64)}, []),
        ({"knn": (28, 64)}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_defaults_go_from_the_smallest_size_to_the_dearest_protocol_at_the_largest(
    baseline, sizes, found
):
    pairs = zip(baseline["protocol"], baseline["size"], strict=True)
    cells = baseline[[size in sizes.get(protocol, ()) for protocol, size in pairs]]
    transfers = default_transfers(cells)
    assert [f"{' '.join(map(str, (*one.cheap, *one.target)))}" for one in transfers] == found


@settings(max_examples=20)
@given(data=st.data())
def test_any_grid_equals_a_plain_loop(data, grids, acc_of):
    cells = data.draw(grids)
    cheap, target = (
        data.draw(st.tuples(st.sampled_from(PROTOCOL), st.sampled_from(sorted(set(cells["size"])))))
        for PROTOCOL in [("probe", "finetune"), ("knn", "probe", "finetune")]
    )
    found = transfer(cells, cheap, target)
    expected = by_hand(acc_of(cells), cheap, target)
    if expected is None:
        assert found is None
        return
    assert found is not None
    n_datasets, n_backbones, rhos, regret = expected
    assert (found.n_datasets, found.n_backbones) == (n_datasets, n_backbones)
    assert len(found.points) == n_datasets * n_backbones
    assert found.rho == pytest.approx(np.mean(rhos) if rhos else math.nan, nan_ok=True)
    assert found.regret == pytest.approx(regret, abs=1e-8)
    assert math.isnan(found.low) == (len(rhos) < 3)
    again = transfer(cells.sample(frac=1, random_state=7), cheap, target)
    assert again is not None
    assert again.points.equals(found.points)
    assert (again.low, again.high) == pytest.approx((found.low, found.high), nan_ok=True)
