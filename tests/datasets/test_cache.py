"""The memory-mapped cache: filled once, whole or not at all, never in the way."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medplus import atomic
from medplus.datasets import cache, npz
from medplus.datasets.cache import open_cached
from medplus.errors import DatasetError, MedplusError
from medplus.vocabulary import SPLITS


@pytest.fixture
def inflations(monkeypatch) -> list[str]:
    """Names of the arrays that were inflated, in order."""
    names: list[str] = []
    read_blocks = npz.read_blocks

    def counting(archive, path, header):
        names.append(header.name)
        return read_blocks(archive, path, header)

    monkeypatch.setattr(npz, "read_blocks", counting)
    return names


def place(path: Path) -> Path:
    return path.parent / ".medplus-cache"


def leftovers(path: Path) -> list[str]:
    return sorted(entry.name for entry in place(path).iterdir())


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


def test_arrays_are_memory_mapped_and_read_only(write_npz):
    images = open_cached(write_npz()).arrays["train_images"]
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_cache_lies_beside_the_file_and_leaves_no_lock(write_npz):
    path = write_npz()
    open_cached(path)
    assert leftovers(path) == ["breastmnist"]
    assert sorted(entry.name for entry in (place(path) / "breastmnist").iterdir()) == sorted(
        [f"{name}.npy" for name in npz.ARRAYS] + ["meta.json"]
    )


def test_md5_is_the_files(write_npz):
    path = write_npz()
    assert open_cached(path).md5 == hashlib.md5(path.read_bytes()).hexdigest()


def test_phantom_note_survives_in_the_cache(write_npz):
    path = write_npz(phantom=np.array('{"seed": 4}'))
    assert open_cached(path).phantom == '{"seed": 4}'
    assert open_cached(path).phantom == '{"seed": 4}'


# --- identity ---------------------------------------------------------------------------------


def test_digest_is_of_the_arrays_not_of_their_compression_or_name(write_npz):
    deflated = open_cached(write_npz("a.npz", compressed=True))
    stored = open_cached(write_npz("b.npz", compressed=False))
    assert deflated.md5 != stored.md5
    assert deflated.digest == stored.digest


def test_digest_changes_with_one_pixel(write_npz, make_arrays):
    images = make_arrays()["val_images"]
    before = open_cached(write_npz("a.npz")).digest
    images[2, 27, 27] ^= 1
    assert open_cached(write_npz("b.npz", val_images=images)).digest != before


def test_digest_changes_with_one_label(write_npz, make_arrays):
    labels = make_arrays()["test_labels"]
    before = open_cached(write_npz("a.npz")).digest
    labels[0] ^= 1
    assert open_cached(write_npz("b.npz", test_labels=labels)).digest != before


def test_digest_changes_when_pixels_move_between_splits(write_npz, make_arrays):
    arrays = make_arrays()
    moved = {**arrays}
    for part in ("images", "labels"):
        both = np.concatenate([arrays[f"train_{part}"], arrays[f"val_{part}"]])
        moved[f"train_{part}"], moved[f"val_{part}"] = both[:6], both[6:]
    one = open_cached(write_npz("a.npz", arrays=arrays)).digest
    assert open_cached(write_npz("b.npz", arrays=moved)).digest != one


def test_digest_tells_the_same_bytes_in_another_order_apart(write_npz, make_arrays):
    arrays = make_arrays()
    images = arrays["train_images"]
    # The very same bytes, declared column-major: other images.
    turned = np.ndarray(images.shape, np.uint8, images.tobytes(), order="F")
    assert not np.array_equal(turned, images)
    one = open_cached(write_npz("a.npz", arrays=arrays)).digest
    assert open_cached(write_npz("b.npz", arrays={**arrays, "train_images": turned})).digest != one


# --- inflated once ----------------------------------------------------------------------------


def test_second_read_does_not_inflate_again(write_npz, inflations):
    path = write_npz()
    first = open_cached(path)
    assert sorted(inflations) == sorted(npz.ARRAYS)
    inflations.clear()
    second = open_cached(path)
    assert inflations == []
    assert second.digest == first.digest


def test_touched_file_does_not_refill(write_npz, inflations):
    path = write_npz()
    open_cached(path)
    inflations.clear()
    os.utime(path, (1, 1))
    open_cached(path)
    assert inflations == []


def test_touched_file_is_hashed_once_only(write_npz, monkeypatch):
    path = write_npz()
    open_cached(path)
    os.utime(path, (1, 1))
    open_cached(path)
    monkeypatch.setattr(cache, "file_md5", lambda _: pytest.fail("hashed again"))
    open_cached(path)


def test_copied_file_does_not_refill(write_npz, inflations):
    path = write_npz()
    open_cached(path)
    inflations.clear()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    open_cached(path)
    assert inflations == []


@pytest.mark.parametrize("compressed", [True, False], ids=["other size", "same size"])
def test_changed_content_refills(write_npz, make_arrays, inflations, compressed):
    path = write_npz(compressed=False)
    before = open_cached(path).digest
    images = 255 - make_arrays()["train_images"]
    write_npz(train_images=images, compressed=compressed)
    inflations.clear()
    after = open_cached(path)
    assert sorted(inflations) == sorted(npz.ARRAYS)
    assert after.digest != before
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
            {"truncated": content[:-1], "emptied": b"", "garbled": b"{'" + content[2:]}[harm]
        )
    found = open_cached(path).arrays
    for name, expected in make_arrays().items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("meta", ["[]", "{}", "3", "null", '{"schema": 1, "signature": []}'])
def test_strange_meta_is_filled_again(write_npz, meta, inflations):
    path = write_npz()
    digest = open_cached(path).digest
    (place(path) / "breastmnist" / "meta.json").write_text(meta)
    inflations.clear()
    assert open_cached(path).digest == digest
    assert inflations


def test_cache_of_another_schema_is_filled_again(write_npz, inflations):
    path = write_npz()
    open_cached(path)
    meta_file = place(path) / "breastmnist" / "meta.json"
    meta_file.write_text(json.dumps({**json.loads(meta_file.read_text()), "schema": 0}))
    inflations.clear()
    open_cached(path)
    assert inflations


def test_links_to_one_file_share_its_cache(write_npz, tmp_path, inflations):
    path = write_npz()
    link = tmp_path / "elsewhere" / "renamed.npz"
    link.parent.mkdir()
    link.symlink_to(path)
    open_cached(link)
    inflations.clear()
    open_cached(path)
    assert inflations == []


# --- where it lies ----------------------------------------------------------------------------


@pytest.fixture
def read_only_data(write_npz, monkeypatch) -> Path:
    """An npz file in a folder that seems read-only (the tests may run as root)."""
    path = write_npz()
    beside = place(path)
    make = Path.mkdir
    access = os.access

    def refuse(self, *args, **kwargs):
        if beside in (self, self.parent):
            raise OSError(errno.EROFS, "Read-only file system")
        return make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "access", lambda p, *a, **k: Path(p) != beside and access(p, *a, **k))
    return path


def test_read_only_data_folder_falls_back_to_medplus_cache(
    read_only_data, tmp_path, monkeypatch, inflations
):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    open_cached(read_only_data)
    assert not place(read_only_data).exists()
    [folder] = (tmp_path / "mine").iterdir()
    assert folder.name.startswith("breastmnist-")
    inflations.clear()
    open_cached(read_only_data)
    assert inflations == []


def test_files_of_one_name_do_not_share_the_fallback(
    read_only_data, write_npz, make_arrays, tmp_path, monkeypatch
):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    other = tmp_path / "other" / read_only_data.name
    other.parent.mkdir()
    np.savez(other, **make_arrays(size=8))
    beside = os.fspath(place(other))
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, *a, **k: str(p) != beside and access(p, *a, **k))
    assert open_cached(read_only_data).arrays["train_images"].shape[1] == 28
    assert open_cached(other).arrays["train_images"].shape[1] == 8
    assert len(list((tmp_path / "mine").iterdir())) == 2


def test_cache_home_is_the_default_fallback(read_only_data, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDPLUS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    open_cached(read_only_data)
    assert len(list((tmp_path / "xdg" / "medplus").iterdir())) == 1


def test_cache_that_others_filled_is_used_from_a_read_only_folder(
    write_npz, tmp_path, monkeypatch, inflations
):
    path = write_npz()
    open_cached(path)
    inflations.clear()
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    monkeypatch.setattr(os, "access", lambda *a, **k: False)
    open_cached(path)
    assert inflations == []
    assert not (tmp_path / "mine").exists()


def test_touched_file_is_used_where_the_cache_cannot_note_it(write_npz, monkeypatch, inflations):
    path = write_npz()
    open_cached(path)
    inflations.clear()
    os.utime(path, (1, 1))

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic, "write_json", refuse)
    open_cached(path)
    assert inflations == []


def test_no_writable_place_is_told(read_only_data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "file" / "mine"))
    with pytest.raises(DatasetError, match="MEDPLUS_CACHE"):
        open_cached(read_only_data)


# --- crashes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_interrupted_filling_leaves_nothing(write_npz, monkeypatch, error):
    path = write_npz()
    read_blocks = npz.read_blocks

    def interrupted(archive, path, header):
        yield from read_blocks(archive, path, header)
        if header.name == "val_labels":
            raise error

    monkeypatch.setattr(npz, "read_blocks", interrupted)
    with pytest.raises((KeyboardInterrupt, DatasetError)) as caught:
        open_cached(path)
    assert leftovers(path) == []
    if caught.type is DatasetError:
        assert str(path) in str(caught.value)
        assert "No space left" in str(caught.value)
    monkeypatch.undo()
    open_cached(path)


def test_full_disk_at_the_lock_is_told(write_npz, monkeypatch):
    path = write_npz()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MedplusError, match="No space left") as caught:
        open_cached(path)
    assert str(path) in str(caught.value)


def test_full_disk_at_the_sync_leaves_nothing(write_npz, monkeypatch):
    path = write_npz()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match="No space left"):
        open_cached(path)
    assert leftovers(path) == []


def test_failed_refill_is_not_taken_for_the_new_content(write_npz, make_arrays, monkeypatch):
    path = write_npz(compressed=False)
    open_cached(path)
    images = make_arrays()["train_images"][::-1]
    write_npz(train_images=images, compressed=False)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(DatasetError, match="I/O error"):
            open_cached(path)
    np.testing.assert_array_equal(open_cached(path).arrays["train_images"], images)


_STALL = """
import sys, time
from pathlib import Path
from medplus.datasets import cache, npz
read_blocks = npz.read_blocks
def stalling(archive, path, header):
    yield from read_blocks(archive, path, header)
    if header.name == "val_images":
        print("half-way", flush=True)
        time.sleep(600)
