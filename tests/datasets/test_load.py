"""From a name and a size to images, labels and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medplus.datasets import catalog
from medplus.datasets.load import find_file, is_path, load_dataset
from medplus.datasets.phantom import write_phantom
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS

# --- by flag ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 64])
def test_flag_and_size_name_the_official_file(write_npz, make_arrays, size):
    arrays = make_arrays(size=size)
    path = write_npz(catalog.info("breastmnist").filename(size), arrays)
    data = load_dataset("breastmnist", size, path.parent)
    assert (data.name, data.size, data.path) == ("breastmnist", size, str(path))
    assert (data.task, data.channels, data.n_classes) == ("binary-class", 1, 2)
    assert data.classes == ("malignant", "normal, benign")
    assert data.licence == catalog.info("breastmnist").licence
    assert "doi:10.1038/s41597-022-01721-8" in data.citation
    for split in SPLITS:
        assert len(data.splits[split]) == len(arrays[f"{split}_images"])
        np.testing.assert_array_equal(data.splits[split].images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(data.splits[split].labels, arrays[f"{split}_labels"])


def test_size_of_a_flag_defaults_to_28(write_npz):
    assert load_dataset("breastmnist", data_root=write_npz().parent).size == 28


def test_images_are_memory_mapped(write_npz, is_mapped):
    images = load_dataset("breastmnist", data_root=write_npz().parent).splits["train"].images
    assert is_mapped(images)


def test_rgb_images_keep_their_channels(write_npz, make_arrays):
    arrays = make_arrays(pixel_shape=(3,), n_classes=8)
    data = load_dataset("bloodmnist", data_root=write_npz("bloodmnist.npz", arrays).parent)
    assert data.channels == 3
    np.testing.assert_array_equal(data.splits["val"].images, arrays["val_images"])


def test_single_channel_axis_is_dropped(write_npz, make_arrays):
    arrays = make_arrays(pixel_shape=(1,))
    data = load_dataset("breastmnist", data_root=write_npz(arrays=arrays).parent)
    assert data.channels == 1
    assert data.splits["train"].images.shape == (7, 28, 28)
    np.testing.assert_array_equal(data.splits["train"].images, arrays["train_images"][..., 0])


def test_column_major_images_are_the_same_images(write_npz, make_arrays):
    arrays = make_arrays(pixel_shape=(3,), n_classes=8)
    turned = {name: np.asfortranarray(array) for name, array in arrays.items()}
    data = load_dataset("bloodmnist", data_root=write_npz("bloodmnist.npz", turned).parent)
    np.testing.assert_array_equal(data.splits["test"].images[2], arrays["test_images"][2])


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


def test_multi_label_columns_are_kept(write_npz, make_arrays):
    arrays = make_arrays(n_labels=14)
    data = load_dataset("chestmnist", data_root=write_npz("chestmnist.npz", arrays).parent)
    assert (data.task, data.n_classes) == (MULTI_LABEL, 14)
    assert data.classes[0] == "atelectasis"
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split].labels, arrays[f"{split}_labels"])


# --- where the images come from ---------------------------------------------------------------


def test_file_with_the_official_md5_is_official(write_npz, monkeypatch, caplog):
    path = write_npz()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    info = catalog.info("breastmnist")
    known = dataclasses.replace(info, md5={**info.md5, 28: md5})
    monkeypatch.setattr(catalog, "info", lambda _: known)
    assert load_dataset("breastmnist", data_root=path.parent).source == "official"
    assert caplog.records == []


def test_file_with_the_official_md5_of_another_size_is_not_official(write_npz, monkeypatch):
    path = write_npz()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    info = catalog.info("breastmnist")
    known = dataclasses.replace(info, md5={**info.md5, 64: md5})
    monkeypatch.setattr(catalog, "info", lambda _: known)
    assert load_dataset("breastmnist", data_root=path.parent).source == "unofficial"


def test_file_with_another_md5_is_used_with_a_warning(write_npz, caplog):
    path = write_npz()
    data = load_dataset("breastmnist", data_root=path.parent)
    assert data.source == "unofficial"
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    text = warning.getMessage()
    assert str(path) in text
    assert hashlib.md5(path.read_bytes()).hexdigest() in text
    assert catalog.info("breastmnist").md5[28] in text


def test_phantom_is_recognised_without_a_warning(tmp_path, caplog):
    path = write_phantom("breastmnist", 28, tmp_path, samples=20)
    assert load_dataset("breastmnist", data_root=tmp_path).source == "phantom"
    assert load_dataset(str(path)).source == "phantom"
    assert caplog.records == []


def test_digest_is_the_same_by_flag_and_by_path(write_npz):
    path = write_npz()
    by_flag = load_dataset("breastmnist", data_root=path.parent)
    assert load_dataset(str(path)).digest == by_flag.digest


# --- by path ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_classes", "n_labels", "task", "found"),
    [
        (2, 1, "binary-class", 2),
        (3, 1, "multi-class", 3),
        (2, 4, MULTI_LABEL, 4),
        (2, 2, MULTI_LABEL, 2),
    ],
)
def test_task_of_a_file_is_inferred_from_its_labels(
    write_npz, make_arrays, n_classes, n_labels, task, found
):
    path = write_npz("mine.npz", make_arrays(n_classes=n_classes, n_labels=n_labels))
    data = load_dataset(str(path))
    assert (data.name, data.source) == ("mine", "custom")
    assert (data.task, data.n_classes) == (task, found)
    assert data.splits["train"].labels.shape == (7, n_labels)


def test_class_that_only_the_test_split_has_counts(write_npz, make_arrays):
    arrays = make_arrays()
    arrays["test_labels"][4] = 5
    assert load_dataset(str(write_npz("mine.npz", arrays))).n_classes == 6


def test_size_of_a_file_is_that_of_its_images(write_npz, make_arrays):
    path = write_npz("mine.npz", make_arrays(size=17))
    assert load_dataset(str(path)).size == 17
    assert load_dataset(str(path), 17).size == 17
    with pytest.raises(UsageError, match="images of 17 px") as caught:
        load_dataset(str(path), 28)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("n_classes", "dtype"), [(256, np.uint8), (257, np.int64)])
def test_labels_are_int64_beyond_256_classes(write_npz, make_arrays, n_classes, dtype):
    labels = np.zeros(7, np.int32)
    labels[3] = n_classes - 1
    data = load_dataset(str(write_npz("mine.npz", train_labels=labels)))
    assert data.splits["train"].labels.dtype == dtype
    assert data.splits["train"].labels[3, 0] == n_classes - 1


def test_a_flag_names_the_collection_and_a_path_the_file(write_npz, monkeypatch):
    path = write_npz()
    assert not is_path("breastmnist")
    assert is_path("breastmnist.npz")
    assert is_path("./breastmnist")
    assert is_path(str(path))
    monkeypatch.chdir(path.parent)
    path.rename("own")
    assert is_path("own")


@pytest.mark.parametrize("name", ["", "x" * 5000, "nul\0"])
def test_impossible_name_is_no_path(name):
    assert not is_path(name)


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


def test_missing_data_folder_is_told(tmp_path):
    with pytest.raises(DatasetError, match="--data-root") as caught:
        load_dataset("breastmnist", data_root=tmp_path / "none")
    assert str(tmp_path / "none") in str(caught.value)


def test_data_folder_without_permission_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        find_file(catalog.info("breastmnist"), 28, tmp_path)


def test_missing_path_is_a_dataset_error(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(str(tmp_path / "none.npz"))


def test_folder_without_images_is_a_dataset_error(tmp_path):
    with pytest.raises(DatasetError, match="holds no images"):
        load_dataset(f"{tmp_path}/")


def test_misnamed_size_is_refused(write_npz, make_arrays):
    path = write_npz("breastmnist_64.npz", make_arrays(size=28))
    with pytest.raises(DatasetError, match="holds images of 28 px, not 64") as caught:
        load_dataset("breastmnist", 64, path.parent)
    assert str(path) in str(caught.value)


def test_other_number_of_channels_than_the_collection_is_refused(write_npz, make_arrays):
    path = write_npz(arrays=make_arrays(pixel_shape=(3,)))
    with pytest.raises(DatasetError, match="3 channels, but breastmnist has 1"):
        load_dataset("breastmnist", data_root=path.parent)


def test_other_number_of_label_columns_than_the_collection_is_refused(write_npz, make_arrays):
    path = write_npz("chestmnist.npz", make_arrays(n_labels=13))
    with pytest.raises(DatasetError, match=r"13 columns.*needs 14"):
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


def test_multi_label_flag_beyond_1_is_refused(write_npz, make_arrays):
    path = write_npz("chestmnist.npz", make_arrays(n_labels=14, n_classes=3))
    with pytest.raises(DatasetError, match="has the value 2"):
        load_dataset("chestmnist", data_root=path.parent)


def test_negative_label_of_a_file_is_refused(write_npz):
    path = write_npz("mine.npz", train_labels=np.array([0, 1, 2, 0, -1, 1, 2]))
    with pytest.raises(DatasetError, match="train_labels has the value -1") as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [2**16, 10**12, 2**64 - 1])
def test_absurd_class_index_of_a_file_is_refused_at_once(write_npz, value):
    labels = np.zeros(3, np.uint64)
    labels[0] = value
    path = write_npz("mine.npz", val_labels=labels)
    with pytest.raises(DatasetError, match=f"the labels reach {value}") as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value)


def test_header_of_a_trillion_elements_costs_no_memory(write_npz):
    import zipfile

    path = write_npz("mine.npz", train_images=None)
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1275510204, 28, 28), }\n"
    with zipfile.ZipFile(path, "a") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("train_images.npy", magic + header.encode())
    with pytest.raises(DatasetError, match="but holds 0 bytes"):
        load_dataset(str(path))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(part=st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_a_dataset_error(write_npz, part):
    path = write_npz("cut.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DatasetError) as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value)
    assert list((path.parent / ".medplus-cache").iterdir()) == []
