"""Metrics against medmnist's evaluator, scikit-learn, and plain loops."""

import json
import math
import subprocess
import sys
import tracemalloc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medmnist.evaluator import getACC, getAUC
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    roc_auc_score,
)

from medplus import metrics
from medplus.errors import RunError
from medplus.vocabulary import MULTI_LABEL, Task

TASKS = get_args(Task)
ONE_LABEL = [task for task in TASKS if task != MULTI_LABEL]
every_task = pytest.mark.parametrize("task", TASKS)
ordinary = settings(max_examples=40, deadline=None)
degenerate_splits = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning",
    "ignore:y_pred contains classes not in y_true:UserWarning",
    "ignore:A single label was found:UserWarning",
    "ignore:No positive class found:UserWarning",
    "ignore:invalid value encountered:RuntimeWarning",
)


@st.composite
def cases(draw, task, complete=False):
    """Labels and probabilities on a coarse or fine grid; `complete`: every AUC is defined."""
    width = 2 if task == "binary-class" else draw(st.integers(2, 6))
    n = draw(st.integers(2, 40))
    seen = np.arange(width)
    if task == MULTI_LABEL:
        y_true = draw(arrays(np.uint8, (n, width), elements=st.integers(0, 1)))
        seen = np.stack([np.zeros(width), np.ones(width)])
    else:
        y_true = draw(arrays(np.uint8, (n, 1), elements=st.integers(0, width - 1)))
        seen = np.arange(width)[:, None]
    if complete:
        y_true = np.concatenate([seen.astype(np.uint8), y_true])
    steps = draw(st.sampled_from([1, 4, 15, 1000]))
    grid = arrays(np.int64, (len(y_true), width), elements=st.integers(0, steps))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return y_true, (draw(grid) / steps).astype(dtype)


def rare_class_split(task, n=60, seed=0):
    """Scores with ties and signal, where the last class or label is seen twice only."""
    rng = np.random.default_rng(seed)
    width = 2 if task == "binary-class" else 4
    if task == MULTI_LABEL:
        y_true = rng.integers(0, 2, (n, width))
        y_true[:, -1] = 0
        y_true[:2, -1] = 1
        signal = y_true
    else:
        y_true = rng.integers(0, width - 1, n)
        y_true[:2] = width - 1
        signal = np.eye(width)[y_true]
    return y_true, np.round((rng.random((n, width)) + 0.5 * signal) / 1.5, 1)


def predicted_labels(y_score, task):
    if task == MULTI_LABEL:
        return y_score > 0.5
    return y_score[:, -1] > 0.5 if task == "binary-class" else y_score.argmax(axis=1)


# --- the evaluator ------------------------------------------------------------------------------


@every_task
def test_accuracy_and_auc_equal_the_evaluators(task):
    @ordinary
    @given(cases(task, complete=True))
    def check(case):
        y_true, y_score = case
        acc = metrics.accuracy(y_true, y_score, task)
        assert acc == pytest.approx(getACC(y_true, y_score, task), abs=1e-12)
        auc = metrics.auc(y_true, y_score, task)
        assert auc == pytest.approx(getAUC(y_true, y_score, task), abs=1e-12)
        assert metrics.auc_present(y_true, y_score, task) == auc

    check()


@degenerate_splits
@every_task
def test_auc_is_nan_exactly_where_the_evaluators_is(task):
    defined = set()

    @ordinary
    @given(cases(task))
    def check(case):
        y_true, y_score = case
        expected = getAUC(y_true, y_score, task)
        auc = metrics.auc(y_true, y_score, task)
        np.testing.assert_allclose(auc, expected, atol=1e-12)
        missing = metrics.check(y_true, y_score, task).missing_classes
        assert math.isnan(auc) == bool(missing)
        defined.add(not missing)

    check()
    assert False in defined


def test_a_score_of_exactly_one_half_is_not_a_positive():
    assert metrics.accuracy([1, 0], [0.5, 0.5], "binary-class") == 0.5
    assert metrics.accuracy([[1, 0]], [[0.5, 0.5]], MULTI_LABEL) == 0.5


def test_the_first_of_equal_scores_wins():
    assert metrics.accuracy([0, 1], [[0.5, 0.5], [0.5, 0.5]], "multi-class") == 0.5


