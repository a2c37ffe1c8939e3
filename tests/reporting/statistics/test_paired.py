from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medplus.errors import RunError, UsageError
from medplus.metrics import resample_counts
from medplus.reporting.statistics.paired import paired_accuracy, paired_bootstrap
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


@pytest.fixture
def two(true):
    return (true, scored(true, 1.4, 1)), (true, scored(true, 1.0, 2))


def as_read(pair, index=None):
    """Return predictions as `read_predictions` does."""
    true, score = pair
    found = {"test_true": true[:, None], "test_score": score, "val_true": true[:3]}
    return found if index is None else found | {"test_index": index}


def acc_of(true, score):
    return 100 * np.mean(score.argmax(axis=1) == true)


def auc_of(true, score):
    return 100 * roc_auc_score(true, score, multi_class="ovr", average="macro")


def test_equals_a_loop_over_resamples_scored_by_scikit_learn(true, two):
    (_, better), (_, worse) = two
    found = paired_bootstrap(*two, MULTI_CLASS, n_resamples=60, seed=3)
    drawn = np.concatenate(list(resample_counts(150, 60, seed=3)), axis=1)
    for metric, ours in [(acc_of, found.acc), (auc_of, found.auc)]:
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
    assert (found.n_images, found.n_resamples) == (150, 60)


def test_run_against_itself_differs_by_nothing(two):
    found = paired_bootstrap(two[0], two[0], MULTI_CLASS, n_resamples=50)
    for difference in (found.acc, found.auc):
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.p_value == 1


def test_much_better_run_has_the_smallest_p(true):
    perfect = np.eye(3)[true]
    found = paired_bootstrap((true, perfect), (true, perfect[:, ::-1]), MULTI_CLASS, 99)
    assert found.acc.p_value == pytest.approx(2 / 100)
    assert found.acc.low > 0


def test_predictions_as_read_give_the_same(two):
    index = np.arange(150)
    read = paired_bootstrap(*(as_read(pair, index) for pair in two), MULTI_CLASS, 50)
    assert read == paired_bootstrap(*two, MULTI_CLASS, 50)


def test_binary_and_multi_label_tasks():
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, (80, 4))
    scores = [np.clip(labels * skill + rng.random((80, 4)) * 0.7, 0, 1) for skill in (0.5, 0.2)]
    hits = [100 * np.mean((score > 0.5) == labels) for score in scores]
    aucs = [100 * roc_auc_score(labels, score, average="macro") for score in scores]
    found = paired_bootstrap((labels, scores[0]), (labels, scores[1]), MULTI_LABEL, 50)
    assert found.acc.value == pytest.approx(hits[0] - hits[1])
    assert found.auc.value == pytest.approx(aucs[0] - aucs[1])
    one, other = (score[:, 0] for score in scores)
    found = paired_bootstrap((labels[:, 0], one), (labels[:, 0], other), "binary-class", 50)
    expected = 100 * (roc_auc_score(labels[:, 0], one) - roc_auc_score(labels[:, 0], other))
    assert found.auc.value == pytest.approx(expected)


def test_one_class_has_an_acc_but_no_auc():
    true = np.zeros(20, dtype=int)
    pair = [(true, np.linspace(0, top, 20)) for top in (0.4, 1.0)]
    found = paired_bootstrap(*pair, "binary-class", 30)
    assert found.acc.value == pytest.approx(50)
    missing = [found.auc.value, found.auc.low, found.auc.high, found.auc.p_value]
    assert all(math.isnan(value) for value in missing)


def test_other_test_sets_are_refused(true, two):
    first, second = (as_read(pair, np.arange(150)) for pair in two)
    fewer = as_read((true[:140], two[0][1][:140]))
    with pytest.raises(UsageError, match="150 images and 140"):
        paired_bootstrap(first, fewer, MULTI_CLASS)
    with pytest.raises(UsageError, match="test_index"):
        paired_bootstrap(first, second | {"test_index": np.arange(150)[::-1]}, MULTI_CLASS)
    with pytest.raises(UsageError, match="test_true"):
        paired_bootstrap(first, second | {"test_true": (true[:, None] + 1) % 3}, MULTI_CLASS)
    with pytest.raises(UsageError, match="3 and 4 classes"):
        paired_bootstrap(two[0], (true, scored(true, 1, 1, n_classes=4)), MULTI_CLASS)
    with pytest.raises(UsageError, match="lack test_score"):
        paired_bootstrap(first, {"test_true": true}, MULTI_CLASS)


def test_scores_that_cannot_be_scored_are_refused(true, two):
    broken = two[1][1].copy()
    broken[3, 1] = math.nan
    with pytest.raises(RunError, match="row 3"):
        paired_bootstrap(two[0], (true, broken), MULTI_CLASS)


@pytest.mark.parametrize("task", [MULTI_CLASS, MULTI_LABEL])
def test_accuracy_alone_is_that_of_the_whole_comparison(task, true, two):
    a, b = two
    if task == MULTI_LABEL:
        labels = np.eye(3, dtype=int)[true]
        a, b = (labels, a[1]), (labels, b[1])
    whole = paired_bootstrap(a, b, task, n_resamples=50, seed=4)
    alone, n_images = paired_accuracy(a, b, task, n_resamples=50, seed=4)
    assert n_images == whole.n_images == 150
    assert vars(alone) == pytest.approx(vars(whole.acc), abs=1e-9)


def test_accuracy_alone_refuses_other_images_too(true, two):
    with pytest.raises(UsageError, match="tested on 150 images and 149"):
        paired_accuracy(two[0], (true[1:], two[1][1][1:]), MULTI_CLASS)
