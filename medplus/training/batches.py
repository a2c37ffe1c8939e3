"""From the uint8 images of a split to batches on the device, in any order of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from medplus.datasets.dataset import ImageDataset, ImageSplit
from medplus.embeddings.pipeline import read_ahead
from medplus.memory import release_pages

Batch = tuple[torch.Tensor, torch.Tensor]

# The rest is for the network, its optimiser and the activations.
_DEVICE_SHARE = 0.5
_RELEASE_BYTES = 1 << 28


def fits_on_device(images: ImageDataset, device: torch.device) -> bool:
    """Tell whether all splits may lie on the device and leave room to train there.

    A CPU reads the memory-mapped cache itself, whatever its size.
    """
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has reserved and does not use is not free to others, but it is to us.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return sum(split.images.nbytes for split in images.splits.values()) <= _DEVICE_SHARE * free


class Batches:
    """Serves batches of one split in any order of rows, as often as asked.

    Parameters
    ----------
    split : ImageSplit
    device : torch.device
        Where the batches are to lie.
    resident : bool
        On CUDA, the whole split is copied to the device now. On a CPU, every batch is read from
        the memory-mapped cache when it is asked for. Where False, a thread reads the next batches
        ahead of the consumer and copies them to the device meanwhile.
    """

    def __init__(self, split: ImageSplit, device: torch.device, *, resident: bool) -> None:
        self._split = split
        self._device = device
        self._read: Callable[[torch.Tensor], Batch] = (
            _Uploaded(split, device) if resident and device.type == "cuda" else _Reader(split)
        )
        self._ahead = not resident

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._split)

    def __call__(self, rows: Iterable[torch.Tensor]) -> Generator[Batch, None, None]:
        """Yield one batch for each tensor of row numbers.

        Parameters
        ----------
        rows : iterable of Tensor of int64, shape (n,)
            On the CPU.

        Yields
        ------
        images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)
        labels : Tensor of int64, shape (n, n_labels)
            Both on the device.
        """
        if self._ahead:
            return _read_ahead(self._read, rows, self._device)
        return (self._read(part) for part in rows)


class _Reader:
    """Reads rows of a split from its memory-mapped cache; not the whole of it stays in memory."""

    def __init__(self, split: ImageSplit) -> None:
        # Without numpy's subclass for maps, whose bookkeeping costs more than a small batch.
        self._images = np.asarray(split.images)
        self._labels = split.labels.astype(np.int64)
        self._unreleased = 0

    def __call__(self, rows: torch.Tensor) -> Batch:
        index = rows.numpy()
        images = np.take(self._images, index, axis=0)
        labels = np.take(self._labels, index, axis=0)
        self._release(images.nbytes)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _release(self, n_bytes: int) -> None:
        """Give pages that have been read back to the system, or they add up to the dataset."""
        self._unreleased += n_bytes
        if self._unreleased < _RELEASE_BYTES:
            return
        self._unreleased = 0
        release_pages(self._images)


class _Uploaded:
    """A split that lies on the device; grey images keep one channel there."""

    def __init__(self, split: ImageSplit, device: torch.device) -> None:
        self._images = torch.empty(split.images.shape, dtype=torch.uint8, device=device)
        self._labels = torch.empty(split.labels.shape, dtype=torch.int64, device=device)
        read = _Reader(split)
        step = max(1, _RELEASE_BYTES // math.prod(split.images.shape[1:]))
        for first in range(0, len(split), step):  # in parts: memory may be less than the dataset
            part = slice(first, min(first + step, len(split)))
            self._images[part], self._labels[part] = read(torch.arange(part.start, part.stop))

    def __call__(self, rows: torch.Tensor) -> Batch:
        index = to_device(rows, self._images.device)
        return self._images.index_select(0, index), self._labels.index_select(0, index)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to the device behind what it is doing now, which nobody waits for."""
    if device.type == "cuda":
        # Torch reuses pinned memory that is dropped here only once the copy from it has ended.
        tensor = tensor.contiguous().pin_memory()
    return tensor.to(device, non_blocking=True)


class _Copied(NamedTuple):
    """A batch whose copy to the device is under way until the event has passed."""

    images: torch.Tensor
    labels: torch.Tensor
    event: torch.cuda.Event | None


def _read_ahead(
    read: Callable[[torch.Tensor], Batch], rows: Iterable[torch.Tensor], device: torch.device
) -> Generator[Batch, None, None]:
    """Read and copy in a thread, a few batches ahead of the consumer."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    copied = map(partial(_fetch, read, stream=stream), rows)
    with closing(read_ahead(copied)) as batches:
        yield from map(_arrived, batches)


def _fetch(
    read: Callable[[torch.Tensor], Batch], rows: torch.Tensor, stream: torch.cuda.Stream | None
) -> _Copied:
    images, labels = read(rows)
    if stream is None:
        return _Copied(images, labels, None)
    with torch.cuda.stream(stream):
        images, labels = (to_device(tensor, stream.device) for tensor in (images, labels))
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
    return _Copied(images, labels, event)


def _arrived(batch: _Copied) -> Batch:
    if batch.event is not None:
        current = torch.cuda.current_stream(batch.images.device)
        current.wait_event(batch.event)
        for tensor in (batch.images, batch.labels):
            tensor.record_stream(current)  # else its memory may be reused while it is read
    return batch.images, batch.labels
