"""A flag and a size: which file, is it what it says, and what does it hold."""

from __future__ import annotations

import dataclasses
import hashlib
import logging

import numpy as np
import pytest

from medplus.datasets import catalog
from medplus.datasets.phantom import write_phantom
from medplus.datasets.sources import describe, known_digest, load_dataset, resolve
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import SPLITS

# --- by flag ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pixel_shape"), [(28, ()), (64, (1,))])
def test_flag_and_size_name_the_official_file(write_npz, make_arrays, size, pixel_shape):
    arrays = make_arrays(size=size, pixel_shape=pixel_shape)
    path = write_npz(catalog.info("breastmnist").filename(size), arrays)
    data = load_dataset("breastmnist", size, path.parent)
    assert (data.name, data.size, data.path) == ("breastmnist", size, str(path))
    assert (data.task, data.channels, data.n_classes) == ("binary-class", 1, 2)
    assert data.classes == ("malignant", "normal, benign")
    assert data.licence == catalog.info("breastmnist").licence
    assert "doi:10.1038/s41597-022-01721-8" in data.citation
    for split in SPLITS:
        assert len(data.splits[split]) == len(arrays[f"{split}_images"])
        expected = arrays[f"{split}_images"].reshape(-1, size, size)
        np.testing.assert_array_equal(data.splits[split].images, expected)
        np.testing.assert_array_equal(data.splits[split].labels, arrays[f"{split}_labels"])


@pytest.mark.parametrize("dtype", ["u1", ">i8", "<u8", "?"])
@pytest.mark.parametrize("flat", [True, False], ids=["(N,)", "(N, 1)"])
def test_labels_become_one_uint8_column(write_npz, make_arrays, flat, dtype):
    arrays = make_arrays()
    labels = {
        f"{s}_labels": arrays[f"{s}_labels"].reshape((-1,) if flat else (-1, 1)).astype(dtype)
        for s in SPLITS
    }
    data = load_dataset("breastmnist", data_root=write_npz(**labels).parent)
    for split in SPLITS:
        found = data.splits[split].labels
        assert (found.dtype, found.shape) == (np.uint8, (len(data.splits[split]), 1))
        np.testing.assert_array_equal(found, arrays[f"{split}_labels"])


# --- where the images come from ---------------------------------------------------------------


@pytest.mark.parametrize(("size", "source"), [(28, "official"), (64, "unofficial")])
def test_file_is_official_by_the_md5_of_its_size(write_npz, monkeypatch, size, source):
    path = write_npz()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    info = catalog.info("breastmnist")
    known = dataclasses.replace(info, md5={**info.md5, size: md5})
    monkeypatch.setattr(catalog, "info", lambda _: known)
    assert load_dataset("breastmnist", data_root=path.parent).source == source


def test_file_with_another_md5_is_used_with_a_warning(write_npz, caplog):
    path = write_npz()
    data = load_dataset("breastmnist", data_root=path.parent)
    assert data.source == "unofficial"
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    text = warning.getMessage()
    assert text.startswith("breastmnist at 28 px: it is not the official file")
    assert hashlib.md5(path.read_bytes()).hexdigest() in text
    assert catalog.info("breastmnist").md5[28] in text


def test_phantom_is_recognised_without_a_warning(tmp_path, caplog):
    path = write_phantom("breastmnist", 28, tmp_path, samples=20)
    assert load_dataset("breastmnist", data_root=tmp_path).source == "phantom"
    assert load_dataset(str(path)).source == "phantom"
    assert caplog.records == []


def test_digest_tells_what_labels_mean_and_the_cache_knows_it(write_npz):
    path = write_npz()
    ref = resolve("breastmnist")
    assert known_digest(ref, 28, path.parent) is None
    assert known_digest(ref, 64, path.parent) is None
    by_flag = load_dataset("breastmnist", data_root=path.parent).digest
    assert known_digest(ref, 28, path.parent) == by_flag
    assert load_dataset(str(path)).digest != by_flag  # whose classes have no names


