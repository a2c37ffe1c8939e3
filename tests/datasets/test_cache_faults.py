"""Filling that goes wrong: crashes, processes at once, bad files; nothing stays half-filled."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from medplus.datasets import npzfile
from medplus.datasets.sources.npz import open_cached
from medplus.errors import DatasetError, MedplusError
from tests.datasets.caches import leftovers

# --- crashes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_interrupted_filling_leaves_nothing(write_npz, monkeypatch, error):
    path = write_npz()
    read_blocks = npzfile.read_blocks

    def interrupted(archive, path, header):
        yield from read_blocks(archive, path, header)
        if header.name == "val_labels":
            raise error

    monkeypatch.setattr(npzfile, "read_blocks", interrupted)
    with pytest.raises((KeyboardInterrupt, DatasetError)) as caught:
        open_cached(path)
    assert leftovers(path) == []
    if caught.type is DatasetError:
        assert str(path) in str(caught.value)
        assert "No space left" in str(caught.value)
    monkeypatch.undo()
    open_cached(path)


@pytest.mark.parametrize("call", ["pwrite", "fsync"], ids=["at the lock", "at the sync"])
def test_full_disk_is_told_and_leaves_nothing(write_npz, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write_npz()
    monkeypatch.setattr(os, call, full)
    with pytest.raises(MedplusError, match="No space left") as caught:
        open_cached(path)
    assert str(path) in str(caught.value)
    assert leftovers(path) == []


def test_file_changed_while_read_is_told(write_npz, make_arrays, monkeypatch):
    path = write_npz()
    read_blocks = npzfile.read_blocks

    def replacing(archive, file, header):
        yield from read_blocks(archive, file, header)
        if header.name == "test_labels":
            fresh = path.with_name("fresh.npz")
            np.savez(fresh, **make_arrays(size=8))
            fresh.replace(path)

    monkeypatch.setattr(npzfile, "read_blocks", replacing)
    with pytest.raises(DatasetError, match="changed while it was read"):
        open_cached(path)
    monkeypatch.undo()
    assert open_cached(path).arrays["train_images"].shape[1] == 8


# --- bad files --------------------------------------------------------------------------------


@pytest.mark.parametrize("was_read", [True, False])
def test_damaged_file_leaves_no_cache(write_npz, was_read):
    path = write_npz()
    if was_read:
        open_cached(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="damaged") as caught:
        open_cached(path)
    assert str(path) in str(caught.value)
    assert leftovers(path) == []


@pytest.mark.parametrize("name", ["none.npz", ".", "x" * 300 + ".npz", "nul\0.npz", "loop.npz"])
def test_what_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "loop.npz").symlink_to(tmp_path / "pool.npz")
    (tmp_path / "pool.npz").symlink_to(tmp_path / "loop.npz")
    with pytest.raises(DatasetError) as caught:
        open_cached(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
