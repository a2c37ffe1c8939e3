"""An npz file by its path: its task, its size, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.datasets.sources import describe, digests, known_digest, load_dataset, resolve
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import MULTI_LABEL

# --- by path ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_classes", "n_labels", "task", "found"),
    [
        (2, 1, "binary-class", 2),
        (3, 1, "multi-class", 3),
        (2, 4, MULTI_LABEL, 4),
        (2, 3, MULTI_LABEL, 3),
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
    path = write_npz(
        "mine.npz",
        train_images=np.zeros((n_classes, 28, 28), np.uint8),
        train_labels=np.arange(n_classes, dtype=np.int32),
    )
    data = load_dataset(str(path))
    assert data.splits["train"].labels.dtype == dtype
    assert data.splits["train"].labels[-1, 0] == n_classes - 1


def test_a_flag_names_the_collection_and_a_path_the_file(write_npz, monkeypatch):
    path = write_npz()
    assert resolve("breastmnist").source == "medmnist"
    for name in ("breastmnist.npz", "./breastmnist", str(path)):
        assert (resolve(name).source, resolve(name).any_size) == ("npz", False)
    monkeypatch.chdir(path.parent)
    path.rename("own")
    assert resolve("own").spelling == str(path.parent / "own")


def test_digests_are_those_of_the_file_or_any_where_it_is_gone(write_npz):
    path = write_npz("mine.npz")
    ref = resolve(str(path))
    assert known_digest(ref) is None
    assert digests(ref) == {load_dataset(str(path)).digest} == {known_digest(ref)}
    path.unlink()
    assert digests(ref) is None


def test_outline_is_that_of_the_headers(write_npz, make_arrays):
    found = describe(resolve(str(write_npz("mine.npz", make_arrays(size=9, n_labels=4)))))
    assert (found.n_samples["val"], found.n_classes, found.n_labels, found.size) == (3, 4, 4, 9)


# --- what is refused --------------------------------------------------------------------------


def test_missing_path_is_a_dataset_error(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(str(tmp_path / "none.npz"))
