"""What heads share: the data of a store, and what their plans and records tell of it."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError, StoreError
from medplus.heads.features import HeldFeatures
from medplus.heads.stored import (
    StoredSplit,
    open_stores,
    plan_head,
    read_split,
    read_splits,
)
from medplus.run.record import Provenance
from medplus.run.scoring import check_trainable
from medplus.vocabulary import MULTI_LABEL

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
    split = StoredSplit(y, np.arange(len(y)), HeldFeatures(np.zeros((len(y), 2), "f4")))
    with pytest.raises(RunError, match=f"all {len(y)} train labels are class {labels[0]}"):
        check_trainable(str(store.path), split.labels, store.info.task)


def test_multi_label_data_may_lack_a_label(write_store):
    flags = [np.zeros((n, 3), "u1") for n in (4, 2, 2)]
    store = write_store([np.zeros((n, 2), "f4") for n in (4, 2, 2)], flags, task=MULTI_LABEL)
    check_trainable(str(store.path), read_split(store, "train").labels, MULTI_LABEL)


def test_train_and_what_is_scored_are_read(store):
    assert {split: len(own.labels) for split, own in read_splits(store).items()} == {
        "train": 6, "val": 4, "test": 5,
    }  # fmt: skip


# --- plans ------------------------------------------------------------------------------------


def test_a_plan_holds_the_store_and_its_place_follows_from_it(store, tmp_path):
    plan = plan_head(store, "knn", "k5-l2-majority", {"k": 5}, {"k": 5}, tmp_path)
    assert plan.config == {"protocol": "knn", "store": store.key, "k": 5}
    assert plan.folder.parent == tmp_path / "knn/toy/28/toynet"


def test_its_record_tells_of_the_store(store, tmp_path):
    plan = plan_head(store, "knn", "name", {"k": 5}, {"k": 5}, tmp_path)
    record = plan.record({"val": {}, "test": {}}, 1.5, {"device": "cpu"})
    assert record.k == 5
    assert record.store.path == str(store.path)
    assert record.store_key == store.key
    assert Provenance.of(record) == Provenance.of(store.info)
