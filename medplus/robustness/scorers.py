"""What scores a run's test images under a corruption: of a head through stores, or a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medplus.backbones.sources import is_code
from medplus.corruptions import Corruption
from medplus.datasets.dataset import ImageDataset
from medplus.device import resolve_device
from medplus.embeddings.container import to_place
from medplus.embeddings.extract import extract_all
from medplus.embeddings.pipeline import as_tensor
from medplus.embeddings.provenance import corrupted, images_of
from medplus.embeddings.store import EmbeddingStore, open_store, root_of
from medplus.errors import RunError, StoreError, UsageError
from medplus.evaluation.head import own_store
from medplus.heads.stored import read_split
from medplus.prediction.networks import load_trained
from medplus.prediction.savedrun import SavedRun
from medplus.prediction.scorers import LinearHeads, TrainedHead, Votes
from medplus.progress import Advance, Progress
from medplus.run.record import RunRecord
from medplus.vocabulary import MULTI_LABEL


@dataclass(frozen=True)
class Options:
    """Where data and stores lie, and what computes; as `medplus.robust` has them."""

    data_root: Path | None
    store: str | Path
    device: str
    batch_size: int | None
    code: str | None


class Scorer(ABC):
    """A run that can be scored on its test images under any corruption.

    Attributes
    ----------
    images : ImageDataset
        Clean.
    slow : bool
        Whether each corruption takes as long to score as it does to embed.
    passes : int
        How many networks each image goes through.
    """

    images: ImageDataset
    slow: bool
    passes: int = 1

    @contextmanager
    def loaded(self, corruptions: Sequence[Corruption], progress: Progress) -> Iterator[None]:
        """Make everything that some corruptions need, for the time of the block."""
        yield

    @abstractmethod
    def scores(self, corruption: Corruption) -> np.ndarray:
        """Return probabilities or vote shares of all test images, float32 (n, n_classes)."""


def open_scorer(record: RunRecord, options: Options) -> Scorer:
    """Return what scores a run.

    Raises
    ------
    MedplusError
        If its store, network or data are not there or are others.
    """
    named = next((s.backbone for s in record.specs if is_code(s.backbone)), None)
    if named is not None and options.code is None:
        raise UsageError(
            f"the backbone of {record.path} is defined by {named}, which runs only when you name "
            "it: add --backbone"
        )
    options = options if named is not None else replace(options, code=None)
    return (_Network if record.protocol == "finetune" else _Head)(record, options)


class _Network(Scorer):
    slow = True

    def __init__(self, record: RunRecord, options: Options) -> None:
        self.images = images_of(record, record.path, options.data_root)
        device, folder = resolve_device(options.device), Path(record.path)
        self._extractor, linear = load_trained(
            folder, record, device, options.code, batch_size=options.batch_size
        )
        many = record.task == MULTI_LABEL
        self._head = TrainedHead(linear, self._extractor.embedder, many)
        self._advance: Advance = lambda n: None
        self._path = folder

    @contextmanager
    def loaded(self, corruptions: Sequence[Corruption], progress: Progress) -> Iterator[None]:
        with progress("", len(corruptions) * len(self.images.splits["test"]), "img") as advance:
            self._advance = advance
            yield

    def scores(self, corruption: Corruption) -> np.ndarray:
        seen = corrupted(self.images, corruption)
        n, step = len(seen.splits["test"]), self._extractor.embedder.batch_limit
        parts = []
        for first in range(0, n, step):
            batch = as_tensor(seen, "test", slice(first, min(first + step, n)))
            parts.append(self._head([self._extractor(batch)]))
            self._advance(len(batch))
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise RunError(f"the network in {self._path} gives scores that are not finite")
        return found


class _Head(Scorer):
    slow = False

    def __init__(self, record: RunRecord, options: Options) -> None:
        self._record, self._options = record, options
        root = to_place(options.store)
        self._stores = [own_store(Path(record.path), part, root) for part in record.parts]
        self.passes = len(self._stores)
        self.images = images_of(self._stores[0].info, record.path, options.data_root)

    @contextmanager
    def loaded(self, corruptions: Sequence[Corruption], progress: Progress) -> Iterator[None]:
        for store in self._stores:
            missing = [one for one in corruptions if not self._is_there(store, one)]
            spec = store.info.spec
            if self._options.code is not None and is_code(spec.backbone):
                spec = replace(spec, backbone=self._options.code)
            if missing:
                extract_all(
                    [replace(spec, corruption=str(one)) for one in missing],
                    batch_size=self._options.batch_size,
                    device=self._options.device,
                    data_root=Path(self.images.path).parent,
                    store=self._root_of(store),
                    progress=progress,
                )
        yield

    def scores(self, corruption: Corruption) -> np.ndarray:
        return self._head([self._embeddings(store, corruption) for store in self._stores])

    @cached_property
    def _head(self) -> LinearHeads | Votes:
        root = to_place(self._options.store)
        return SavedRun(self._record, root, self._options.device).head()

    def _embeddings(self, store: EmbeddingStore, corruption: Corruption) -> np.ndarray:
        path = self._path(store, corruption)
        if not path.exists():
            raise StoreError(
                f"the backbone of {self._record.path} has other weights now than its embeddings "
                f"{store.path} were made with, so that its head cannot be scored; make the "
                "embeddings and the run again"
            )
        return read_split(open_store(path), "test").embeddings.whole()

    def _is_there(self, store: EmbeddingStore, corruption: Corruption) -> bool:
        try:
            open_store(self._path(store, corruption))
        except StoreError:
            return False
        return True

    def _path(self, store: EmbeddingStore, corruption: Corruption) -> Path:
        info = store.info
        spec = replace(info.spec, corruption=str(corruption))
        key = spec.key(info.dataset_digest, info.backbone_digest)
        return info.model_copy(update={"key": key}).path_under(self._root_of(store))

    def _root_of(self, store: EmbeddingStore) -> Path:
        path = store.path
        if isinstance(path, Path) and path.is_dir():
            return root_of(path)
        return Path(self._options.store)