def test_binary_scores_may_be_two_columns_one_column_or_a_vector():
    y_true, y_score = rare_class_split("binary-class", seed=3)
    expected = metrics.score(y_true, y_score, "binary-class")
    assert expected == metrics.score(y_true, y_score[:, 1:], "binary-class")
    assert expected == metrics.score(y_true[:, None], y_score[:, 1], "binary-class")
    assert expected != metrics.score(y_true, y_score[:, 0], "binary-class")


# --- scikit-learn -------------------------------------------------------------------------------


@degenerate_splits
@every_task
def test_balanced_accuracy_and_macro_f1_equal_scikit_learns(task):
    @ordinary
    @given(cases(task))
    def check(case):
        y_true, y_score = case
        guess = predicted_labels(y_score, task)
        if task == MULTI_LABEL:
            columns = zip(y_true.T, guess.T, strict=True)
            balanced = np.mean([balanced_accuracy_score(*column) for column in columns])
            f1 = f1_score(y_true, guess.astype(int), average="macro", zero_division=0)
        else:
            balanced = balanced_accuracy_score(y_true[:, 0], guess)
            f1 = f1_score(y_true[:, 0], guess, average="macro", zero_division=0)
        assert metrics.balanced_accuracy(y_true, y_score, task) == pytest.approx(balanced)
        assert metrics.macro_f1(y_true, y_score, task) == pytest.approx(f1)

    check()


@degenerate_splits
@ordinary
@given(cases("ordinal-regression"))
def test_qwk_equals_scikit_learns(case):
    y_true, y_score = case
    guess, classes = y_score.argmax(axis=1), range(y_score.shape[1])
    expected = cohen_kappa_score(y_true[:, 0], guess, weights="quadratic", labels=classes)
    np.testing.assert_allclose(metrics.qwk(y_true, y_score), expected, atol=1e-12)


def test_qwk_measures_distance_across_a_class_that_does_not_occur():
    near = metrics.qwk([0, 3, 3, 0], np.eye(4)[[0, 3, 3, 1]])
    far = metrics.qwk([0, 3, 3, 0], np.eye(4)[[0, 3, 3, 3]])
    assert near > far


@ordinary
@given(cases(MULTI_LABEL, complete=True))
def test_map_equals_the_mean_of_scikit_learns_average_precisions(case):
    y_true, y_score = case
    expected = average_precision_score(y_true, y_score, average="macro")
    assert metrics.mean_average_precision(y_true, y_score) == pytest.approx(expected)


def test_map_leaves_out_labels_without_a_positive():
    y_true, y_score = rare_class_split(MULTI_LABEL)
    y_true[:, -1] = 0
    expected = average_precision_score(y_true[:, :-1], y_score[:, :-1], average="macro")
    assert metrics.mean_average_precision(y_true, y_score) == pytest.approx(expected)
    assert math.isnan(metrics.mean_average_precision(np.zeros((3, 2), int), np.zeros((3, 2))))


@every_task
def test_auc_per_class_equals_scikit_learns_one_against_the_rest(task):
    y_true, y_score = rare_class_split(task)
    if task == "binary-class":
        expected = [roc_auc_score(y_true, y_score[:, 1])]
    else:
        targets = y_true if task == MULTI_LABEL else np.eye(4)[y_true]
        expected = roc_auc_score(targets, y_score, average=None)
    np.testing.assert_allclose(metrics.auc_per_class(y_true, y_score, task), expected)


# --- calibration --------------------------------------------------------------------------------


def looped_ece(confidence, outcome):
    total = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        inside |= (confidence == 0) & (index == 0)
        if inside.any():
            total += inside.mean() * abs(outcome[inside].mean() - confidence[inside].mean())
    return total


@every_task
def test_ece_equals_a_loop_over_bins(task):
    @ordinary
    @given(cases(task))
    def check(case):
        y_true, y_score = case[0], case[1].astype(np.float64)
        if task == MULTI_LABEL:
            columns = zip(y_score.T, y_true.T, strict=True)
            expected = np.mean([looped_ece(*column) for column in columns])
        else:
            p = y_score[:, -1]
            confidence = np.maximum(p, 1 - p) if task == "binary-class" else y_score.max(axis=1)
            expected = looped_ece(confidence, predicted_labels(y_score, task) == y_true[:, 0])
        assert metrics.ece(y_true, y_score, task) == pytest.approx(expected, abs=1e-12)

    check()


def test_ece_of_a_known_overconfident_binary_model():
    assert metrics.ece([1, 1, 0, 0], [0.9, 0.9, 0.9, 0.9], "binary-class") == pytest.approx(0.4)
    assert metrics.ece([1, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], "binary-class") == pytest.approx(0.15)


