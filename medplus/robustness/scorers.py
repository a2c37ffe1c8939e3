"""What scores a run's test images under a corruption: of a head through stores, or a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch

from medplus.backbones.sources import is_code
from medplus.corruptions import Corruption
from medplus.datasets import catalog
from medplus.datasets.corrupted import corrupted
from medplus.datasets.dataset import ImageDataset
from medplus.datasets.sources import load_dataset
from medplus.device import resolve_device
from medplus.embeddings.extract import extract_all
from medplus.embeddings.store import open_store, root_of, to_place
from medplus.errors import StoreError, UsageError
from medplus.evaluation.head import own_store
from medplus.evaluation.network import network_on_test
from medplus.evaluation.prepared import EvaluationOptions
from medplus.heads.knn.search import search
from medplus.heads.knn.vote import vote_shares
from medplus.heads.stored import StoredSplit, read_split
from medplus.progress import Advance, Progress, silent
from medplus.run.ledger import read_head
from medplus.run.record import PartFacts, RunRecord
from medplus.spec import ExtractSpec
from medplus.training.loss import probabilities
from medplus.vocabulary import MULTI_LABEL, Metric, Vote


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
    """

    images: ImageDataset
    slow: bool

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
    named = record.spec.backbone
    if is_code(named) and options.code is None:
        raise UsageError(
            f"the backbone of {record.path} is defined by {named}, which runs only when you name "
            "it: add --backbone"
        )
    return (_Network if record.protocol == "finetune" else _Head)(record, options)


class _Network(Scorer):
    slow = True

    def __init__(self, record: RunRecord, options: Options) -> None:
        by_flag = record.spec.dataset in catalog.FLAGS
        self._record = record
        self._progress: Progress = silent
        self._options = EvaluationOptions(
            dataset=None if by_flag else record.spec.dataset,
            size=None,
            splits=("test",),
            data_root=options.data_root or Path("data"),
            store_root=to_place(options.store),
            device=resolve_device(options.device),
            precision=None,
            batch_size=options.batch_size,
            code=options.code,
            progress=self._report,
        )
        self.images, self._logits = network_on_test(Path(record.path), self._options)

    def _report(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        return self._progress(what, total, unit)

    @contextmanager
    def loaded(self, corruptions: Sequence[Corruption], progress: Progress) -> Iterator[None]:
        self._progress = progress
        try:
            yield
        finally:
            self._progress = silent

    def scores(self, corruption: Corruption) -> np.ndarray:
        logits = self._logits(corrupted(self.images, corruption))
        found: np.ndarray = probabilities(logits, self._record.task == MULTI_LABEL).numpy()
        return found


class _Head(Scorer):
    slow = False

    def __init__(self, record: RunRecord, options: Options) -> None:
        self._record, self._options = record, options
        assert record.store is not None  # as every head's record has it
        part = PartFacts(
            path=record.store.path,
            key=record.store.key,
            spec=record.spec,
            backbone_digest=record.backbone_digest,
        )
        self._clean = own_store(Path(record.path), part, to_place(options.store))
        self.images = load_dataset(
            self._spec.dataset,
            self._spec.size,
            self._data_root,
            group_column=self._spec.group_column,
            exclude=self._spec.exclude,
        )
        if self.images.digest != record.dataset_digest:
            raise UsageError(
                f"{self.images.path} holds other data than {record.path} was made on; name the "
                "folder of its data with --data-root"
            )

    @property
    def _spec(self) -> ExtractSpec:
        spec = self._clean.info.spec
        return spec if self._options.code is None else replace(spec, backbone=self._options.code)

    @property
    def _data_root(self) -> Path:
        info = self._clean.info
        if self._options.data_root is not None or info.spec.dataset not in catalog.FLAGS:
            return self._options.data_root or Path("data")
        return Path(info.dataset_path).parent

    @property
    def _root(self) -> Path:
        path = self._clean.path
        here = isinstance(path, Path) and path.is_dir()
        return root_of(path) if here and isinstance(path, Path) else Path(self._options.store)

    def _path(self, corruption: Corruption) -> Path:
        info = self._clean.info
        spec = replace(info.spec, corruption=str(corruption))
        key = spec.key(info.dataset_digest, info.backbone_digest)
        return info.model_copy(update={"key": key}).path_under(self._root)

    @contextmanager
    def loaded(self, corruptions: Sequence[Corruption], progress: Progress) -> Iterator[None]:
        missing = [one for one in corruptions if not self._is_there(one)]
        if missing:
            specs = [replace(self._spec, corruption=str(one)) for one in missing]
            extract_all(
                specs,
                batch_size=self._options.batch_size,
                device=self._options.device,
                data_root=self._data_root,
                store=self._root,
                progress=progress,
            )
        yield

    def _is_there(self, corruption: Corruption) -> bool:
        try:
            open_store(self._path(corruption))
        except StoreError:
            return False
        return True

    def scores(self, corruption: Corruption) -> np.ndarray:
        path = self._path(corruption)
        if not path.exists():
            raise StoreError(
                f"the backbone of {self._record.path} has other weights now than its embeddings "
                f"{self._clean.path} were made with, so that its head cannot be scored; make the "
                "embeddings and the run again"
            )
        rows = read_split(open_store(path), "test").embeddings
        multi_label = self._record.task == MULTI_LABEL
        if self._record.protocol == "knn":
            return self._votes(rows.whole(), multi_label)
        head = {name: tensor.float() for name, tensor in self._head.items()}
        logits = torch.nn.functional.linear(
            torch.from_numpy(rows.whole()), head["weight"], head["bias"]
        )
        found: np.ndarray = probabilities(logits, multi_label).numpy()
        return found

    @cached_property
    def _head(self) -> dict[str, torch.Tensor]:
        return read_head(Path(self._record.path))

    @cached_property
    def _train(self) -> StoredSplit:
        return read_split(self._clean, "train")

    def _votes(self, rows: np.ndarray, multi_label: bool) -> np.ndarray:
        record = self._record
        assert record.k is not None  # as every kNN record has it
        found = search(
            self._train.embeddings, rows, record.k, metric=cast("Metric", record.metric),
            device=self._options.device, exact_distances=record.vote == "distance",
        )  # fmt: skip
        return vote_shares(
            self._train.labels, found.indices, found.distances, record.n_classes,
            cast("Vote", record.vote), multi_label=multi_label,
        )  # fmt: skip
