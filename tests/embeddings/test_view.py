"""Views: the rows of a store that they name, whatever reads them."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.embeddings.view import View
from medplus.errors import UsageError
from medplus.heads.features import read_features
from medplus.vocabulary import SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

SIZES = (2100, 40, 30)


@pytest.fixture(scope="module")
def store(write_store):
    rng = np.random.default_rng(0)
    embeddings = [rng.normal(size=(n, 3)).astype(np.float32) for n in SIZES]
    return write_store(embeddings, [rng.integers(0, 3, n) for n in SIZES])


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    # Train takes from all three splits of the store, as a fold over everything does.
    order = rng.permutation(sum(SIZES))
    parts = np.split(order, (1500, 1600))
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def everything(store, read):
    return np.concatenate([read(split) for split in SPLITS])


def test_a_view_reads_what_indexing_the_whole_store_gives(store, rows):
    view = View(store, rows)
    for split in SPLITS:
        for read, of in (
            (view.embeddings, store.embeddings),
            (view.labels, store.labels),
            (view.index, store.index),
        ):
            assert np.array_equal(read(split), everything(store, of)[rows[split]])
        assert view.names(split) == list(everything(store, store.names)[rows[split]])


def test_features_of_a_view_are_read_in_parts_and_by_number(store, rows):
    features = read_features(View(store, rows), "train", hold=False)
    expected = everything(store, store.embeddings)[rows["train"]]
    some = np.empty((700, 3), np.float32)
    features.read(650, some)
    assert np.array_equal(some, expected[650:1350])
    numbers = np.array([1499, 0, 700, 3])
    picked = np.empty((4, 3), np.float32)
    features.gather(numbers, picked)
    assert np.array_equal(picked, expected[numbers])


def test_equal_rows_have_one_digest_and_others_another(store, rows):
    fewer = {**rows, "test": rows["test"][1:]}
    assert View(store, rows).digest == View(store, dict(rows)).digest
    assert View(store, rows).digest != View(store, fewer).digest


@pytest.mark.parametrize(
    ("bad", "word"), [([], "nothing of val"), ([3, 3], "ascend"), ([9999], "ascend")]
)
def test_rows_that_no_view_can_have_are_refused(store, rows, bad, word):
    with pytest.raises(UsageError, match=word):
        View(store, {**rows, "val": np.array(bad, np.int64)})