def test_ece_bins_include_their_upper_edge():
    separate = (abs(1 - 3 / 15) + abs(0 - 0.25)) / 2
    assert metrics.ece([[1], [0]], [[3 / 15], [0.25]], MULTI_LABEL) == pytest.approx(separate)


def test_ece_forgives_rounding_but_not_logits():
    assert metrics.ece([1, 0], [1.00001, -0.00001], "binary-class") == 0.0
    with pytest.raises(RunError, match=r"ranges from -1 to 3\.5.*softmax"):
        metrics.ece([1, 0], [3.5, -1.0], "binary-class")


# --- bootstrap ----------------------------------------------------------------------------------


def counts_of(n, n_resamples, seed):
    return np.concatenate(list(metrics.resample_counts(n, n_resamples, seed)), axis=1)


def explicit_replicate(y_true, y_score, task):
    """Accuracy and AUC over the classes present, of one resample written out row by row."""
    acc = getACC(y_true, y_score, task)
    if task == MULTI_LABEL:
        targets = y_true
    elif task == "binary-class":
        targets, y_score = y_true[:, None], y_score[:, -1:]
    else:
        targets = np.eye(y_score.shape[1], dtype=int)[y_true]
    present = [j for j, target in enumerate(targets.T) if 0 < target.sum() < len(target)]
    aucs = [roc_auc_score(targets[:, j], y_score[:, j]) for j in present]
    return acc, np.mean(aucs) if aucs else np.nan, len(present)


@every_task
@pytest.mark.parametrize("seed", [0, 7])
def test_replicates_equal_explicit_resampling(task, seed):
    y_true, y_score = rare_class_split(task, seed=seed)
    n_resamples = 100
    rows = [np.repeat(np.arange(60), c) for c in counts_of(60, n_resamples, seed).T]
    expected = [explicit_replicate(y_true[r], y_score[r], task) for r in rows]
    acc, auc, n_present = (np.array(column) for column in zip(*expected, strict=True))
    assert len(set(n_present)) > 1, "the split is meant to lose its rare class now and then"
    found = metrics.replicates(metrics.check(y_true, y_score, task), n_resamples, seed)
    np.testing.assert_allclose(found.acc, acc, rtol=1e-12)
    np.testing.assert_allclose(found.auc, auc, rtol=1e-6)


@every_task
def test_replicates_equal_explicit_resampling_on_arbitrary_scores(task):
    @settings(max_examples=15, deadline=None)
    @given(cases(task))
    def check(case):
        y_true, y_score = case
        flat = y_true if task == MULTI_LABEL else y_true[:, 0]
        found = metrics.replicates(metrics.check(y_true, y_score, task), 5, 1)
        for index, counts in enumerate(counts_of(len(flat), 5, 1).T):
            rows = np.repeat(np.arange(len(flat)), counts)
            acc, auc, _ = explicit_replicate(flat[rows], y_score[rows], task)
            np.testing.assert_allclose(found.acc[index], acc)
            np.testing.assert_allclose(found.auc[index], auc, rtol=1e-6, atol=1e-7)

    check()


@every_task
def test_replicates_of_some_samples_are_those_of_what_each_resample_has_of_them(task):
    y_true, y_score = rare_class_split(task)
    keep = np.arange(60) % 3 > 0
    found = metrics.replicates(metrics.check(y_true, y_score, task), 5, 1, keep=keep)
    rows = [np.repeat(np.arange(60), c * keep) for c in counts_of(60, 5, 1).T]
    expected = [explicit_replicate(y_true[r], y_score[r], task)[:2] for r in rows]
    np.testing.assert_allclose(np.column_stack([found.acc, found.auc]), expected, rtol=1e-6)


def test_replicates_stay_exact_on_a_large_split_of_many_blocks():
    rng = np.random.default_rng(0)
    n, n_resamples = 100_000, 20
    y_true = (rng.random(n) < 0.7).astype(int)
    y_score = np.round(rng.random(n) * 0.8 + 0.2 * y_true, 4)
    found = metrics.replicates(metrics.check(y_true, y_score, "binary-class"), n_resamples)
    blocks = list(metrics.resample_counts(n, n_resamples))
    assert len(blocks) == 2
    for index, counts in [(0, blocks[0][:, 0]), (19, blocks[1][:, -1])]:
        expected = roc_auc_score(y_true, y_score, sample_weight=counts)
        assert found.auc[index] == pytest.approx(expected, abs=1e-8)
        assert found.acc[index] == np.average((y_score > 0.5) == y_true, weights=counts)


