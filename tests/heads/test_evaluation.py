"""What heads share: identity of runs, scores of both splits, and selection on val alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
from medmnist.evaluator import getACC

from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError, StoreError
from medplus.heads.evaluation import (
    StoredSplit,
    check_trainable,
    open_stores,
    plan_run,
    read_split,
    score_stored,
    select_best,
)
from medplus.runs.record import config_hash
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def store(write_store):
    rng = np.random.default_rng(0)
    return write_store(
        [rng.normal(size=(n, 2)).astype("f4") for n in (6, 4, 5)],
        [np.arange(n) % 3 for n in (6, 4, 5)],
    )


# --- data -------------------------------------------------------------------------------------


def test_stores_may_be_given_open_or_by_path_one_or_several(store):
    for given in (store, store.path, str(store.path), [store], (s for s in [store.path])):
        [opened] = open_stores(given)
        assert isinstance(opened, EmbeddingStore)
        assert opened.path == store.path


def test_a_path_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no embedding store"):
        open_stores(tmp_path / "x.zarr")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_split_is_read_as_float32(dtype, write_store):
    values = [np.full((n, 2), 0.1, dtype) for n in (3, 2, 2)]
    store = write_store(values, [np.arange(n) for n in (3, 2, 2)], dtype=dtype)
    data = read_split(store, "train")
    assert data.embeddings.whole().dtype == np.float32
    np.testing.assert_array_equal(data.embeddings.whole(), values[0].astype("f4"))
    np.testing.assert_array_equal(data.labels, [[0], [1], [2]])
    np.testing.assert_array_equal(data.index, [0, 1, 2])


@pytest.mark.parametrize("labels", [[0, 0, 0], [2, 2]])
def test_a_single_class_is_not_trainable(labels, store):
    y = np.array(labels)[:, None]
    split = StoredSplit(np.zeros((len(y), 2), "f4"), y, np.arange(len(y)))
    with pytest.raises(RunError, match=f"all {len(y)} train labels are class {labels[0]}"):
        check_trainable(store, split)


def test_multi_label_data_may_lack_a_label(write_store):
    flags = [np.zeros((n, 3), "u1") for n in (4, 2, 2)]
    store = write_store([np.zeros((n, 2), "f4") for n in (4, 2, 2)], flags, task=MULTI_LABEL)
    check_trainable(store, read_split(store, "train"))


# --- plans ------------------------------------------------------------------------------------


def test_run_id_is_readable_and_ends_in_the_hash_of_its_config(store, tmp_path):
    plan = plan_run(store, "knn", "k5-l2-majority", {"k": 5}, {"k": 5}, tmp_path)
    assert plan.config == {"protocol": "knn", "store": store.key, "k": 5}
    assert re.fullmatch(r"k5-l2-majority-[0-9a-f]{8}", plan.folder.name)
    assert plan.folder.name.endswith(config_hash(plan.config))
    assert plan.folder.parent == tmp_path / "knn/toy/28/toynet"


@pytest.mark.parametrize(
    "other", [{"config": {"k": 6}}, {"protocol": "probe"}, {"config": {"k": 5, "vote": "x"}}]
)
def test_equal_configs_are_the_same_run_and_others_are_not(other, store, tmp_path):
    base = {"protocol": "knn", "config": {"k": 5}}

    def plan(protocol, config):
        return plan_run(store, protocol, "name", config, {}, tmp_path).folder

    assert plan(**base) == plan(**base)
    assert plan(**base).name != plan(**(base | other)).name


def test_record_tells_data_store_and_environment(store, tmp_path):
    plan = plan_run(store, "knn", "name", {"k": 5}, {"k": 5}, tmp_path)
    record = plan.record({"val": {}, "test": {}}, 1.5, {"device": "cpu"})
    assert (record.dataset, record.size, record.backbone) == ("toy", 28, "toynet")
    assert (record.task, record.n_classes, record.weights) == ("multi-class", 3, "none")
    assert record.store["path"] == str(store.path)
    assert record.store["key"] == store.key
    assert record.store["fit"] == "pad"
    assert {"medplus", "python", "torch", "numpy"} <= set(record.environment)
    assert record.path == str(plan.folder)
    assert plan.existing() is None


# --- scores -----------------------------------------------------------------------------------


def test_scores_of_a_store_go_with_its_labels_and_index():
    rng = np.random.default_rng(0)
    splits = {
        s: StoredSplit(np.zeros((n, 2), "f4"), rng.integers(0, 3, (n, 1)), np.arange(n) + 7)
        for s, n in zip(SPLITS, (4, 40, 50), strict=True)
    }
    scores = {s: rng.dirichlet([1, 1, 1], len(splits[s].labels)) for s in ("val", "test")}
    metrics, predictions = score_stored(splits, scores, "multi-class", bootstrap=20)
    assert set(metrics) == {"val", "test"}
    for split in ("val", "test"):
        expected = getACC(splits[split].labels, scores[split], "multi-class")
        assert metrics[split]["acc"] == pytest.approx(expected)
        np.testing.assert_array_equal(predictions[f"{split}_true"], splits[split].labels)
        np.testing.assert_array_equal(predictions[f"{split}_index"], splits[split].index)


# --- selection --------------------------------------------------------------------------------


@pytest.fixture
def make_record(store, tmp_path):
    """Return a function that makes a record from its val scores."""

    def make(acc, auc=0.5, seed=1, test_acc=0.5, **changes):
        plan = plan_run(store, "probe", "name", {"seed": seed}, {"seed": seed}, tmp_path)
        metrics = {"val": {"acc": acc, "auc": auc}, "test": {"acc": test_acc, "auc": test_acc}}
        return plan.record(metrics, 1.0, {}).model_copy(update=changes)

    return make


def selected(records):
    return [i for i, record in enumerate(select_best(records)) if record.selected]


def test_the_best_val_accuracy_is_selected(make_record):
    records = [make_record(a) for a in (0.5, 0.7, 0.6)]
    assert selected(records) == [1]


def test_equal_accuracies_are_decided_by_auc_then_by_order(make_record):
    assert selected([make_record(0.7, 0.5), make_record(0.7, 0.8), make_record(0.7, 0.8)]) == [1]


def test_an_undefined_auc_loses_a_tie(make_record):
    assert selected([make_record(0.7, None), make_record(0.7, 0.1)]) == [1]
    assert selected([make_record(0.7, None), make_record(0.6, 0.9)]) == [0]


def test_test_scores_take_no_part(make_record):
    records = [make_record(0.7, test_acc=0.1), make_record(0.6, test_acc=0.9)]
    assert selected(records) == [0]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"dataset": "x"},
        {"size": 64},
        {"backbone": "x"},
        {"weights": "x"},
        {"protocol": "finetune"},
        {"store": {"key": "x"}},
        {"store": None},
    ],
)
def test_runs_compete_only_within_dataset_size_backbone_store_and_seed(other, make_record):
    rival = make_record(0.9)
    assert selected([make_record(0.7), rival]) == [1]
    assert selected([make_record(0.7), rival.model_copy(update=other)]) == [0, 1]


def test_runs_without_a_store_compete_among_themselves(make_record):
    records = [make_record(acc, protocol="finetune", store=None) for acc in (0.5, 0.7, 0.6)]
    assert selected(records) == [1]
