"""The panel against scikit-learn and loops; what it refuses, and what it says of itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from medplus.analysis.panel import (
    compare_panels,
    plot_confusion,
    plot_net_benefit,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from medplus.analysis.panel.all_classes import panel_of
from medplus.errors import RunError, UsageError
from medplus.vocabulary import MULTI_LABEL
from tests.analysis.panel.conftest import make_run

GRADES = ["none", "mild", "severe"]


@pytest.mark.parametrize("task", ["multi-class", "ordinal-regression"])
def test_every_class_is_set_against_the_rest(task, panel_with):
    found = panel_with(GRADES, task)
    true, score = found.predictions["test_true"][:, 0], found.predictions["test_score"]
    assert (found.confusion == confusion_matrix(true, score.argmax(axis=1))).all()
    for i, one in enumerate(found.classes):
        assert one.auc.value == pytest.approx(roc_auc_score(true == i, score[:, i]))
        assert one.auc.low < one.auc.value < one.auc.high
        assert one.average_precision == pytest.approx(
            average_precision_score(true == i, score[:, i])
        )
        called = score.argmax(axis=1) == i
        assert one.points["as predicted"].tp == ((true == i) & called).sum()


def test_labels_are_decided_one_by_one_at_one_half(panel_with):
    found = panel_with(["mass", "fluid"], MULTI_LABEL)
    assert found.confusion is None
    for i, one in enumerate(found.classes):
        true, score = found.predictions["test_true"][:, i], found.predictions["test_score"][:, i]
        point = one.points["as predicted"]
        assert (point.tp, point.fp) == (
            (true * (score > 0.5)).sum(),
            ((1 - true) * (score > 0.5)).sum(),
        )


def test_thresholds_are_chosen_on_val_and_applied_to_test(panel_with):
    found = panel_with(positive="ill")
    val_ill = found.predictions["val_true"][:, 0] == 0
    val_score = 1 - found.predictions["val_score"][:, 1].astype(float)
    point = found.classes[0].points["specificity ≥ 90 % on val"]
    assert (val_score[~val_ill] < point.threshold).mean() >= 0.9
    one = found.classes[0]
    assert point.tp == sum(
        is_ill and score >= point.threshold
        for is_ill, score in zip(one.target, one.score, strict=True)
    )


def test_a_binary_class_is_never_assumed_to_be_the_one_that_matters(panel_with):
    both = panel_with()
    assert [one.name for one in both.classes] == ["ill", "well"]
    assert any("--positive 'ill'" in note for note in both.notes)
    assert [one.name for one in panel_with(positive="ill").classes] == ["ill"]
    sensitivity = both.classes[0].points["as predicted"].sensitivity
    assert sensitivity == both.classes[1].points["as predicted"].specificity


def test_predictive_values_are_at_the_prevalence_that_is_stated(panel_with):
    own = panel_with(positive="ill").classes[0].points["as predicted"]
    rare = panel_with(positive="ill", prevalence=0.01).classes[0].points["as predicted"]
    assert rare.sensitivity == own.sensitivity
    odds = 0.01 / 0.99 * own.sensitivity.value / (1 - own.specificity.value)
    assert rare.ppv.value == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"positive": "il"}, "no such class (it has 'ill', 'well'); did you mean 'ill'?"),
        ({"prevalence": 0.1}, "name it with --positive ('ill', 'well')"),
        ({"positive": "ill", "prevalence": 1.5}, "must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_answered_is_refused(asked, words, panel_with):
    with pytest.raises(UsageError) as refused:
        panel_with(**asked)
    assert words in str(refused.value)


def test_a_run_without_val_has_no_thresholds_and_says_so():
    record, predictions = make_run(["ill", "well"], "binary-class")
    test_only = {name: found for name, found in predictions.items() if name.startswith("test")}
    found = panel_of(record, test_only)
    assert list(found.classes[0].points) == ["as predicted"]
    assert found.temperature is None
    assert any("no predictions of val" in note for note in found.notes)


def test_few_scores_are_told_where_images_are_many():
    record, predictions = make_run(["ill", "well"], "binary-class", n=(12, 12))
    assert "as votes do" not in str(panel_of(record, predictions).notes)
    predictions["test_score"] = np.round(predictions["test_score"])
    assert "Scores take only 2 values, as votes do" in str(panel_of(record, predictions).notes)


def test_a_run_without_test_is_refused():
    record, predictions = make_run(["ill", "well"], "binary-class")
    with pytest.raises(RunError, match="no predictions of test"):
        panel_of(record, {"val_score": predictions["val_score"]})


def test_a_class_without_test_images_has_no_numbers(panel_with):
    found = panel_with(GRADES, "multi-class", n=(80, 1))
    absent = [one for one in found.classes if not one.defined]
    assert absent and all(one.auc.to_dict() is None for one in absent)
    assert any("no images of" in note for note in found.notes)


def test_temperature_is_fitted_on_val_and_lowers_the_error_of_scores_too_sure():
    record, predictions = make_run(GRADES, "multi-class", n=(600, 600))
    sure = {
        name: found**4 / (found**4).sum(axis=1, keepdims=True) if name.endswith("score") else found
        for name, found in predictions.items()
    }
    found = panel_of(record, sure)
    assert found.temperature > 2
    for name in ("ece", "brier"):
        assert found.calibration["scaled"][name] < found.calibration["as predicted"][name]


def test_the_document_is_json_without_nan(panel_with):
    found = panel_with(GRADES, "multi-class", n=(80, 1))
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_two_runs_are_compared_by_delong_on_the_same_images():
    record, good = make_run(["ill", "well"], "binary-class", clarity=3.0)
    poor = {**good, "test_score": np.random.default_rng(1).random((120, 2))}
    pairs = compare_panels(panel_of(record, good), panel_of(record, poor))
    assert [pair.name for pair in pairs] == ["ill"]
    assert pairs[0].found.p_value < 0.001
    assert pairs[0].found.difference.value == pytest.approx(
        pairs[0].first.value - pairs[0].second.value
    )


def test_intervals_are_over_patients_where_they_are_known():
    record, images = make_run(["ill", "well"], "binary-class")
    patients = {**images, "test_group": np.repeat(np.arange(12), 10).astype(str)}
    for name in ("test_true", "test_score"):
        patients[name] = np.repeat(images[name][:12], 10, axis=0)
    as_images = {**patients}
    del as_images["test_group"]
    wide = panel_of(record, patients).classes[0]
    narrow = panel_of(record, as_images).classes[0]
    assert wide.auc.value == narrow.auc.value
    assert wide.auc.high - wide.auc.low > 1.5 * (narrow.auc.high - narrow.auc.low)


def test_runs_on_other_images_are_not_compared():
    record, one = make_run(["ill", "well"], "binary-class")
    other = {**one, "test_index": one["test_index"] + 1}
    with pytest.raises(RunError, match="not of the same test images"):
        compare_panels(panel_of(record, one), panel_of(record, other))


def test_curves_are_drawn_into_the_axes_that_are_given(panel_with):
    from matplotlib.figure import Figure

    found = panel_with(positive="ill")
    ax = Figure().add_subplot()
    assert plot_roc(found, ax) is ax
    curve = next(line for line in ax.lines if line.get_label().startswith("ill"))
    np.testing.assert_allclose(
        np.column_stack(curve.get_data()), np.column_stack(found.classes[0].roc())
    )


@pytest.mark.parametrize("task", ["binary-class", "multi-class", MULTI_LABEL])
def test_every_curve_has_axes_of_its_own(task, panel_with):
    found = panel_with(["ill", "well"] if task == "binary-class" else GRADES, task)
    plots = [plot_roc, plot_precision_recall, plot_net_benefit, plot_reliability]
    for plot in plots if task == MULTI_LABEL else [*plots, plot_confusion]:
        assert plot(found).figure is not None
    assert "temperature" in plot_reliability(found, scaled=True).get_title(loc="left")