def test_groups_are_drawn_whole():
    groups = np.repeat(["a", "b", "c", "d"], [1, 2, 3, 4])
    counts = np.concatenate(list(metrics.resample_counts(10, 300, groups=groups)), axis=1)
    firsts = np.array([0, 1, 3, 6])
    np.testing.assert_array_equal(counts, np.repeat(counts[firsts], [1, 2, 3, 4], axis=0))
    assert (counts[firsts].sum(axis=0) == 4).all()
    y_true, y_score = np.arange(10) % 2, np.linspace(0.1, 0.9, 10)
    cases = metrics.check(y_true, y_score, "binary-class")
    found = metrics.replicates(cases, 300, groups=groups)
    for index in (0, 299):
        rows = np.repeat(np.arange(10), counts[:, index])
        acc, auc, _ = explicit_replicate(y_true[rows], y_score[rows, None], "binary-class")
        assert found.acc[index] == pytest.approx(acc)
        assert found.auc[index] == pytest.approx(auc, nan_ok=True)


def test_counts_are_multinomial_draws():
    n, n_resamples = 500, 3000
    counts = counts_of(n, n_resamples, 0).astype(np.int64)
    assert counts.shape == (n, n_resamples)
    assert (counts.sum(axis=0) == n).all()
    np.testing.assert_allclose(counts.mean(axis=1), 1.0, atol=0.1)
    np.testing.assert_allclose(counts.var(), 1 - 1 / n, rtol=0.01)
    assert len(np.unique(counts, axis=1).T) == n_resamples


def test_same_seed_same_resamples_and_fewer_are_the_first_of_more():
    many = counts_of(40, 2500, 3)
    np.testing.assert_array_equal(many[:, :1100], counts_of(40, 1100, 3))
    assert (many[:, :1100] != counts_of(40, 1100, 4)).any()


def test_shared_counts_cannot_be_written_to():
    (block,) = metrics.resample_counts(10, 5)
    assert not block.flags.writeable


def test_bootstrap_of_the_largest_test_split_stays_below_200_megabytes():
    rng = np.random.default_rng(0)
    y_true, y_score = rng.integers(0, 8, 47_280), rng.random((47_280, 8))
    tracemalloc.start()
    metrics.replicates(metrics.check(y_true, y_score, "multi-class"), 200, seed=11)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


# --- splits that lack something -----------------------------------------------------------------


def test_missing_class_is_said_and_the_others_are_averaged():
    y_true, y_score = rare_class_split("multi-class")
    y_true[y_true == 3] = 0
    result = metrics.score(y_true, y_score, "multi-class")
    per_class = [roc_auc_score(y_true == c, y_score[:, c]) for c in range(3)]
    assert math.isnan(result.auc)
    assert result.missing_classes == (3,)
    assert result.auc_present == pytest.approx(np.mean(per_class))
    assert result.auc_ci95[0] < result.auc_present < result.auc_ci95[1]


def test_label_that_every_sample_has_is_missing_a_negative():
    y_true, y_score = rare_class_split(MULTI_LABEL)
    y_true[:, 0], y_true[:, 2] = 1, 0
    result = metrics.score(y_true, y_score, MULTI_LABEL)
    assert result.missing_classes == (0, 2)
    expected = roc_auc_score(y_true[:, [1, 3]], y_score[:, [1, 3]])
    assert result.auc_present == pytest.approx(expected)


@pytest.mark.parametrize("task", ONE_LABEL)
def test_single_class_split_has_no_auc_but_everything_else(task):
    y_score = np.eye(2)[[1, 1, 0, 1]]
    result = metrics.score([1, 1, 1, 1], y_score, task)
    assert (result.acc, result.balanced_accuracy) == (0.75, 0.75)
    assert math.isnan(result.auc)
    assert math.isnan(result.auc_present)
    assert result.missing_classes == (0,)
    assert result.auc_ci95 is None
    assert result.acc_ci95[0] < 0.75 < result.acc_ci95[1]


