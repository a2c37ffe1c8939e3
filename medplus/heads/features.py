"""Embeddings for heads: held in memory, or left in their store where memory is too small.

Both give the same rows, so what is computed on them does not depend on which it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError
from medplus.memory import spare_memory
from medplus.vocabulary import Split


class Rows(ABC):
    """Rows of float32, to be had in order."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n_samples, dim)."""

    @abstractmethod
    def read(self, first: int, out: np.ndarray) -> None:
        """Fill `out`, shape (n, dim), with the rows from number `first` on."""

    def __len__(self) -> int:
        return self.shape[0]

    def whole(self) -> np.ndarray:
        """Return all rows, float32, shape (n_samples, dim)."""
        rows = empty_rows(*self.shape)
        self.read(0, rows)
        return rows

    def blocks(self, length: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of its first row and the rows of every block, in order.

        A block is overwritten by the next.
        """
        n, dim = self.shape
        place = empty_rows(min(length, n), dim)
        for first in range(0, n, length):
            block = place[: min(length, n - first)]
            self.read(first, block)
            yield first, block


class Features(Rows):
    """Embeddings of one split, in order or by number."""

    @abstractmethod
    def gather(self, numbers: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows of these numbers, in their order, to `out`, shape (len(numbers), dim)."""


@dataclass(frozen=True)
class HeldFeatures(Features):
    """Features in memory: an ndarray of float32, shape (n_samples, dim)."""

    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:  # noqa: D102
        return self.rows.shape[0], self.rows.shape[1]

    def read(self, first: int, out: np.ndarray) -> None:  # noqa: D102
        out[:] = self.rows[first : first + len(out)]

    def whole(self) -> np.ndarray:  # noqa: D102
        return self.rows

    def blocks(self, length: int) -> Iterator[tuple[int, np.ndarray]]:  # noqa: D102
        for first in range(0, len(self), length):
            yield first, self.rows[first : first + length]

    def gather(self, numbers: np.ndarray, out: np.ndarray) -> None:  # noqa: D102
        np.take(self.rows, numbers, axis=0, out=out, mode="clip")  # "raise" would copy twice


@dataclass(frozen=True)
class StoredFeatures(Features):
    """Features in a store: every use reads and checks the chunks that it needs.

    Whole chunks are read in order, which disks and file servers do best, and each is checked, so
    that a store which is damaged meanwhile is noticed. A map of the files would do neither.
    """

    store: EmbeddingStore
    split: Split

    @property
    def shape(self) -> tuple[int, int]:  # noqa: D102
        n, dim = self.store.info.layout(self.split).shape
        return n, dim

    def read(self, first: int, out: np.ndarray) -> None:  # noqa: D102
        last = first + len(out)

        def copy(rows: slice, values: np.ndarray) -> None:
            start, stop = max(rows.start, first), min(rows.stop, last)
            out[start - first : stop - first] = values[start - rows.start : stop - rows.start]

        self.store.visit(self.split, copy, slice(first, last))

    def gather(self, numbers: np.ndarray, out: np.ndarray) -> None:  # noqa: D102
        order = np.argsort(numbers)
        ascending = numbers[order]

        def pick(rows: slice, values: np.ndarray) -> None:
            start, stop = np.searchsorted(ascending, (rows.start, rows.stop))
            out[order[start:stop]] = values[ascending[start:stop] - rows.start]

        self.store.visit(self.split, pick)


@dataclass(frozen=True)
class JoinedRows(Rows):
    """One after the other."""

    parts: tuple[Rows, ...]

    @property
    def shape(self) -> tuple[int, int]:  # noqa: D102
        return sum(map(len, self.parts)), self.parts[0].shape[1]

    def read(self, first: int, out: np.ndarray) -> None:  # noqa: D102
        last, begin = first + len(out), 0
        for part in self.parts:
            start, stop = max(first, begin), min(last, begin + len(part))
            if start < stop:
                part.read(start - begin, out[start - first : stop - first])
            begin += len(part)


def empty_rows(n: int, dim: int) -> np.ndarray:
    """Return memory for float32 rows, aligned alike however it comes to be filled.

    The last bit of a matrix product may depend on where its factors lie.
    """
    import torch

    values: np.ndarray = torch.empty(n, dim).numpy()
    return values


def read_features(store: EmbeddingStore, split: Split, *, hold: bool = True) -> Features:
    """Read a split's embeddings once, to hold or only to check them.

    Raises
    ------
    StoreError
        If the store is damaged.
    RunError
        If embeddings are not finite.
    """
    stored = StoredFeatures(store, split)
    held = empty_rows(*stored.shape) if hold else None
    bad: list[int] = []

    def check(rows: slice, values: np.ndarray) -> None:
        bad.extend(rows.start + np.flatnonzero(~np.isfinite(values).all(axis=1)))
        if held is not None:
            held[rows] = values

    store.visit(split, check)
    if bad:
        raise RunError(
            f"{store.path}: {len(bad)} embeddings of {split} are not finite (first in row "
            f"{min(bad)}); delete the store and extract it with --precision fp32"
        )
    return stored if held is None else HeldFeatures(held)


def fit_memory(store: EmbeddingStore) -> bool:
    """Tell whether all embeddings of a store, as float32, fit into the memory to spare."""
    rows = sum(store.info.n_samples.values())
    return rows * store.info.dim * 4 <= spare_memory()
