"""A split as torch's dataset: the rows and labels of the store, however a loader asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import DataLoader, Subset, TensorDataset

import medplus
from medplus.embeddings.view import View
from medplus.errors import StoreError, UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS

SIZES = (2300, 5, 3)


@pytest.fixture(scope="module")
def store(write_store):
    rng = np.random.default_rng(0)
    embeddings = [rng.normal(size=(n, 7)).astype("f4") for n in SIZES]
    return write_store(embeddings, [rng.integers(0, 3, n, np.uint8) for n in SIZES])


def in_memory(store, split="train"):
    labels = torch.from_numpy(store.labels(split)[:, 0]).long()
    return TensorDataset(torch.from_numpy(store.embeddings(split)), labels)


def batches(dataset, **how):
    generator = torch.Generator().manual_seed(1)
    return list(DataLoader(dataset, batch_size=300, generator=generator, **how))


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_gives_what_it_gives_of_tensors_in_memory(hold, shuffle, store):
    found = batches(medplus.StoreDataset(store, "train", hold=hold), shuffle=shuffle)
    expected = batches(in_memory(store), shuffle=shuffle)
    assert len(found) == len(expected) == 8
    for batch, other in zip(found, expected, strict=True):
        torch.testing.assert_close(batch, other, rtol=0, atol=0)
        assert F.cross_entropy(batch[0][:, :3], batch[1]).isfinite()


@pytest.mark.parametrize(
    ("hold", "context"),
    [(True, "fork"), pytest.param(False, "spawn", marks=pytest.mark.extensive)],
)
def test_workers_give_the_same(hold, context, store):
    data = medplus.StoreDataset(store, "train", hold=hold)
    assert data[3][0].shape == (7,)  # something has been read before workers start
    found = batches(data, num_workers=1, multiprocessing_context=context)
    torch.testing.assert_close(found, batches(in_memory(store)), rtol=0, atol=0)


def test_one_row_at_a_time_from_either_end_and_none_beyond(store):
    data, expected = medplus.StoreDataset(store.path, "val"), in_memory(store, "val")
    assert [len(medplus.StoreDataset(store, split)) for split in SPLITS] == list(SIZES)
    for row in (0, 4, -1, -5):
        torch.testing.assert_close(data[row], expected[row], rtol=0, atol=0)
    for row in (5, -6):
        with pytest.raises(IndexError):
            data[row]


def test_a_part_of_it_and_a_collate_function_of_ones_own(store):
    rows = [2000, 3, 1024]
    data = medplus.StoreDataset(store, "train")
    [found] = DataLoader(Subset(data, rows), batch_size=3)
    [own] = DataLoader(Subset(data, rows), batch_size=3, collate_fn=list)
    for at, row in enumerate(rows):
        torch.testing.assert_close(own[at], data[row])
        torch.testing.assert_close((found[0][at], found[1][at]), in_memory(store)[row])


def test_labels_are_what_their_loss_takes(write_store):
    rng = np.random.default_rng(0)
    flags = [rng.integers(0, 2, (n, 4), np.uint8) for n in (6, 2, 2)]
    values = [rng.normal(size=(n, 4)).astype("f2") for n in (6, 2, 2)]
    store = write_store(values, flags, task=MULTI_LABEL, dtype="float16")
    [(x, y)] = DataLoader(medplus.StoreDataset(store, "train"), batch_size=6)
    assert x.dtype == y.dtype == torch.float32
    np.testing.assert_array_equal(y, flags[0])
    assert F.binary_cross_entropy_with_logits(x, y).isfinite()


def test_transform_is_applied_to_every_embedding(store):
    data = medplus.StoreDataset(store, "val", transform=lambda row: row / row.norm())
    [(x, _)] = DataLoader(data, batch_size=5)
    torch.testing.assert_close(x, F.normalize(in_memory(store, "val").tensors[0]))
    torch.testing.assert_close(data[2][0], x[2])


def test_rows_of_a_view_and_where_they_came_from(store):
    rows = {"train": np.array([5, 1500, 2301]), "val": np.array([0]), "test": np.array([1])}
    data = medplus.StoreDataset(View(store, rows), "train", also=("index", "name"), hold=False)
    [(x, _, index, names)] = DataLoader(data, batch_size=3)
    assert index.tolist() == [5, 1500, 1] == data.index.tolist()
    assert names == data.names == [""] * 3
    torch.testing.assert_close(x[1], in_memory(store)[1500][0])
    torch.testing.assert_close(x[2], in_memory(store, "val")[1][0])
    assert data.groups == []


@pytest.mark.parametrize(
    ("split", "also", "message"),
    [("dev", (), "unknown split 'dev'"), ("val", ("group",), "is not known"),
     ("val", ("names",), "did you mean 'name'")],
)  # fmt: skip
def test_what_is_not_there_is_refused(split, also, message, store):
    with pytest.raises(UsageError, match=message):
        medplus.StoreDataset(store, split, also=also)


def test_damage_is_refused_before_anything_is_learned(write_store):
    store = write_store([np.zeros((3, 2), "f4")] * 3, [np.array([0, 1, 2])] * 3)
    (store.path / "train/embeddings/c/0/0").unlink()
    with pytest.raises(StoreError, match="damaged or missing"):
        medplus.StoreDataset(store, "train")
