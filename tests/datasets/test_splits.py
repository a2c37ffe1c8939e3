"""The split that is made where none is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.datasets.splits import split

FRACTIONS = (0.7, 0.1, 0.2)
shares = st.sampled_from([FRACTIONS, (0.5, 0.25, 0.25), (0.8, 0.1, 0.1), (0.6, 0.4)])
seeds = st.integers(0, 2**32)


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(max(classes) + 1)[classes]


@settings(deadline=None)
@given(counts=st.lists(st.integers(3, 60), min_size=2, max_size=6), fractions=shares, seed=seeds)
def test_every_class_has_its_share_in_every_part(counts, fractions, seed):
    classes = np.repeat(np.arange(len(counts)), counts)
    parts = split(one_hot(classes.tolist()), None, fractions, seed)
    for value, n in enumerate(counts):
        found = np.bincount(parts[classes == value], minlength=len(fractions))
        assert (found > 0).all()
        # Rounding moves one image, and one more may be given to a part that had none.
        assert (np.abs(found - n * np.array(fractions)) <= 2).all()


@settings(deadline=None)
@given(data=st.data(), fractions=shares, seed=seeds)
def test_groups_stay_whole_and_no_part_is_empty(data, fractions, seed):
    groups = data.draw(st.lists(st.integers(0, 12), min_size=len(fractions), max_size=120))
    groups += [100 + i for i in range(len(fractions))]  # as many groups as parts, at least
    classes = data.draw(st.lists(st.integers(0, 3), min_size=len(groups), max_size=len(groups)))
    parts = split(one_hot(classes), groups, fractions, seed)
    for group in set(groups):
        assert len({p for p, g in zip(parts, groups, strict=True) if g == group}) == 1
    assert set(parts) == set(range(len(fractions)))


@settings(max_examples=30)
@given(seed=seeds, fractions=shares, per_group=st.integers(1, 4))
def test_small_groups_leave_fractions_and_classes_near_their_shares(seed, fractions, per_group):
    rng = np.random.default_rng(seed)
    n_groups = 120
    of_group = rng.choice(3, n_groups, p=(0.6, 0.3, 0.1))
    groups = np.repeat(np.arange(n_groups), per_group)
    classes = of_group[groups]
    parts = split(one_hot([*classes.tolist()]), groups.tolist(), fractions, seed)
    for part, fraction in enumerate(fractions):
        here = parts == part
        assert abs(here.mean() - fraction) < 0.03
        for value in np.unique(classes):
            n = (of_group == value).sum() * per_group
            found = (here & (classes == value)).sum()
            assert abs(found - fraction * n) <= 2 * per_group


def test_many_groups_are_whole_and_near_their_shares_too():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(4000), rng.integers(1, 6, 4000))
    classes = rng.choice(3, 4000, p=(0.6, 0.3, 0.1))[groups]
    parts = split(one_hot(classes.tolist()), groups.tolist(), FRACTIONS, 0)
    assert len(np.unique(np.column_stack([groups, parts]), axis=0)) == 4000
    for value in range(3):
        found = np.bincount(parts[classes == value], minlength=3) / (classes == value).sum()
        np.testing.assert_allclose(found, FRACTIONS, atol=0.03)


@settings(deadline=None)
@given(seed=seeds)
def test_every_label_of_a_multi_label_task_is_near_its_share(seed):
    rng = np.random.default_rng(seed)
    flags = (rng.random((400, 4)) < (0.5, 0.2, 0.1, 0.05)).astype(float)
    parts = split(flags, None, FRACTIONS, seed)
    for part, fraction in enumerate(FRACTIONS):
        here = flags[parts == part]
        assert abs(len(here) - 400 * fraction) <= 8
        assert (np.abs(here.sum(0) - flags.sum(0) * fraction) <= 5).all()


@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(90)]], ids=["images", "groups"])
def test_seed_decides(groups):
    flags = one_hot([i % 4 for i in range(90)])
    first, again, other = (split(flags, groups, FRACTIONS, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
