"""From predictions to metrics per split and to what predictions.npz holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC

from medplus.errors import RunError
from medplus.run.scoring import EVALUATED, Samples, score_splits
from medplus.vocabulary import MULTI_LABEL, SPLITS

N = {"train": 4, "val": 40, "test": 50}


def predictions_of(task, dtype="f4", evaluated=EVALUATED):
    """Samples and scores per split; labels that every class appears in."""
    rng = np.random.default_rng(0)
    classes = 2 if task == "binary-class" else 3
    truth, scores = {}, {}
    for split in SPLITS:
        n = N[split]
        if task == MULTI_LABEL:
            truth[split] = np.stack([np.arange(n) % k == 0 for k in (2, 3, 5)], 1).astype("u1")
            scores[split] = rng.random((n, classes)).astype(dtype)
        else:
            truth[split] = (np.arange(n)[:, None] % classes).astype("u1")
            scores[split] = rng.dirichlet(np.ones(classes), n).astype(dtype)
    samples = {split: Samples(truth[split], np.arange(N[split]) + 7) for split in SPLITS}
    return samples, {split: scores[split] for split in evaluated}


@pytest.mark.parametrize("task", ["multi-class", "binary-class", "ordinal-regression", MULTI_LABEL])
def test_val_and_test_are_scored_as_medmnist_scores_them(task):
    samples, scores = predictions_of(task)
    metrics, _ = score_splits(samples, scores, task)
    assert list(metrics) == ["val", "test"]
    for split in metrics:
        assert metrics[split]["acc"] == pytest.approx(
            getACC(samples[split].labels, scores[split], task)
        )
        assert metrics[split]["auc"] == pytest.approx(
            getAUC(samples[split].labels, scores[split], task)
        )
        assert metrics[split]["n"] == N[split]


def test_predictions_are_kept_with_truth_and_index():
    samples, scores = predictions_of("multi-class")
    _, kept = score_splits(samples, scores, "multi-class")
    expected = {f"{s}_{what}" for s in ("val", "test") for what in ("score", "true", "index")}
    assert set(kept) == expected
    for split in ("val", "test"):
        np.testing.assert_array_equal(kept[f"{split}_score"], scores[split])
        np.testing.assert_array_equal(kept[f"{split}_true"], samples[split].labels)
        np.testing.assert_array_equal(kept[f"{split}_index"], samples[split].index)


def test_names_are_kept_where_they_tell_more_than_the_index():
    samples, scores = predictions_of("multi-class")
    names = {"val": ["a.png"] * 40, "test": [f"test/{i}" for i in samples["test"].index]}
    named = {s: Samples(samples[s].labels, samples[s].index, names=names[s]) for s in names}
    _, kept = score_splits(named, scores, "multi-class")
    assert kept["val_name"].tolist() == names["val"]
    assert "test_name" not in kept


@pytest.mark.parametrize("evaluated", [("test",), ("val",), ("train", "test"), SPLITS])
def test_only_the_splits_asked_for_are_scored(evaluated):
    samples, scores = predictions_of("multi-class", evaluated=evaluated)
    metrics, kept = score_splits(samples, scores, "multi-class")
    assert tuple(metrics) == evaluated
    assert {name.partition("_")[0] for name in kept} == set(evaluated)


def test_intervals_are_over_the_groups_that_predictions_keep():
    samples, scores = predictions_of("multi-class")
    patients = [f"patient {i // 5}" for i in range(N["test"])]
    grouped = {**samples, "test": replace(samples["test"], groups=patients)}
    metrics, kept = score_splits(grouped, scores, "multi-class")
    assert kept["test_group"].tolist() == patients
    assert "val_group" not in kept
    assert metrics["test"]["n_groups"] == 10
    alone = score_splits(samples, scores, "multi-class")[0]["test"]
    assert metrics["test"]["acc"] == alone["acc"]
    assert metrics["test"]["acc_ci95"] != alone["acc_ci95"]


def test_scores_that_are_no_probabilities_are_refused():
    samples, scores = predictions_of("multi-class")
    scores["val"] = scores["val"] * 3
    with pytest.raises(RunError):
        score_splits(samples, scores, "multi-class")
