from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from medplus.analysis.paired import Pair, difference
from medplus.errors import RunError, UsageError
from medplus.metrics import resample_counts
from medplus.vocabulary import MULTI_LABEL

pytestmark = pytest.mark.filterwarnings("error")

MULTI_CLASS = "multi-class"


def scored(true, skill, seed, n_classes=3):
    """Return probabilities in which the true class stands out by `skill`."""
    noise = np.random.default_rng(seed).normal(size=(len(true), n_classes))
    logits = noise + skill * np.eye(n_classes)[true]
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.fixture
def true():
    return np.random.default_rng(0).integers(0, 3, 150)


def run_of(true, score, **more):
    """Return predictions as `read_predictions` does."""
    return {"test_true": true.reshape(len(true), -1), "test_score": score, **more}


@pytest.fixture
def two(true):
    index = np.arange(150)
    return [run_of(true, scored(true, skill, seed), test_index=index)
            for skill, seed in ((1.4, 1), (1.0, 2))]  # fmt: skip


def acc_of(true, score):
    return 100 * np.mean(score.argmax(axis=1) == true)


def auc_of(true, score):
    return 100 * roc_auc_score(true, score, multi_class="ovr", average="macro")


def test_equals_a_loop_over_resamples_scored_by_scikit_learn(true, two):
    better, worse = (run["test_score"] for run in two)
    pair = Pair(*two, MULTI_CLASS)
    drawn = np.concatenate(list(resample_counts(150, 60, seed=3)), axis=1)
    for metric, ours in [(acc_of, pair.accuracy(60, 3)), (auc_of, pair.auc(60, 3))]:
        replicates = []
        for counts in drawn.T:
            rows = np.repeat(np.arange(150), counts)
            replicates.append(metric(true[rows], better[rows]) - metric(true[rows], worse[rows]))
        replicates = np.array(replicates)
        assert ours.value == pytest.approx(metric(true, better) - metric(true, worse), abs=1e-6)
        expected = np.quantile(replicates, [0.025, 0.975])
        assert [ours.low, ours.high] == pytest.approx(list(expected), abs=1e-6)
        far = min((replicates <= 1e-9).sum(), (replicates >= -1e-9).sum())
        assert ours.p_value == pytest.approx(min(1, 2 * (far + 1) / 61))
    assert pair.n_images == 150


def test_run_against_itself_differs_by_nothing(two):
    pair = Pair(two[0], two[0], MULTI_CLASS)
    for found in (pair.accuracy(50), pair.auc(50)):
        assert (found.value, found.low, found.high) == (0, 0, 0)
        assert found.p_value == 1


def test_much_better_run_has_the_smallest_p(true):
    perfect = np.eye(3)[true]
    pair = Pair(run_of(true, perfect), run_of(true, perfect[:, ::-1]), MULTI_CLASS)
    found = pair.accuracy(99)
    assert found.p_value == pytest.approx(2 / 100)
    assert found.low > 0


@pytest.mark.parametrize("groups", [None, np.arange(150) // 3])
@pytest.mark.parametrize("n_apart", [2, 5, 40])
def test_few_images_that_differ_are_no_evidence(n_apart, groups):
    one = (np.arange(150) < (n_apart if groups is None else 3 * n_apart)).astype(float)
    found = difference(one, np.zeros(150), 1000, groups=groups)
    signs = binomtest(n_apart, n_apart).pvalue
    assert found.p_value >= signs
    alone = difference(np.ones(n_apart), np.zeros(n_apart), 1000)
    assert alone.p_value == pytest.approx(max(signs, 2 / 1001))
    assert difference(np.ones(2000), np.zeros(2000), 1000).p_value == pytest.approx(2 / 1001)


def test_binary_and_multi_label_tasks():
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, (80, 4))
    scores = [np.clip(labels * skill + rng.random((80, 4)) * 0.7, 0, 1) for skill in (0.5, 0.2)]
    hits = [100 * np.mean((score > 0.5) == labels) for score in scores]
    aucs = [100 * roc_auc_score(labels, score, average="macro") for score in scores]
    pair = Pair(*(run_of(labels, score) for score in scores), MULTI_LABEL)
    assert pair.accuracy(50).value == pytest.approx(hits[0] - hits[1])
    assert pair.auc(50).value == pytest.approx(aucs[0] - aucs[1])
    one, other = (score[:, 0] for score in scores)
    pair = Pair(run_of(labels[:, 0], one), run_of(labels[:, 0], other), "binary-class")
    expected = 100 * (roc_auc_score(labels[:, 0], one) - roc_auc_score(labels[:, 0], other))
    assert pair.auc(50).value == pytest.approx(expected)


def test_one_class_has_an_acc_but_no_auc():
    true = np.zeros(20, dtype=int)
    pair = Pair(*(run_of(true, np.linspace(0, top, 20)) for top in (0.4, 1.0)), "binary-class")
    assert pair.accuracy(30).value == pytest.approx(50)
    assert all(math.isnan(value) for value in vars(pair.auc(30)).values())


def test_other_test_sets_are_refused(true, two):
    first, second = two
    for other, says in [
        (run_of(true[:140], first["test_score"][:140]), "150 images and 140"),
        (second | {"test_index": np.arange(150)[::-1]}, "test_index"),
        (second | {"test_true": (true[:, None] + 1) % 3}, "test_true"),
        (run_of(true, scored(true, 1, 1, n_classes=4)), "3 and 4 classes"),
        ({"test_true": true}, "lack test_score"),
    ]:
        with pytest.raises(UsageError, match=says):
            Pair(first, other, MULTI_CLASS)


def test_scores_that_cannot_be_scored_are_refused(true, two):
    broken = two[1]["test_score"].copy()
    broken[3, 1] = math.nan
    with pytest.raises(RunError, match="row 3"):
        Pair(two[0], run_of(true, broken), MULTI_CLASS)


def test_copies_of_images_in_groups_change_no_interval(true, two):
    alone = Pair(*two, MULTI_CLASS).accuracy(4000)
    copied = [
        run_of(true.repeat(4), run["test_score"].repeat(4, axis=0), test_group=np.arange(600) // 4)
        for run in two
    ]
    found = Pair(*copied, MULTI_CLASS).accuracy(4000)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.7)


@pytest.mark.extensive
@pytest.mark.parametrize(("chosen_on", "bias"), [("val", 0.0), ("test", 1.2)])
def test_best_less_second_of_equals_is_unbiased_if_they_are_chosen_on_val(chosen_on, bias):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        shared, own = rng.normal(size=(2, 1, 200)), rng.normal(size=(2, 10, 200))
        right = dict(zip(("val", "test"), shared + own < 1.2, strict=True))
        best, second = np.argsort(-right[chosen_on].sum(axis=1), kind="stable")[:2]
        pair = right["test"][[best, second]].astype(float)
        found.append(difference(*pair, n_resamples=400))
    assert np.mean([one.p_value < 0.05 for one in found]) <= 0.08
    assert np.mean([one.value for one in found]) == pytest.approx(bias, abs=0.5)
