"""What a saved run keeps: its head, and the embeddings that it has learned from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medplus.datasets.exclusion import read_exclusion
from medplus.embeddings.container import Place, is_store
from medplus.embeddings.derived import DerivedStore, without
from medplus.embeddings.select import readable
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.transform import Fit, Transform
from medplus.errors import StoreError, UsageError
from medplus.evaluation.head import own_store
from medplus.heads.features import HeldFeatures, JoinedRows, fit_memory
from medplus.heads.folded import sample_names
from medplus.heads.saved import derived, read_heads
from medplus.heads.stored import identity_of, leaves_out, read_split
from medplus.prediction.networks import Extractor
from medplus.prediction.reference import Reference
from medplus.prediction.scorers import LinearHeads, Votes
from medplus.run.folds import Folds
from medplus.run.record import RunRecord
from medplus.spec import ExtractSpec
from medplus.vocabulary import MULTI_LABEL, Metric


@dataclass(frozen=True)
class SavedRun:
    """A run's head and what it has learned from.

    Attributes
    ----------
    record : RunRecord
    root : Place
        Of the stores, where the run's are not where they were.
    device : str
        What searches.
    exclude : str, Path or None
        The table of suspects that the run was made without.
    """

    record: RunRecord
    root: Place
    device: str
    exclude: str | Path | None = None

    @property
    def folder(self) -> Path:
        """The run's."""
        return Path(self.record.path)

    def head(self) -> LinearHeads | Votes:
        """Return what scores the embeddings of a probe's or a kNN run's backbones.

        Raises
        ------
        MedplusError
            If the head, or what kNN votes with, is missing or damaged.
        """
        many = self.record.task == MULTI_LABEL
        if self.record.protocol != "knn":
            named = self.record.config.get("transform")
            transform = None if named is None else Transform.parse(named)
            return LinearHeads(tuple(read_heads(self.folder)), transform, many)
        if self.record.folds is not None:
            raise UsageError(
                f"{self.folder} joins the votes of {self.record.folds.n} folds, each of other "
                "train images; run medplus knn without --folds, and name that run"
            )
        store = self._learned()
        reference = _reference(store, self.record.metric == "cosine", self.device)
        k, vote = self.record.config["k"], self.record.config["vote"]
        return Votes(reference, store.labels("train"), k, vote, self.record.n_classes, many)

    def of_head(self) -> Reference:
        """Return the embeddings that a linear head, or those of all folds, were made on."""
        if self.record.folds is None:
            return _reference(self._learned(), False, self.device)
        store = self._whole()
        folds = Folds(self.record.folds.n, pool=self.record.folds.pool)
        parts = tuple(read_split(store, split).embeddings for split in folds.splits)
        whole = HeldFeatures(JoinedRows(parts).whole())
        names = sample_names(store, folds.splits)
        fit, transform = _made_by(store)
        return Reference(whole, names, None, fit, transform, "l2", self.device)

    def of_network(self, extractor: Extractor) -> tuple[Reference | None, str]:
        """Return the embeddings that were extracted with a fine-tuned run, or how to make them."""
        record, root, sought = self.record, self.root, extractor.backbone
        if "folds" in record.config:
            return None, "it is not known which images a fold has learned from"
        with suppress(StoreError):  # of what is damaged
            for path, info in readable(root):
                same = info.run_id == sought.run_id and info.weights_sha256 == sought.weights_sha256
                if same and info.complete and info.dataset_digest == record.dataset_digest:
                    return _reference(open_store(path), False, self.device), ""
        spec = ExtractSpec(record.spec.dataset, record.size, str(self.folder))
        by_default = str(root) == "embeddings" or is_store(root)
        command = spec.command(store=None if by_default else str(root))
        return None, f"its embeddings of train are not there; this makes them: {command}"

    def _whole(self) -> EmbeddingStore:
        parts = self.record.parts
        return derived(self.record, [own_store(self.folder, part, self.root) for part in parts])

    def _learned(self) -> EmbeddingStore:
        """Return the embeddings of a head's run, without what was left out of it."""
        store = self._whole()
        if not leaves_out(self.record):
            if self.exclude is not None:
                raise UsageError(
                    f"--exclude {self.exclude}: nothing was left out of {self.folder}; leave it out"
                )
            return store
        if self.exclude is None:
            raise StoreError(
                f"images were left out of {self.folder} by the verdicts of a table; name it with "
                "--exclude"
            )
        left = without(store, read_exclusion(self.exclude))
        if any(self.record.config.get(name) != own for name, own in identity_of(left).items()):
            raise UsageError(
                f"--exclude {self.exclude} leaves out other images than {self.folder} was made "
                "without; name the table as it was then"
            )
        return left


def _reference(store: EmbeddingStore, cosine: bool, device: str) -> Reference:
    hold = fit_memory(store)
    train, val = (read_split(store, split, hold=hold) for split in ("train", "val"))
    names = sample_names(store, ("train",))
    metric: Metric = "cosine" if cosine else "l2"
    fit, transform = _made_by(store)
    return Reference(train.embeddings, names, val.embeddings, fit, transform, metric, device)


def _made_by(store: EmbeddingStore) -> tuple[Fit, Transform | None]:
    """Return how embeddings are made of those of the backbones."""
    if isinstance(store, DerivedStore):
        return store.fit, store.transform
    return Fit(), None