def test_rows_are_numbered(write_npz):
    names = load_dataset("breastmnist", data_root=write_npz().parent).splits["val"].names
    assert (len(names), names[0], names[-1], names[1:]) == (3, "val/0", "val/2", ["val/1", "val/2"])
    with pytest.raises(IndexError):
        names[3]


def test_outline_is_the_files_or_what_medmnist_states(write_npz, make_arrays):
    path = write_npz("chestmnist.npz", make_arrays(n_labels=14))
    found = describe(resolve("chestmnist"), None, path.parent)
    assert (found.n_samples, found.n_classes, found.n_labels, found.size) == (
        {"train": 7, "val": 3, "test": 5}, 14, 14, 28,
    )  # fmt: skip
    stated = describe(resolve("breastmnist"), 64, path.parent)
    assert (stated.n_samples, stated.n_classes, stated.n_labels, stated.size) == (
        {"train": 546, "val": 78, "test": 156}, 2, 1, 64,
    )  # fmt: skip


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["brestmnist", "", "x" * 5000, "nul\0"])
def test_unknown_name_is_a_usage_error(name, tmp_path):
    with pytest.raises(UsageError, match="unknown dataset"):
        load_dataset(name, data_root=tmp_path)


@pytest.mark.parametrize("size", [0, -28, 27, 56, 225])
def test_size_that_medmnist_lacks_is_a_usage_error(size, tmp_path):
    with pytest.raises(UsageError, match=f"breastmnist has no size {size}.*28, 64, 128 and 224"):
        load_dataset("breastmnist", size, tmp_path)


def test_missing_file_tells_where_it_comes_from_and_which_sizes_are_there(write_npz):
    folder = write_npz().parent
    with pytest.raises(DatasetError) as caught:
        load_dataset("breastmnist", 64, folder)
    message = str(caught.value)
    assert str(folder / "breastmnist_64.npz") in message
    assert "sizes there: 28" in message
    assert catalog.info("breastmnist").url[64] in message
    assert "medplus phantom --dataset breastmnist --size 64" in message
    with pytest.raises(DatasetError, match=r"none/breastmnist.npz does not exist; .* --data-root"):
        load_dataset("breastmnist", data_root=folder / "none")


def test_misnamed_size_is_refused(write_npz, make_arrays):
    path = write_npz("breastmnist_64.npz", make_arrays(size=28))
    with pytest.raises(DatasetError, match="holds images of 28 px, not 64") as caught:
        load_dataset("breastmnist", 64, path.parent)
    assert str(path) in str(caught.value)


def test_other_number_of_channels_than_the_collection_is_refused(write_npz, make_arrays):
    path = write_npz(arrays=make_arrays(pixel_shape=(3,)))
    with pytest.raises(DatasetError, match="3 channels, but breastmnist has 1"):
        load_dataset("breastmnist", data_root=path.parent)


@pytest.mark.parametrize(
    ("made", "message"),
    [({"n_labels": 13}, r"13 columns.*needs 14"), ({"n_labels": 14, "n_classes": 3}, "value 2")],
)
def test_multi_label_columns_of_another_kind_are_refused(write_npz, make_arrays, made, message):
    path = write_npz("chestmnist.npz", make_arrays(**made))
    with pytest.raises(DatasetError, match=message):
        load_dataset("chestmnist", data_root=path.parent)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("value", "dtype"), [(2, "u1"), (-1, "i1"), (255, "u1"), (2**63, "u8"), (-(2**63), "i8")]
)
def test_label_beyond_the_collections_classes_is_refused(
    write_npz, make_arrays, split, value, dtype
):
    labels = make_arrays()[f"{split}_labels"].astype(dtype)
    labels[1] = value
    path = write_npz(**{f"{split}_labels": labels})
    with pytest.raises(DatasetError, match=f"{split}_labels has the value {value}") as caught:
        load_dataset("breastmnist", data_root=path.parent)
    assert str(path) in str(caught.value)
