from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from medplus.analysis.pairwise import COLUMNS, compare_pairs, smallest_p
from medplus.analysis.results.averages import dataset_means

pytestmark = pytest.mark.filterwarnings("error")


def doubled_ranks(differences):
    """Return twice the rank of each |difference| that is not 0, ties averaged, and its sign."""
    sizes = [abs(d) for d in differences if d != 0]
    ranks = [2 * sum(o < s for o in sizes) + sum(o == s for o in sizes) + 1 for s in sizes]
    return np.array(ranks, dtype=int), np.array([1 if d > 0 else -1 for d in differences if d != 0])


def p_by_hand(differences):
    """Set the signs in all possible ways, and count those that are at least as lopsided."""
    ranks, signs = doubled_ranks(differences)
    if not len(ranks):
        return 1.0
    every = np.array(list(product([-1, 1], repeat=len(ranks)))) @ ranks
    return float((abs(every) >= abs(signs @ ranks)).mean())


def holm_by_hand(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        running = max(running, (len(p_values) - step) * p_values[i])
        adjusted[i] = min(1.0, running)
    return adjusted


@pytest.fixture(scope="module")
def means(baseline):
    return dataset_means(baseline)


def test_baseline_equals_all_ways_to_set_the_signs(means):
    table = compare_pairs(means)
    pairs = list(table[["backbone_a", "backbone_b"]].itertuples(index=False, name=None))
    assert pairs == list(combinations(means.columns, 2))
    for (a, b), p_value in zip(pairs, table["p_value"], strict=True):
        assert p_value == pytest.approx(p_by_hand((means[a] - means[b]).round(9)), abs=1e-12)


@pytest.mark.parametrize(
    ("n_datasets", "levels"), [(3, 2), (9, 5), (11, 2), (14, 2), (12, 10_000), (60, 5)]
)
def test_p_is_that_of_scipys_defaults(n_datasets, levels):
    rng = np.random.default_rng(n_datasets)
    a, b = rng.integers(0, levels, (2, n_datasets)).astype(float)
    expected = wilcoxon(a + 1, b).pvalue
    assert compare_pairs(pd.DataFrame({"a": a + 1, "b": b}))["p_value"].item() == pytest.approx(
        expected
    )


def test_threshold_is_that_of_45_pairs(means):
    table = compare_pairs(means)
    assert set(table["threshold"]) == {0.05 / 45}
    assert list(table["significant"]) == [p < 0.05 / 45 for p in table["p_value"]]
    assert table["significant"].sum() == 20


def test_no_backbone_of_the_baseline_is_significantly_better_than_dino(means):
    table = compare_pairs(means).query("significant and favoured != 'vit_base_patch16_224.dino'")
    assert "vit_base_patch16_224.dino" not in set(table["backbone_a"]) | set(table["backbone_b"])


def test_wilcoxons_textbook_ranks():
    # Differences 1, 2, 3 and -4: W+ = 6, W- = 4; 14 of 16 sign patterns are as lopsided.
    means = pd.DataFrame({"a": [1.0, 2.0, 3.0, 0.0], "b": [0.0, 0.0, 0.0, 4.0]})
    row = compare_pairs(means).iloc[0]
    assert row["p_value"] == 14 / 16
    assert row["effect_size"] == pytest.approx((6 - 4) / 10)
    assert row["mean_difference"] == pytest.approx(0.5)
    assert row["n_datasets"] == 4


def test_effect_size_is_one_where_the_first_is_always_better():
    means = pd.DataFrame({"a": [2.0, 3.0, 5.0], "b": [1.0, 1.0, 1.0]})
    assert compare_pairs(means)["effect_size"].item() == 1.0
    assert compare_pairs(means[["b", "a"]])["effect_size"].item() == -1.0
    assert compare_pairs(means)["p_value"].item() == smallest_p(3) == 0.25


def test_holm_finds_at_least_what_bonferroni_finds(means):
    table = compare_pairs(means)
    assert list(table["p_holm"]) == pytest.approx(holm_by_hand(list(table["p_value"])))
    assert (table["significant_holm"] >= table["significant"]).all()
    assert table["significant_holm"].sum() == sum(p <= 0.05 for p in table["p_holm"]) == 22


def test_backbones_that_never_differ_have_p_1_and_none_is_favoured():
    means = pd.DataFrame({"a": [0.3, 1.0, 2.0], "b": [0.1 + 0.2, 1.0, 2.0]})
    row = compare_pairs(means).iloc[0]
    assert (row["p_value"], row["significant"], row["favoured"]) == (1.0, False, "")
    assert row["effect_size"] == 0.0


@pytest.mark.parametrize("n_datasets", [0, 1])
def test_too_few_datasets_support_no_claim(n_datasets):
    means = pd.DataFrame({name: [value] * n_datasets for name, value in [("a", 1.0), ("b", 2.0)]})
    row = compare_pairs(means).iloc[0]
    assert not row["significant"]
    assert not row["significant_holm"]
    assert row["n_datasets"] == n_datasets
    expected = 1.0 if n_datasets else np.nan
    assert [row["p_value"], row["p_holm"]] == pytest.approx([expected] * 2, nan_ok=True)
    assert row["favoured"] == ("b" if n_datasets else "")


def test_one_backbone_has_no_pairs(means):
    table = compare_pairs(means.iloc[:, :1])
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_dataset_that_lacks_a_backbone_is_left_out(means):
    holed = means.copy()
    holed.iloc[0, 3] = np.nan
    assert compare_pairs(holed).equals(compare_pairs(means.iloc[1:]))
    assert set(compare_pairs(holed)["n_datasets"]) == {11}


def test_smallest_p_is_what_the_test_gives_when_all_agree():
    for n_datasets in range(1, 13):
        means = pd.DataFrame({"a": np.arange(1.0, n_datasets + 1), "b": np.zeros(n_datasets)})
        assert compare_pairs(means)["p_value"].item() == pytest.approx(smallest_p(n_datasets))
    assert smallest_p(0) == 1.0
    assert smallest_p(6) == 0.03125 > 0.05 / 45 > smallest_p(12)


@settings(max_examples=4)
@given(
    scores=st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([60.0, 60.7, 61.4, 70.1]), min_size=n, max_size=n),
            min_size=2,
            max_size=3,
        )
    )
)
def test_ties_and_zeros_equal_all_ways_to_set_the_signs(scores):
    means = pd.DataFrame({f"b{i}": column for i, column in enumerate(scores)})
    table = compare_pairs(means)
    for i, (a, b) in enumerate(combinations(means.columns, 2)):
        differences = (means[a] - means[b]).round(6)
        ranks, signs = doubled_ranks(differences)
        assert table["p_value"][i] == pytest.approx(p_by_hand(differences))
        mean = round(differences.mean(), 8)
        assert table["favoured"][i] == (a if mean > 0 else b if mean < 0 else "")
        effect = signs @ ranks / ranks.sum() if len(ranks) else 0.0
        assert table["effect_size"][i] == pytest.approx(effect)
        assert table["mean_difference"][i] == pytest.approx(differences.mean(), abs=1e-8)
    assert list(table["p_holm"]) == pytest.approx(holm_by_hand(list(table["p_value"])))
    assert compare_pairs(means.iloc[::-1]).equals(table)
