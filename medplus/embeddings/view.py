"""A view: some rows of a store under the three splits' names, never a copy.

Whatever reads a store reads a view: heads, folds and curves differ in the rows that they are given
and in nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from medplus.datasets.card import Card
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.layout import Visit
from medplus.embeddings.store import Damage, EmbeddingStore
from medplus.errors import UsageError
from medplus.vocabulary import SPLITS, Split


class View(EmbeddingStore):
    """A store that consists of some rows of another.

    Parameters
    ----------
    store : EmbeddingStore
    rows : mapping of split to ndarray of int64, shape (n_rows,)
        The rows that a split of the view consists of, counted over the store's train, val and test
        in this order; ascending, none twice, so that they are read chunk by chunk.
    warnings : sequence of str
        What is to be said of the rows, beside what is said of the data.

    Attributes
    ----------
    store, rows
    path, key
        The store's: those of the embeddings, whichever rows are read.

    Raises
    ------
    UsageError
        If a split is empty, or its rows are not ascending or not in the store.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        rows: Mapping[Split, np.ndarray],
        warnings: Sequence[str] = (),
    ) -> None:
        total = sum(store.info.n_samples.values())
        for split in SPLITS:
            chosen = rows[split]
            if not len(chosen):
                raise UsageError(f"{store.path}: nothing of {split} is left")
            if chosen[0] < 0 or chosen[-1] >= total or (np.diff(chosen) <= 0).any():
                raise UsageError(f"{store.path}: rows of {split} must ascend from 0 to {total - 1}")
        self.store, self.rows = store, rows
        self.path = store.path
        self._warnings = list(warnings)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(self.rows[split])}" for split in SPLITS)
        return f"View({str(self.path)!r}: {sizes})"

    @property
    def key(self) -> str:
        """The store's key: that of the embeddings, whichever rows are read."""
        return self.store.key

    @cached_property
    def info(self) -> StoreInfo:  # type: ignore[override]  # read when it is first asked for
        """What the store says of itself, with the numbers of the rows that are left."""
        info = self.store.info
        card = Card(info.task, warnings=[*info.warnings, *self._warnings])
        card.describe(info.classes, {split: self.labels(split) for split in SPLITS})
        return info.model_copy(
            update={
                "n_samples": {split: len(self.rows[split]) for split in SPLITS},
                "baseline_acc": card.baseline_acc,
                "warnings": card.warnings,
            }
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows of all splits, in hex: with `key` it identifies what is read."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(f"{split}:{len(self.rows[split])};".encode())
            digest.update(np.ascontiguousarray(self.rows[split], "<i8").tobytes())
        return digest.hexdigest()

    def embeddings(self, split: Split) -> np.ndarray:
        """Return a split's embeddings, shape (n_rows, dim); see `EmbeddingStore.embeddings`."""
        values = np.empty((len(self.rows[split]), self.info.dim), self.info.dtype)

        def copy(place: slice, chunk: np.ndarray) -> None:
            values[place] = chunk

        self.visit(split, copy)
        return values

    def visit(self, split: Split, visit: Visit, rows: slice = slice(None)) -> None:
        """Show a split's embeddings in parts, as `EmbeddingStore.visit` does."""
        first, last, _ = rows.indices(len(self.rows[split]))
        for source, place, own in self._parts(split):
            start, stop = max(place.start, first), min(place.stop, last)
            if start >= stop:
                continue

            def show(
                chunk: slice, values: np.ndarray, own: np.ndarray = own, at: int = place.start
            ) -> None:
                begin, end = np.searchsorted(own, (chunk.start, chunk.stop))
                if begin < end:
                    visit(slice(at + begin, at + end), values[own[begin:end] - chunk.start])

            wanted = own[start - place.start : stop - place.start]
            self.store.visit(source, show, slice(int(wanted[0]), int(wanted[-1]) + 1))

    def column(self, split: Split, name: str) -> Any:
        """Return a column of the rows, as `EmbeddingStore.column` does."""
        parts = [(self.store.column(source, name), own) for source, _, own in self._parts(split)]
        if isinstance(parts[0][0], list):
            return [values[row] for values, own in parts for row in own]
        return np.concatenate([values[own] for values, own in parts])

    def verify(self) -> list[Damage]:
        """Check every byte of the store that the view is of."""
        return self.store.verify()

    def _parts(self, split: Split) -> Iterator[tuple[Split, slice, np.ndarray]]:
        """Yield the store's splits that rows lie in, their place in the view, and their rows."""
        chosen, begin = self.rows[split], 0
        for source in SPLITS:
            end = begin + self.store.info.n_samples[source]
            start, stop = np.searchsorted(chosen, (begin, end))
            if start < stop:
                yield source, slice(int(start), int(stop)), chosen[start:stop] - begin
            begin = end
