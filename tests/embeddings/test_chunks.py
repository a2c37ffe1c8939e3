"""Raw chunk files: what is written is what is read, and nothing else passes for it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.embeddings import chunks
from medplus.embeddings.schema import ArrayLayout


def write_all(root, layout, values):
    return {
        str(chunk): chunks.write_chunk(root, layout, chunk, values[layout.rows(chunk)])
        for chunk in range(layout.n_chunks)
    }


@given(
    n=st.integers(1, 12),
    columns=st.integers(0, 4),
    chunk_rows=st.integers(1, 14),
    dtype=st.sampled_from(["<f4", "<f2", "u1", "<i8"]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read(n, columns, chunk_rows, dtype, seed, new_folder):
    root = new_folder()
    shape = (n, columns) if columns else (n,)
    values = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    layout = ArrayLayout("train/x", shape, np.dtype(dtype), chunk_rows)
    read, damaged = chunks.read_rows(root, layout, write_all(root, layout, values))
    assert damaged == []
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(("dtype", "filler"), [("<f4", np.nan), ("<f2", np.nan), ("u1", 0)])
def test_a_short_last_chunk_is_filled_to_full_size(dtype, filler, tmp_path):
    layout = ArrayLayout("train/x", (5, 2), np.dtype(dtype), 4)
    write_all(tmp_path, layout, np.ones((5, 2), dtype))
    last = np.fromfile(layout.chunk_file(tmp_path, 1), dtype).reshape(4, 2)
    np.testing.assert_array_equal(last, [[1, 1], [filler] * 2, [filler] * 2, [filler] * 2])


def test_chunk_files_are_raw_little_endian_rows(tmp_path):
    layout = ArrayLayout("train/x", (2, 2), np.dtype("<f4"), 2)
    chunks.write_chunk(tmp_path, layout, 0, np.array([[1, 2], [3, 4]], ">f4"))
    file = tmp_path / "train/x/c/0/0"
    assert file.read_bytes() == np.array([1, 2, 3, 4], "<f4").tobytes()


def test_checksum_is_xxh3_in_hex():
    # The specification's own value for empty input.
    assert chunks.checksum(b"") == "2d06800538d394c2"


def test_a_written_chunk_has_the_checksum_of_its_file(tmp_path):
    layout = ArrayLayout("train/x", (3, 2), np.dtype("<f4"), 2)
    digest = chunks.write_chunk(tmp_path, layout, 1, np.array([[1, 2]], "f4"))
    assert digest == chunks.checksum(layout.chunk_file(tmp_path, 1).read_bytes())


def missing(file):
    file.unlink()


def empty(file):
    file.write_bytes(b"")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def extended(file):
    file.write_bytes(file.read_bytes() + b"\0")


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def folder_instead(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("harm", [missing, empty, truncated, extended, flipped, folder_instead])
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_exactly_the_damaged_chunk_is_reported(harm, chunk, tmp_path):
    layout = ArrayLayout("train/x", (5, 3), np.dtype("<f4"), 2)
    values = np.arange(15, dtype="<f4").reshape(5, 3)
    sums = write_all(tmp_path, layout, values)
    harm(layout.chunk_file(tmp_path, chunk))
    read, damaged = chunks.read_rows(tmp_path, layout, sums)
    assert damaged == [chunk] == chunks.find_damaged(tmp_path, layout, sums)
    intact = np.setdiff1d(np.arange(5), np.arange(5)[layout.rows(chunk)])
    np.testing.assert_array_equal(read[intact], values[intact])


def test_a_chunk_without_a_recorded_checksum_does_not_count(tmp_path):
    layout = ArrayLayout("train/x", (4, 1), np.dtype("<f4"), 2)
    sums = write_all(tmp_path, layout, np.zeros((4, 1), "f4"))
    del sums["1"]
    assert chunks.read_rows(tmp_path, layout, sums)[1] == [1]
    assert chunks.find_damaged(tmp_path, layout, sums) == [1]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_failed_write_keeps_the_old_chunk_and_leaves_nothing_behind(call, tmp_path, monkeypatch):
    layout = ArrayLayout("train/x", (2, 1), np.dtype("<f4"), 2)
    chunks.write_chunk(tmp_path, layout, 0, np.zeros((2, 1), "f4"))
    file = layout.chunk_file(tmp_path, 0)
    before = file.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        chunks.write_chunk(tmp_path, layout, 0, np.ones((2, 1), "f4"))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_nearly_full_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(tmp_path, monkeypatch):
    layout = ArrayLayout("train/x", (50, 1), np.dtype("<f4"), 50)
    values = np.arange(50, dtype="<f4")[:, None]
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    sums = {"0": chunks.write_chunk(tmp_path, layout, 0, values)}
    read, damaged = chunks.read_rows(tmp_path, layout, sums)
    assert damaged == []
    np.testing.assert_array_equal(read, values)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_chunk_is_on_the_disk_before_it_has_its_name_and_its_name_after(tmp_path, monkeypatch):
    layout = ArrayLayout("train/x", (1, 1), np.dtype("<f4"), 1)
    file = layout.chunk_file(tmp_path, 0)
    events = []
    fsync = os.fsync

    def watch(descriptor):
        target = Path(f"/proc/self/fd/{descriptor}")
        kind = "folder" if target.is_dir() else "chunk"
        events.append((kind, file.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    chunks.write_chunk(tmp_path, layout, 0, np.zeros((1, 1), "f4"))
    assert events == [("chunk", False), ("folder", True)]
