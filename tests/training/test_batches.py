"""Batches of a split on the device: the right rows, in order, and no thread left behind."""

from __future__ import annotations

import re
import sys
import threading
import time
import tracemalloc
import warnings
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.datasets.dataset import ImageSplit
from medplus.training import batches as module
from medplus.training.batches import Batches, fits_on_device

CPU = torch.device("cpu")
N = 23
RESIDENT = pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
RGB = pytest.mark.parametrize("rgb", [False, True], ids=["grey", "rgb"])


def draw_split(folder: Path, n=N, size=8, rgb=False, n_labels=1, mode="r"):
    """Random images in a memory-mapped file, as the dataset cache holds them."""
    rng = np.random.default_rng(n + size)
    images = rng.integers(0, 256, (n, size, size, 3) if rgb else (n, size, size), dtype=np.uint8)
    labels = rng.integers(0, 9, (n, n_labels), dtype=np.uint8)
    path = folder / "images.npy"
    np.save(path, images)
    return ImageSplit(np.load(path, mmap_mode=mode), labels)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return draw_split(tmp_path_factory.mktemp("split"), n_labels=3)


def orders(*rows):
    return [torch.tensor(part, dtype=torch.int64) for part in rows]


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("medplus-reader")]


# --- what is served ---------------------------------------------------------------------------


@RESIDENT
@RGB
def test_batches_are_the_rows_asked_for(tmp_path, resident, rgb):
    split = draw_split(tmp_path, rgb=rgb)
    stored, labels = np.array(split.images), split.labels
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(1)).split(5)
    found = list(Batches(split, CPU, resident=resident)(rows))
    assert [len(images) for images, _ in found] == [5, 5, 5, 5, 3]
    for part, (images, truth) in zip(rows, found, strict=True):
        assert images.dtype == torch.uint8
        assert truth.dtype == torch.int64
        assert images.device == truth.device == CPU
        assert images.is_contiguous()
        np.testing.assert_array_equal(images.numpy(), stored[part.numpy()])
        np.testing.assert_array_equal(truth.numpy(), labels[part.numpy()])


@RESIDENT
@settings(max_examples=40)
@given(rows=st.lists(st.lists(st.integers(0, N - 1), max_size=6), max_size=9))
def test_any_rows_are_served_in_order(split, resident, rows):
    found = list(Batches(split, CPU, resident=resident)(orders(*rows)))
    assert len(found) == len(rows)
    for part, (images, labels) in zip(rows, found, strict=True):
        assert images.shape == (len(part), 8, 8)
        assert labels.shape == (len(part), 3)
        np.testing.assert_array_equal(images.numpy(), split.images[part].reshape(-1, 8, 8))
        np.testing.assert_array_equal(labels.numpy(), split.labels[part].reshape(-1, 3))


