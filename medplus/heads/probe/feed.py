"""Where training gets its rows from: features on the device, or windows of what is elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch

from medplus.heads.features import Features, HeldFeatures, empty_rows
from medplus.memory import spare_memory
from medplus.vocabulary import Split

_WINDOW_CPU, _WINDOW_GPU = 1 << 21, 1 << 26  # bytes: what a processor's cache holds; few launches
_ALIGNMENT = 64


class Feed(ABC):
    """Rows of one split, in batches for training and in blocks for evaluation.

    Rows are gathered for many batches at once, which costs half of what single batches do: see
    ``benchmarks/bench_probe.py``.

    Attributes
    ----------
    shape : (int, int)
        (n_samples, dim).
    device : torch.device
        Where the rows are given.
    """

    shape: tuple[int, int]
    device: torch.device

    def windows(
        self, orders: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield, for some batches at a time, row numbers and rows; the next window overwrites them.

        Parameters
        ----------
        orders : Tensor of int64, shape (n_seeds, n_samples), on the CPU
            The order in which each seed sees the rows.
        size : int
            Rows in a batch; the last one of an epoch may be smaller, and is a window of its own.

        Yields
        ------
        numbers : Tensor of int64, shape (n_batches, n_seeds, size)
        rows : Tensor of float32, shape (n_batches, n_seeds, size, dim)
        """
        (n_seeds, n), dim = orders.shape, self.shape[1]
        room = max(n_seeds * size, min(self._window_bytes() // (4 * dim), n_seeds * n))
        length = room // (n_seeds * size) * size
        orders = self._prepare(orders)
        for start in range(0, n, length):
            parts = _by_batch(orders[:, start : start + length], size)
            numbers = torch.cat([part.reshape(-1) for part in parts])
            rows = self._gather(numbers, room)
            numbers, first = numbers.to(self.device), 0
            for part in parts:
                last = first + part.numel()
                yield numbers[first:last].view(part.shape), rows[first:last].view(*part.shape, dim)
                first = last

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, a block at a time, each with its place."""

    @abstractmethod
    def _window_bytes(self) -> int: ...

    def _prepare(self, orders: torch.Tensor) -> torch.Tensor:
        return orders

    @abstractmethod
    def _gather(self, numbers: torch.Tensor, room: int) -> torch.Tensor:
        """Return the rows of these numbers, float32 (len(numbers), dim), on the device.

        They lie where the last ones did. New memory for every window would cost as much time
        again, and twice the memory while the last batch is still held. `room` is how many rows
        there may be at most, from now on.
        """


def _by_batch(orders: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Return (n_batches, n_seeds, size) of whole batches, and (1, n_seeds, rest) if any remain."""
    whole = orders.shape[1] // size
    full = orders[:, : whole * size].reshape(len(orders), whole, size).transpose(0, 1)
    rest = orders[:, whole * size :].unsqueeze(0)
    return [part for part in (full, rest) if part.numel()]


def aligned(batch: torch.Tensor) -> torch.Tensor:
    """Return a batch at an address like every other's.

    The last bit of a matrix product may depend on where its factors lie, but not on how many
    batches were gathered together.
    """
    return batch if batch.data_ptr() % _ALIGNMENT == 0 else batch.clone()


class Resident(Feed):
    """Features that lie on the device."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self.shape = (rows.shape[0], rows.shape[1])
        self.device = rows.device
        self._place: torch.Tensor | None = None

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: D102
        for start in range(0, len(self._rows), rows):
            yield slice(start, start + rows), self._rows[start : start + rows]

    def _window_bytes(self) -> int:
        return _WINDOW_CPU if self.device.type == "cpu" else _WINDOW_GPU

    def _prepare(self, orders: torch.Tensor) -> torch.Tensor:
        return orders.to(self.device)

    def _gather(self, numbers: torch.Tensor, room: int) -> torch.Tensor:
        if self._place is None or len(self._place) < room:
            self._place = self._rows.new_empty(room, self.shape[1])
        return torch.index_select(self._rows, 0, numbers, out=self._place[: len(numbers)])


class Windowed(Feed):
    """Features that are too large for the device, or for the whole machine.

    Shuffled rows lie anywhere, and fetching each by itself would be slow on a disk. The orders are
    known beforehand, though: a window takes the next batches of all seeds, as many as fit, and one
    pass over the features in their own order fills it. An epoch so costs
    ``n_seeds · bytes / window`` passes, and sees the same batches as from memory.

    Parameters
    ----------
    features : Features
    device : torch.device
    window : int, optional
        Size of the window in bytes; by default what memory can spare when it is first filled.
    """

    def __init__(self, features: Features, device: torch.device, window: int | None = None) -> None:
        self._features = features
        self._window = window
        self.shape = features.shape
        self.device = device
        self._host = empty_rows(0, self.shape[1])
        self._place: torch.Tensor | None = None

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: D102
        for start, block in self._features.blocks(rows):
            yield slice(start, start + len(block)), torch.from_numpy(block).to(self.device)

    def _window_bytes(self) -> int:
        if self._window is None:
            self._window = spare_memory(self.device)
        return self._window

    def _gather(self, numbers: torch.Tensor, room: int) -> torch.Tensor:
        n, on_host = len(numbers), self.device.type == "cpu"
        if self._place is None or len(self._place) < room:
            self._host = host = empty_rows(room, self.shape[1])
            self._place = (
                torch.from_numpy(host) if on_host else torch.empty(host.shape, device=self.device)
            )
        self._features.gather(numbers.numpy(), out=self._host[:n])
        rows = self._place[:n]
        return rows if on_host else rows.copy_(torch.from_numpy(self._host[:n]))


def make_feeds(features: Mapping[Split, Features], device: torch.device) -> dict[Split, Feed]:
    """Return the feeds of a store's splits: all resident, or all windowed.

    They are resident if they are held in memory and, on a GPU, fit into its memory to spare.
    """
    held = {s: f.rows for s, f in features.items() if isinstance(f, HeldFeatures)}
    nbytes = sum(rows.nbytes for rows in held.values())
    resident = len(held) == len(features) and (
        device.type == "cpu" or nbytes <= spare_memory(device)
    )
    if resident:
        return {split: Resident(torch.from_numpy(held[split]).to(device)) for split in held}
    return {split: Windowed(features[split], device) for split in features}
