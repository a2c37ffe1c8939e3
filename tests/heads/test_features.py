"""Features held in memory and features left in their store give the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.embeddings import layout
from medplus.errors import RunError, StoreError
from medplus.heads import features
from medplus.heads.features import (
    HeldFeatures,
    JoinedRows,
    StoredFeatures,
    fit_memory,
    read_features,
)
from medplus.vocabulary import SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

SIZES = (50, 17, 9)


@pytest.fixture
def make_store(write_store, monkeypatch):
    """Return a function that writes a store of chunks of 16 rows; it has their values too."""
    monkeypatch.setattr(layout, "CHUNK_ROWS", 16)

    def make(dtype="float32"):
        rng = np.random.default_rng(0)
        values = {
            s: rng.normal(size=(n, 3)).astype(dtype) for s, n in zip(SPLITS, SIZES, strict=True)
        }
        labels = {s: np.arange(n) % 3 for s, n in zip(SPLITS, SIZES, strict=True)}
        return write_store(values, labels, dtype=dtype), values

    return make


@pytest.fixture
def forms(make_store):
    """A train split's values, held and stored."""
    store, values = make_store()
    held = read_features(store, "train")
    stored = read_features(store, "train", hold=False)
    assert isinstance(held, HeldFeatures)
    assert isinstance(stored, StoredFeatures)
    return values["train"], held, stored


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_whole_is_what_the_store_has_as_float32(dtype, hold, make_store):
    store, values = make_store(dtype)
    for split in SPLITS:
        found = read_features(store, split, hold=hold)
        assert found.shape == (len(found), 3) == values[split].shape
        assert found.whole().dtype == np.float32
        np.testing.assert_array_equal(found.whole(), values[split].astype("f4"))


@pytest.mark.parametrize("length", [1, 7, 16, 20, 49, 50, 1000])
def test_blocks_of_any_length_are_the_rows_in_order(length, forms):
    values, *both = forms
    for found in both:
        blocks = [(first, rows.copy()) for first, rows in found.blocks(length)]
        assert [first for first, _ in blocks] == list(range(0, 50, length))
        assert {len(rows) for _, rows in blocks[:-1]} <= {length}
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in blocks]), values)


def test_rows_are_gathered_in_the_order_asked_for_however_often(forms):
    values, *both = forms
    numbers = np.random.default_rng(1).integers(0, 50, 200)
    for found in both:
        out = np.full((200, 3), np.nan, "f4")
        found.gather(numbers, out)
        np.testing.assert_array_equal(out, values[numbers])


@pytest.mark.parametrize("hold", [True, False])
def test_joined_rows_are_one_after_the_other(hold, make_store):
    store, values = make_store()
    parts = tuple(read_features(store, split, hold=hold) for split in SPLITS)
    joined, expected = JoinedRows(parts), np.concatenate([values[s] for s in SPLITS])
    assert len(joined) == sum(SIZES)
    np.testing.assert_array_equal(joined.whole(), expected)
    for length in (5, 16, 51, 60):
        rows = [rows.copy() for _, rows in joined.blocks(length)]
        np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_a_chunk_damaged_after_the_first_reading_is_refused(forms):
    _, _, stored = forms
    file = stored.store.path / "train/embeddings/c/2/0"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    out = np.empty((1, 3), "f4")
    stored.read(0, out)  # the first chunk is as it was
    for use in (stored.whole, lambda: stored.gather(np.array([0]), out)):
        with pytest.raises(StoreError, match=r"1 of 4 chunks of train/embeddings .*first: 2"):
            use()


@pytest.mark.parametrize("hold", [True, False])
def test_rows_that_are_not_finite_are_counted_and_the_first_is_named(hold, write_store, make_store):
    values = [np.zeros((n, 2), "f4") for n in SIZES]
    values[0][[20, 40, 45], [0, 1, 0]] = (np.nan, np.inf, -np.inf)
    store = write_store(values, [np.arange(n) % 3 for n in SIZES])
    with pytest.raises(RunError, match=r"3 embeddings of train .*first in row 20"):
        read_features(store, "train", hold=hold)


def test_a_store_fits_if_all_its_splits_do_as_float32(make_store, monkeypatch):
    store, _ = make_store("float16")
    need = sum(SIZES) * 3 * 4
    for spare, fits in ((need, True), (need - 1, False)):
        monkeypatch.setattr(features, "spare_memory", lambda spare=spare: spare)
        assert fit_memory(store) is fits
