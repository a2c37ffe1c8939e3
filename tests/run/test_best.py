"""The best run of a group, by its val scores alone."""

from __future__ import annotations

import pytest

from medplus.run.best import select_best
from medplus.run.record import StoreFacts
from tests import records


def make_record(acc, auc=0.5, seed=1, test_acc=0.5, **changes):
    metrics = {"val": {"acc": acc, "auc": auc}, "test": {"acc": test_acc, "auc": test_acc}}
    return records.make_record(metrics=metrics, seed=seed).model_copy(update=changes)


def selected(made):
    return [i for i, record in enumerate(select_best(made)) if record.selected]


def test_the_best_val_accuracy_is_selected():
    made = [make_record(a) for a in (0.5, 0.7, 0.6)]
    assert selected(made) == [1]


def test_equal_accuracies_are_decided_by_auc_then_by_order():
    assert selected([make_record(0.7, 0.5), make_record(0.7, 0.8), make_record(0.7, 0.8)]) == [1]


def test_an_undefined_auc_loses_a_tie():
    assert selected([make_record(0.7, None), make_record(0.7, 0.1)]) == [1]
    assert selected([make_record(0.7, None), make_record(0.6, 0.9)]) == [0]


def test_test_scores_take_no_part():
    made = [make_record(0.7, test_acc=0.1), make_record(0.6, test_acc=0.9)]
    assert selected(made) == [0]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"dataset": "x"},
        {"size": 64},
        {"backbone": "x"},
        {"weights": "x"},
        {"protocol": "finetune"},
        {"store": StoreFacts(path="", key="x")},
        {"store": None},
    ],
)
def test_runs_compete_only_within_dataset_size_backbone_store_and_seed(other):
    rival = make_record(0.9)
    assert selected([make_record(0.7), rival]) == [1]
    assert selected([make_record(0.7), rival.model_copy(update=other)]) == [0, 1]


def test_runs_without_a_store_compete_among_themselves():
    made = [make_record(acc, protocol="finetune", store=None) for acc in (0.5, 0.7, 0.6)]
    assert selected(made) == [1]
