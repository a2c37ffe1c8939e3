"""The memory-mapped cache: filled once, whole or not at all, never in the way."""

from __future__ import annotations

import os

import numpy as np
import pytest

from medplus.datasets import npzfile
from medplus.datasets.sources.npz import open_cached
from medplus.errors import DatasetError
from tests.datasets.caches import leftovers, place

# --- what it holds ----------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False], ids=["deflated", "stored"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("pixel_shape", [(), (1,), (3,)], ids=["grey", "one-channel", "rgb"])
def test_cached_arrays_equal_the_files(write_npz, make_arrays, compressed, order, pixel_shape):
    arrays = make_arrays(pixel_shape=pixel_shape)
    stored = {name: np.asarray(array, order=order) for name, array in arrays.items()}
    cached = open_cached(write_npz(arrays=stored, compressed=compressed))
    assert set(cached.arrays) == set(arrays)
    for name, expected in arrays.items():
        assert cached.arrays[name].dtype == np.uint8
        np.testing.assert_array_equal(cached.arrays[name], expected)


def test_arrays_are_memory_mapped_and_read_only(write_npz, is_mapped):
    images = open_cached(write_npz()).arrays["train_images"]
    assert is_mapped(images)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_cache_lies_beside_the_file_and_leaves_no_lock(write_npz):
    path = write_npz()
    open_cached(path)
    assert leftovers(path) == ["breastmnist"]
    assert sorted(entry.name for entry in (place(path) / "breastmnist").iterdir()) == sorted(
        [f"{name}.npy" for name in npzfile.ARRAYS] + ["meta.json"]
    )


# --- identity ---------------------------------------------------------------------------------


def test_digest_is_of_the_arrays_not_of_their_compression_or_name(write_npz):
    deflated = open_cached(write_npz("a.npz", compressed=True))
    stored = open_cached(write_npz("b.npz", compressed=False))
    assert deflated.facts["md5"] != stored.facts["md5"]
    assert deflated.facts["digest"] == stored.facts["digest"]


def test_digest_changes_with_one_pixel_one_label_the_split_and_the_order(write_npz, make_arrays):
    arrays = make_arrays()
    pixel, label, moved = ({name: a.copy() for name, a in arrays.items()} for _ in range(3))
    pixel["val_images"][2, 27, 27] ^= 1
    label["test_labels"][0] ^= 1
    for part in ("images", "labels"):
        both = np.concatenate([arrays[f"train_{part}"], arrays[f"val_{part}"]])
        moved[f"train_{part}"], moved[f"val_{part}"] = both[:6], both[6:]
    images = arrays["train_images"]
    # The very same bytes, declared column-major: other images.
    turned = np.ndarray(images.shape, np.uint8, images.tobytes(), order="F")
    several = [arrays, pixel, label, moved, {**arrays, "train_images": turned}]
    paths = [write_npz(f"{i}.npz", arrays=each) for i, each in enumerate(several)]
    assert len({open_cached(path).facts["digest"] for path in paths}) == len(several)


# --- inflated once ----------------------------------------------------------------------------


def test_second_read_does_not_inflate_again(write_npz, inflations):
    path = write_npz()
    first = open_cached(path)
    assert sorted(inflations) == sorted(npzfile.ARRAYS)
    inflations.clear()
    second = open_cached(path)
    assert inflations == []
    assert second.facts["digest"] == first.facts["digest"]


@pytest.mark.parametrize("compressed", [True, False], ids=["other size", "same size"])
def test_changed_content_refills(write_npz, make_arrays, inflations, compressed):
    path = write_npz(compressed=False)
    before = open_cached(path).facts["digest"]
    images = 255 - make_arrays()["train_images"]
    write_npz(train_images=images, compressed=compressed)
    inflations.clear()
    after = open_cached(path)
    assert sorted(inflations) == sorted(npzfile.ARRAYS)
    assert after.facts["digest"] != before
    np.testing.assert_array_equal(after.arrays["train_images"], images)


@pytest.mark.parametrize("harm", ["truncated", "emptied", "removed", "garbled"])
@pytest.mark.parametrize("victim", ["train_images.npy", "test_labels.npy", "meta.json"])
def test_damaged_cache_is_filled_again(write_npz, make_arrays, harm, victim):
    path = write_npz()
    open_cached(path)
    file = place(path) / "breastmnist" / victim
    if harm == "removed":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(
            {"truncated": content[:-1], "emptied": b"", "garbled": b"[]" + content[2:]}[harm]
        )
    found = open_cached(path).arrays
    for name, expected in make_arrays().items():
        np.testing.assert_array_equal(found[name], expected)


# --- where it lies ----------------------------------------------------------------------------


def test_read_only_folder_falls_back_to_the_users_cache_and_takes_what_others_filled(
    write_npz, tmp_path, monkeypatch, inflations
):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    mine, theirs = write_npz("mine.npz"), write_npz("theirs.npz")
    open_cached(theirs)
    inflations.clear()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may write everywhere
    open_cached(theirs)
    assert inflations == []
    open_cached(mine)
    [folder] = (tmp_path / "mine").iterdir()
    assert folder.name.startswith("mine-")
    inflations.clear()
    open_cached(mine)
    assert inflations == []


def test_no_writable_place_is_told(write_npz, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "file" / "mine"))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(DatasetError, match="set MEDPLUS_CACHE"):
        open_cached(write_npz())
