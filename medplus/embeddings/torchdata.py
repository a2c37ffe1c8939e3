"""A split of a store as a dataset of torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from medplus.embeddings.layout import CHUNK_ROWS
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.errors import UsageError, nearest
from medplus.heads.features import StoredFeatures, fit_memory, read_features
from medplus.memory import spare_memory
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

Extra = Literal["index", "name", "group"]


class Sample(tuple[Any, ...]):
    """An embedding, its label, and what else was asked for."""

    __slots__ = ()


class Batch(Sequence[Sample]):
    """Samples whose values lie beside each other, so that they need not be brought together."""

    def __init__(self, columns: Sequence[Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, at: Any) -> Any:
        values = (column[at] for column in self.columns)
        return Batch(tuple(values)) if isinstance(at, slice) else Sample(values)


def _collate(samples: Sequence[Sample], **_: Any) -> list[Any]:
    """Return what torch makes of a list of tuples, without stacking what lies together."""
    columns = samples.columns if isinstance(samples, Batch) else zip(*samples, strict=True)
    return [c if isinstance(c, torch.Tensor) else default_collate(list(c)) for c in columns]


default_collate_fn_map[Sample] = _collate  # torch's way to extend `default_collate`


class StoreDataset(Dataset[Sample]):
    """Embeddings and labels of a split, for `torch.utils.data.DataLoader`.

    A sample is an embedding, float32, shape (dim,), and its label: a class as a number, int64,
    which cross-entropy takes; or 0 and 1 for each label, float32, shape (n_labels,), which binary
    cross-entropy takes. Embeddings that fit into memory are read once, and shared by the workers of
    a loader; others are read in chunks when they are asked for, so that shuffling is slow there.

    Parameters
    ----------
    store : EmbeddingStore, or its path
    split : {"train", "val", "test"}
    transform : callable, optional
        Applied to the embedding of each sample.
    also : sequence of {"index", "name", "group"}, optional
        What a sample has beside these two: its place in the source split, where it came from, what
        it belongs to.
    hold : bool, optional
        Whether embeddings are held in memory; by default if they fit.

    Attributes
    ----------
    names, groups : list of str
        Of all rows; empty where groups are not known.
    labels : Tensor, shape (n_samples,) or (n_samples, n_labels)
    classes : list of str

    Raises
    ------
    UsageError
        If there is no such split, or `also` asks for what is not known.
    StoreError, RunError
        If the store is damaged, or its embeddings are not finite.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> embedding, label = medplus.StoreDataset(store, "train")[0]
    >>> embedding.shape, label.dtype
    (torch.Size([784]), torch.int64)
    """

    def __init__(
        self,
        store: EmbeddingStore | str | Path,
        split: Split,
        transform: Callable[[torch.Tensor], Any] | None = None,
        *,
        also: Sequence[Extra] = (),
        hold: bool | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"unknown split '{split}'; use {', '.join(SPLITS)}")
        self.store = store if isinstance(store, EmbeddingStore) else open_store(store)
        self.split: Split = split
        self.transform, self.also = transform, tuple(also)
        info = self.store.info
        self.classes = info.classes
        for name in self.also:
            if name not in get_args(Extra):
                raise UsageError(f"unknown column '{name}'{nearest(name, get_args(Extra))}")
            if name == "group" and not info.group_nbytes:
                raise UsageError(f"{self.store.path}: which images belong together is not known")
        labels = torch.from_numpy(self.store.labels(split))
        self.labels = labels.float() if info.task == MULTI_LABEL else labels[:, 0].long()
        held = fit_memory(self.store) if hold is None else hold
        features = read_features(self.store, split, hold=held)
        self._held = torch.from_numpy(features.whole()) if held else None
        self._chunks: OrderedDict[int, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Sample:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: Sequence[int]) -> Sequence[Sample]:
        """Return some samples at once, as a loader asks for them."""
        numbers = torch.as_tensor(list(rows))
        embeddings: Any = self._embeddings(numbers)
        if self.transform is not None:
            embeddings = [self.transform(row) for row in embeddings]
        return Batch((embeddings, self.labels[numbers], *self._extras(numbers)))

    @cached_property
    def names(self) -> list[str]:
        """Where each row came from; of those that is not known, empty."""
        return self.store.names(self.split)

    @cached_property
    def groups(self) -> list[str]:
        """What each row belongs to, such as a patient; empty where that is not known."""
        return self.store.groups(self.split)

    @cached_property
    def index(self) -> torch.Tensor:
        """The place of each row in the source split, int64."""
        return torch.from_numpy(self.store.index(self.split))

    def _extras(self, numbers: torch.Tensor) -> list[Any]:
        columns = {"index": "index", "name": "names", "group": "groups"}
        found: list[Any] = []
        for name in self.also:
            column = getattr(self, columns[name])
            is_text = isinstance(column, list)
            found.append([column[n] for n in numbers.tolist()] if is_text else column[numbers])
        return found

    def _embeddings(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of some rows, float32, shape (n, dim), in memory of their own."""
        if self._held is not None:
            return self._held.index_select(0, numbers)
        rows = torch.empty(len(numbers), self.store.info.dim)
        chunks = numbers // CHUNK_ROWS
        for chunk in dict.fromkeys(chunks.tolist()):
            own = chunks == chunk
            rows[own] = self._chunk(chunk)[numbers[own] - chunk * CHUNK_ROWS]
        return rows

    def _chunk(self, chunk: int) -> torch.Tensor:
        """Return a chunk's rows; those used last are kept, in a quarter of the memory to spare."""
        if chunk in self._chunks:
            self._chunks.move_to_end(chunk)
            return self._chunks[chunk]
        first = chunk * CHUNK_ROWS
        rows = np.empty((min(CHUNK_ROWS, len(self) - first), self.store.info.dim), np.float32)
        StoredFeatures(self.store, self.split).read(first, rows)
        while self._chunks and (len(self._chunks) + 1) * rows.nbytes > spare_memory() // 4:
            self._chunks.popitem(last=False)
        self._chunks[chunk] = torch.from_numpy(rows)
        return self._chunks[chunk]