@RESIDENT
def test_a_split_is_served_as_often_as_asked(split, resident):
    batches = Batches(split, CPU, resident=resident)
    assert len(batches) == N
    first, second = ([images for images, _ in batches(orders([3, 1], [2]))] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@RESIDENT
def test_batches_may_be_written_to(split, resident):
    before = np.array(split.images)
    batches = Batches(split, CPU, resident=resident)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that are read-only
        for images, labels in batches(orders([0, 1], [0, 1])):
            np.testing.assert_array_equal(images.numpy(), before[:2])
            images.zero_()
            labels.fill_(7)
    np.testing.assert_array_equal(split.images, before)


@RESIDENT
def test_rows_beyond_the_split_are_an_error(split, resident):
    served = Batches(split, CPU, resident=resident)(orders([0], [N], [1]))
    next(served)
    with pytest.raises(IndexError, match=str(N)):
        next(served)
    assert not readers()


@pytest.mark.parametrize("release_bytes", [1, 200, 1 << 28])
def test_uploaded_split_is_whole_whatever_the_parts_it_is_copied_in(
    split, monkeypatch, release_bytes
):
    monkeypatch.setattr(module, "_RELEASE_BYTES", release_bytes)
    images, labels = module._Uploaded(split, CPU)(torch.arange(N).flip(0))
    np.testing.assert_array_equal(images.numpy(), split.images[::-1])
    np.testing.assert_array_equal(labels.numpy(), split.labels[::-1])


# --- memory -----------------------------------------------------------------------------------


@RESIDENT
def test_a_dataset_is_not_copied_to_memory(tmp_path, resident):
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(4000, 128, 128))
    split = ImageSplit(np.load(path, mmap_mode="r"), np.zeros((4000, 1), dtype=np.uint8))
    tracemalloc.start()
    try:
        for _ in Batches(split, CPU, resident=resident)(torch.arange(4000).split(16)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 16 * 128 * 128  # of the 250 batches, a few at a time


def resident_bytes(path: Path) -> int:
    """How much of a mapped file the kernel counts as this process's memory."""
    total, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            here = line.endswith(str(path))
        elif here and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@RESIDENT
def test_pages_that_were_read_are_given_back(tmp_path, monkeypatch, resident):
    split = draw_split(tmp_path, n=512, size=128)
    np.asarray(split.images).sum()
    assert resident_bytes(tmp_path / "images.npy") > 8e6
    monkeypatch.setattr(module, "_RELEASE_BYTES", 1 << 20)
    expected = np.array(split.images)
    for rows, (images, _) in zip(
        torch.arange(512).split(16),
        Batches(split, CPU, resident=resident)(torch.arange(512).split(16)),
        strict=True,
    ):
        np.testing.assert_array_equal(images.numpy(), expected[rows.numpy()])
    assert resident_bytes(tmp_path / "images.npy") < 3e6


def test_changes_to_a_private_map_survive(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_RELEASE_BYTES", 1)
    split = draw_split(tmp_path, mode="c")
    split.images[0] = 77
    for _ in range(2):
        images, _ = next(Batches(split, CPU, resident=True)(orders([0, 1])))
        assert (images[0] == 77).all()


# --- reading ahead ----------------------------------------------------------------------------


class Counted:
    """Rows that count how many were asked for."""

    def __init__(self, n, fails_at=None):
        self.n, self.asked, self.fails_at = n, 0, fails_at

    def __iter__(self):
        for part in range(self.n):
            self.asked += 1
            if part == self.fails_at:
                raise RuntimeError("no more rows")
            yield torch.tensor([part % N])


def test_a_bounded_number_of_batches_is_read_ahead(split):
    rows = Counted(100)
    with closing(Batches(split, CPU, resident=False)(rows)) as served:
        for done, _ in enumerate(served, start=1):
            time.sleep(0.001)  # a slow consumer must not be overtaken without end
            assert done <= rows.asked <= done + 4


def test_the_reader_works_while_the_consumer_does(split):
    batches = Batches(split, CPU, resident=False)
    read, enough = [], threading.Event()
    original = batches._read

    def reading(rows):
        read.append(threading.current_thread().name)
        if len(read) == 3:
            enough.set()
        return original(rows)

    batches._read = reading
    with closing(batches(Counted(100))) as served:
        next(served)
        assert enough.wait(10)  # while nobody asks for the second batch
    assert all(name.startswith("medplus-reader") for name in read)


def test_the_thread_ends_with_the_last_batch(split):
    for _ in Batches(split, CPU, resident=False)(Counted(9)):
        assert readers()
    assert not readers()


def test_the_thread_ends_when_the_consumer_stops_early(split):
    rows = Counted(100)
    for _ in (served := Batches(split, CPU, resident=False)(rows)):
        break
    served.close()
    assert not readers()
    assert rows.asked < 9


@RESIDENT
def test_an_error_of_the_rows_reaches_the_consumer(split, resident):
    served = Batches(split, CPU, resident=resident)(Counted(9, fails_at=6))
    with pytest.raises(RuntimeError, match="no more rows"):
        list(served)
    assert not readers()


def test_an_error_of_the_thread_reaches_the_consumer_at_its_batch(split):
    batches = Batches(split, CPU, resident=False)
    original = batches._read

    def failing(rows):
        if rows[0] == 5:
            raise OSError("the disk is gone")
        return original(rows)

    batches._read = failing
    served = batches(Counted(100))
    for _ in range(5):
        next(served)
    with pytest.raises(OSError, match="the disk is gone"):
        next(served)
    assert not readers()


# --- what fits --------------------------------------------------------------------------------


def dataset_of(*n_bytes):
    arrays = [np.broadcast_to(np.uint8(0), (n, 1, 1)) for n in n_bytes]
    return SimpleNamespace(
        splits={str(i): ImageSplit(images, np.zeros((1, 1))) for i, images in enumerate(arrays)}
    )


def test_a_cpu_takes_any_dataset():
    assert fits_on_device(dataset_of(1 << 50), CPU)


@pytest.mark.parametrize(
    ("free", "cached", "used", "fits"),
    [
        (32 << 30, 0, 0, True),
        ((32 << 30) - 2, 0, 0, False),
        (30 << 30, 3 << 30, 1 << 30, True),  # reserved by torch, not used by it
        (30 << 30, 3 << 30, 2 << 30, False),
        (0, 0, 0, False),
    ],
)
def test_a_gpu_takes_all_splits_that_leave_half_of_its_free_memory(
    monkeypatch, free, cached, used, fits
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: cached)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: used)
    images = dataset_of(12 << 30, 3 << 30, 1 << 30)
    assert fits_on_device(images, torch.device("cuda")) is fits


# --- on a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@RESIDENT
@RGB
def test_batches_on_a_gpu_are_the_rows_asked_for(tmp_path, resident, rgb):
    split = draw_split(tmp_path, rgb=rgb)
    device = torch.device("cuda")
    rows = [torch.arange(N)[::2], torch.tensor([], dtype=torch.int64), torch.tensor([5])]
    for part, (images, labels) in zip(
        rows, Batches(split, device, resident=resident)(rows), strict=True
    ):
        assert images.is_cuda
        assert labels.is_cuda
        np.testing.assert_array_equal(images.cpu().numpy(), split.images[part.numpy()])
        np.testing.assert_array_equal(labels.cpu().numpy(), split.labels[part.numpy()])


@pytest.mark.gpu
@RESIDENT
def test_batches_on_a_busy_gpu_are_not_overwritten(tmp_path, resident):
    split = draw_split(tmp_path, n=256, size=128, rgb=True)
    device = torch.device("cuda")
    rows = torch.randperm(256).repeat(8).split(32)
    work = torch.randn(4096, 4096, device=device)
    sums = []
    for images, _ in Batches(split, device, resident=resident)(rows):
        work = (work @ work).tanh()  # the batch is read long after the next ones were copied
        sums.append(images.double().sum((1, 2, 3)))
    expected = np.array(split.images).astype(np.float64).sum((1, 2, 3))
    for part, found in zip(rows, sums, strict=True):
        np.testing.assert_array_equal(found.cpu().numpy(), expected[part.numpy()])


@pytest.mark.gpu
def test_grey_images_lie_on_the_gpu_as_one_channel(tmp_path):
    split = draw_split(tmp_path, n=64, size=128)
    before = torch.cuda.memory_allocated()
    batches = Batches(split, torch.device("cuda"), resident=True)
    assert torch.cuda.memory_allocated() - before < 1.5 * split.images.nbytes
    assert len(batches) == 64