npz.read_blocks = stalling
cache.open_cached(Path(sys.argv[1]))
"""


def test_killed_filling_is_cleaned_up_and_done_again(write_npz, make_arrays):
    path = write_npz()
    with subprocess.Popen(
        [sys.executable, "-c", _STALL, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half-way\n"
        child.send_signal(signal.SIGKILL)
    assert not (place(path) / "breastmnist").exists()
    assert len(leftovers(path)) == 2  # the lock and the half-filled temporary folder
    found = open_cached(path).arrays
    assert leftovers(path) == ["breastmnist"]
    np.testing.assert_array_equal(found["test_images"], make_arrays()["test_images"])


_FILL = """
import logging, sys, time
from pathlib import Path
from medplus.datasets import cache, npz
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
read_blocks = npz.read_blocks
def slow(archive, path, header):
    time.sleep(0.2)
    yield from read_blocks(archive, path, header)
npz.read_blocks = slow
go = Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.005)
print("digest", cache.open_cached(Path(sys.argv[1])).digest)
"""


def test_two_processes_filling_at_once_inflate_once(write_npz, tmp_path):
    path = write_npz()
    go = tmp_path / "go"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _FILL, str(path), str(go)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    go.touch()
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum(output.count("caching") for output in outputs) == 1
    digests = {line for output in outputs for line in output.splitlines() if "digest" in line}
    assert digests == {f"digest {open_cached(path).digest}"}
    assert leftovers(path) == ["breastmnist"]


def test_filling_that_is_waited_for_is_not_repeated(write_npz, inflations, monkeypatch):
    path = write_npz()
    real = cache._open_if_current
    filled = []

    def late(folder, file):
        if filled:
            return real(folder, file)
        # Another process fills the cache between the first look and the lock.
        filled.append(True)
        open_cached(path)
        inflations.clear()
        return None

    monkeypatch.setattr(cache, "_open_if_current", late)
    open_cached(path)
    assert inflations == []


def test_file_changed_while_read_is_told(write_npz, make_arrays, monkeypatch):
    path = write_npz()
    read_blocks = npz.read_blocks

    def replacing(archive, file, header):
        yield from read_blocks(archive, file, header)
        if header.name == "test_labels":
            fresh = path.with_name("fresh.npz")
            np.savez(fresh, **make_arrays(size=8))
            fresh.replace(path)

    monkeypatch.setattr(npz, "read_blocks", replacing)
    with pytest.raises(DatasetError, match="changed while it was read"):
        open_cached(path)
    monkeypatch.undo()
    assert open_cached(path).arrays["train_images"].shape[1] == 8


# --- bad files --------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False], ids=["deflated", "stored"])
def test_damage_deep_in_a_file_leaves_no_cache(write_npz, compressed):
    path = write_npz(compressed=compressed)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="damaged") as caught:
        open_cached(path)
    assert str(path) in str(caught.value)
    assert leftovers(path) == []


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_leaves_no_cache(write_npz, part):
    path = write_npz()
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DatasetError) as caught:
        open_cached(path)
    assert str(path) in str(caught.value)
    assert leftovers(path) == []


def test_file_that_was_good_and_is_now_damaged_is_refused(write_npz):
    path = write_npz()
    open_cached(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="not a readable npz"):
        open_cached(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.npz does not exist"):
        open_cached(tmp_path / "none.npz")


def test_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="is a folder"):
        open_cached(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "nul\0.npz"], ids=["long", "null byte"])
def test_impossible_file_name_is_refused(tmp_path, name):
    with pytest.raises(DatasetError):
        open_cached(tmp_path / name)


def test_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a.npz").symlink_to(tmp_path / "b.npz")
    (tmp_path / "b.npz").symlink_to(tmp_path / "a.npz")
    with pytest.raises(DatasetError):
        open_cached(tmp_path / "a.npz")


def test_name_with_wildcards_is_cleaned_up_too(write_npz, make_arrays):
    path = write_npz("data[1].npz")
    abandoned = place(path) / ".data[1].tmp-123-abc"
    abandoned.mkdir(parents=True)
    open_cached(path)
    assert leftovers(path) == ["data[1]"]
    shutil.rmtree(place(path))


def test_filling_is_logged_with_its_size(write_npz, caplog):
    path = write_npz()
    with caplog.at_level(logging.INFO):
        open_cached(path)
    needed = sum(15 * n for n in (28 * 28, 1)) / 1e6
    assert f"caching breastmnist.npz ({needed:.1f} MB)" in caplog.text


def test_all_splits_are_cached(write_npz):
    arrays = open_cached(write_npz()).arrays
    assert [len(arrays[f"{split}_images"]) for split in SPLITS] == [7, 3, 5]
