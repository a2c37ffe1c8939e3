"""Where training gets its rows from: features on the device, or windows of what is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from medplus.heads.features import Features, HeldFeatures, empty_rows
from medplus.memory import spare_memory
from medplus.vocabulary import Split

_WINDOW_CPU, _WINDOW_GPU = 1 << 21, 1 << 26  # bytes: what a processor's cache holds; few launches
_ALIGNMENT = 64


class Feed:
    """Rows of one split, in batches for training and in blocks for evaluation.

    Rows are gathered for many batches at once, which costs half of what single batches do: see
    ``benchmarks/bench_probe.py``.

    Features that are too large for the device, or for the whole machine, are taken as they are.
    Shuffled rows lie anywhere, and fetching each by itself would be slow on a disk. The orders are
    known beforehand, though: a window takes the next batches of all seeds, as many as fit, and one
    pass over the features in their own order fills it. An epoch so costs
    ``n_seeds · bytes / window`` passes, and sees the same batches as from memory.

    Parameters
    ----------
    source : Tensor of float32, shape (n_samples, dim), or Features
        A tensor lies on the device.
    device : torch.device, optional
        Where features are to be given; by default the CPU.
    window : int, optional
        Size of a window on features in bytes; by default what memory can spare when it is first
        filled.

    Attributes
    ----------
    shape : (int, int)
        (n_samples, dim).
    device : torch.device
    """

    def __init__(
        self,
        source: torch.Tensor | Features,
        device: torch.device | None = None,
        window: int | None = None,
    ) -> None:
        self._source, self._window = source, window
        if isinstance(source, torch.Tensor):
            device = source.device
            self._window = _WINDOW_CPU if device.type == "cpu" else _WINDOW_GPU
        self.device = device or torch.device("cpu")
        self.shape = (source.shape[0], source.shape[1])
        self._host = empty_rows(0, self.shape[1])
        self._place = torch.from_numpy(self._host).to(self.device)

    @property
    def is_resident(self) -> bool:
        """Whether the rows lie on the device."""
        return isinstance(self._source, torch.Tensor)

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
        orders = orders.to(self.device) if self.is_resident else orders
        for start in range(0, n, length):
            parts = _by_batch(orders[:, start : start + length], size)
            numbers = torch.cat([part.reshape(-1) for part in parts])
            rows = self._gather(numbers, room)
            numbers, first = numbers.to(self.device), 0
            for part in parts:
                last = first + part.numel()
                yield numbers[first:last].view(part.shape), rows[first:last].view(*part.shape, dim)
                first = last

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, a block at a time, each with its place."""
        if isinstance(self._source, torch.Tensor):
            for start in range(0, len(self._source), rows):
                yield slice(start, start + rows), self._source[start : start + rows]
            return
        for start, block in self._source.blocks(rows):
            yield slice(start, start + len(block)), torch.from_numpy(block).to(self.device)

    def _window_bytes(self) -> int:
        if self._window is None:
            self._window = spare_memory(self.device)
        return self._window

    def _gather(self, numbers: torch.Tensor, room: int) -> torch.Tensor:
        """Return the rows of these numbers, float32 (len(numbers), dim), on the device.

        They lie where the last ones did. New memory for every window would cost as much time
        again, and twice the memory while the last batch is still held. `room` is how many rows
        there may be at most, from now on.
        """
        n, on_host = len(numbers), self.device.type == "cpu"
        is_short = len(self._place) < room
        if isinstance(self._source, torch.Tensor):
            if is_short:
                self._place = self._source.new_empty(room, self.shape[1])
            return torch.index_select(self._source, 0, numbers, out=self._place[:n])
        if is_short:
            self._host = empty_rows(room, self.shape[1])
            self._place = torch.from_numpy(self._host)
            if not on_host:
                self._place = torch.empty(room, self.shape[1], device=self.device)
        self._source.gather(numbers.numpy(), out=self._host[:n])
        rows = self._place[:n]
        return rows if on_host else rows.copy_(torch.from_numpy(self._host[:n]))


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
        return {split: Feed(torch.from_numpy(held[split]).to(device)) for split in held}
    return {split: Feed(features[split], device) for split in features}