@pytest.mark.parametrize(
    ("task", "y_true", "y_score", "missing"),
    [
        ("multi-class", [[2]], [[0.1, 0.2, 0.7]], (0, 1)),
        ("ordinal-regression", [[2]], [[0.1, 0.2, 0.7]], (0, 1)),
        ("binary-class", [[1]], [[0.1, 0.9]], (0,)),
        ("binary-class", [0], [0.1], (1,)),
        (MULTI_LABEL, [[1, 0]], [[0.9, 0.1]], (0, 1)),
    ],
)
def test_one_row_is_scored(task, y_true, y_score, missing):
    result = metrics.score(y_true, y_score, task)
    assert (result.n, result.acc, result.acc_ci95[1]) == (1, 1.0, 1.0)
    assert result.acc_ci95[0] < 0.3
    assert result.missing_classes == missing
    assert math.isnan(result.auc)


# --- the record ---------------------------------------------------------------------------------


@every_task
def test_score_gathers_the_single_functions(task):
    case = (*rare_class_split(task), task)
    result = metrics.score(*case)
    for name in ("balanced_accuracy", "macro_f1", "ece", "auc", "auc_present"):
        assert getattr(result, name) == getattr(metrics, name)(*case)
    assert result.acc == metrics.accuracy(*case)
    assert result.qwk == (metrics.qwk(*case[:2]) if task == "ordinal-regression" else None)
    assert result.map == (
        metrics.mean_average_precision(*case[:2]) if task == MULTI_LABEL else None
    )


def test_record_of_a_complete_split_has_the_metrics_of_its_task():
    always = {"acc", "auc", "balanced_accuracy", "macro_f1", "ece", "n"}
    intervals = {"acc_ci95", "auc_ci95"}
    extra = {"ordinal-regression": {"qwk"}, MULTI_LABEL: {"map"}}
    for task in TASKS:
        case = (*rare_class_split(task), task)
        record = metrics.score(*case).to_dict()
        assert set(record) == always | intervals | extra.get(task, set())
        grouped = metrics.score(*case, groups=np.arange(60) // 3).to_dict()
        assert set(grouped) == set(record) | {"n_groups"}


def test_record_survives_json_and_says_what_is_missing():
    result = metrics.score([1, 1], np.eye(3)[[1, 1]], "ordinal-regression")
    record = result.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["missing_classes"] == [0, 2]
    assert record["auc"] is record["auc_present"] is record["qwk"] is None
    assert record["auc_ci95"] is None


# --- input that cannot be scored ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("y_true", "y_score", "task", "message"),
    [
        ([0, 1], np.eye(3), "multi-class", "y_true has 2 rows, y_score 3"),
        ([], np.empty((0, 3)), "multi-class", "empty"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "multi-class", "nan at row 0, column 1"),
        ([0, 1], [0.5, np.inf], "binary-class", "inf at row 1, column 0"),
        ([0, 3], np.eye(3)[:2], "multi-class", "from 0 to 3.*between 0 and 2"),
        ([-1, 1], np.eye(3)[:2], "ordinal-regression", "from -1 to 1"),
        ([0, 2], [0.1, 0.9], "binary-class", "between 0 and 1"),
        ([[0, 2]], [[0.1, 0.9]], MULTI_LABEL, "between 0 and 1"),
        ([0.5, 1.0], [0.1, 0.9], "binary-class", "not whole numbers"),
        (["a", "b"], [0.1, 0.9], "binary-class", "must be integers"),
        ([0, 1], ["a", "b"], "binary-class", "not a table of numbers"),
        ([0, 1], np.eye(3)[:2], "binary-class", "3 columns"),
        ([0, 0], [0.1, 0.9], "multi-class", "one column"),
        ([[0, 1], [1, 0]], np.eye(2), "multi-class", "2 label columns"),
        ([0, 1], np.eye(2), MULTI_LABEL, r"shape \(2, 1\), y_score \(2, 2\)"),
        ([0, 1], np.zeros((2, 2, 2)), "multi-class", r"shape \(2, 2, 2\)"),
        ([0, 1], np.eye(2), "segmentation", "Unknown task 'segmentation'"),
    ],
)
def test_unusable_input_is_refused_in_a_clear_sentence(y_true, y_score, task, message):
    with pytest.raises(RunError, match=message):
        metrics.score(y_true, y_score, task)


def test_whole_numbers_stored_as_floats_are_labels():
    y_true, y_score = rare_class_split(MULTI_LABEL)
    as_floats = metrics.score(y_true.astype(np.float32), y_score, MULTI_LABEL)
    assert as_floats == metrics.score(y_true, y_score, MULTI_LABEL)


def test_import_is_light():
    code = "import sys, medplus.metrics; print({'scipy', 'sklearn', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
