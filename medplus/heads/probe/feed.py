"""Where training gets its rows from: features on the device, or windows of what is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch

from medplus.heads.features import Features, HeldFeatures, empty_rows
from medplus.memory import spare_memory
from medplus.vocabulary import Split


class Feed(Protocol):
    """Rows of one split, in batches for training and in blocks for evaluation.

    Attributes
    ----------
    shape : (int, int)
        (n_samples, dim).
    device : torch.device
        Where the rows are given.
    """

    @property
    def shape(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def batches(
        self, orders: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield every batch's row numbers (n_seeds, size) and rows (n_seeds, size, dim).

        Parameters
        ----------
        orders : Tensor of int64, shape (n_seeds, n_samples), on the CPU
            The order in which each seed sees the rows.
        """

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, a block at a time, each with its place."""


class Resident:
    """Features that lie on the device."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self.shape = (rows.shape[0], rows.shape[1])
        self.device = rows.device

    def batches(  # noqa: D102
        self, orders: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        orders = orders.to(self.device)
        for start in range(0, orders.shape[1], size):
            numbers = orders[:, start : start + size]
            rows = self._rows.index_select(0, numbers.reshape(-1))
            yield numbers, rows.view(*numbers.shape, -1)

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: D102
        for start in range(0, len(self._rows), rows):
            yield slice(start, start + rows), self._rows[start : start + rows]


class Windowed:
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

    def batches(  # noqa: D102
        self, orders: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        (n_seeds, n), dim = orders.shape, self.shape[1]
        if self._window is None:
            self._window = spare_memory(self.device)
        # Whole batches, and at least one.
        length = max(1, self._window // (n_seeds * size * dim * 4)) * size
        place = empty_rows(n_seeds * min(length, n), dim)
        for start in range(0, n, length):
            numbers = orders[:, start : start + length]
            filled = place[: numbers.numel()]
            self._features.gather(numbers.reshape(-1).numpy(), out=filled)
            window = torch.from_numpy(filled).to(self.device).view(*numbers.shape, dim)
            numbers = numbers.to(self.device)
            for first in range(0, numbers.shape[1], size):
                part = slice(first, first + size)
                rows = window[:, part].clone(memory_format=torch.contiguous_format)
                yield numbers[:, part], rows
            del window  # before the next one takes its place on the device

    def blocks(self, rows: int) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: D102
        for start, block in self._features.blocks(rows):
            yield slice(start, start + len(block)), torch.from_numpy(block).to(self.device)


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
