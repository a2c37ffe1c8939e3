"""What every head on stored embeddings shares: its data, its scores and its record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.errors import RunError
from medplus.heads.features import Features, read_features
from medplus.runs.ledger import claim_runs, find_run, run_folder, tidy_run
from medplus.runs.record import Protocol, RunRecord, config_hash, environment
from medplus.runs.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL, Split, Task

Stores = EmbeddingStore | str | Path | Iterable[EmbeddingStore | str | Path]
"""One store or several, open or by path."""


def open_stores(stores: Stores) -> list[EmbeddingStore]:
    """Open one store or several."""
    if isinstance(stores, EmbeddingStore | str | Path):
        stores = [stores]
    return [s if isinstance(s, EmbeddingStore) else open_store(s) for s in stores]


@dataclass(frozen=True)
class StoredSplit:
    """One split of a store.

    Attributes
    ----------
    embeddings : Features
        float32, shape (n_samples, dim).
    labels : ndarray of int, shape (n_samples, n_labels)
    index : ndarray of int64, shape (n_samples,)
    """

    embeddings: Features
    labels: np.ndarray
    index: np.ndarray


def read_split(store: EmbeddingStore, split: Split, *, hold: bool = True) -> StoredSplit:
    """Read a split and refuse embeddings that no head can use.

    Parameters
    ----------
    hold : bool
        Hold the embeddings in memory; otherwise they are read again wherever they are used.

    Raises
    ------
    StoreError
        If the store is damaged.
    RunError
        If embeddings are not finite.
    """
    embeddings = read_features(store, split, hold=hold)
    return StoredSplit(embeddings, store.labels(split), store.index(split))


@dataclass(frozen=True)
class RunPlan:
    """One run to be: its identity, before anything is computed.

    Attributes
    ----------
    folder : Path
        Where the run lies or will lie.
    config : dict
        All that determines the result.
    fields : dict
        The record's fields that the protocol sets: k, seed, lr, ….
    """

    store: EmbeddingStore
    protocol: Protocol
    folder: Path
    config: dict[str, Any]
    fields: dict[str, Any]

    def existing(self) -> RunRecord | None:
        """Return the record, if this run has been done."""
        return find_run(self.folder)

    def record(
        self, metrics: dict[Split, dict[str, Any]], seconds: float, cost: dict[str, Any],
        **more: Any,
    ) -> RunRecord:  # fmt: skip
        """Return the record of this run, now that it has been done."""
        info = self.store.info
        return RunRecord(
            run_id=self.folder.name,
            path=str(self.folder),
            protocol=self.protocol,
            dataset=info.dataset,
            size=info.size,
            backbone=info.backbone,
            task=info.task,
            n_classes=len(info.classes),
            data_source=info.data_source,
            licence=info.licence,
            citation=info.citation,
            weights=info.weights,
            metrics=metrics,
            seconds=seconds,
            cost=cost,
            config=self.config,
            store=store_facts(self.store),
            spec=info.spec,
            environment=environment(),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **self.fields,
            **more,
        )


def store_facts(store: EmbeddingStore) -> dict[str, Any]:
    """Return what a record tells of the embeddings that it was made on."""
    info = store.info
    return {
        "path": str(store.path),
        "key": store.key,
        "backbone": info.tag,
        "backbone_digest": info.backbone_digest,
        "weights_sha256": info.weights_sha256,
        "precision": info.spec.precision or "fp32",
        "dtype": info.spec.dtype,
        "fit": info.preprocess["fit"],
        "feature": info.spec.feature or "pixels",
        "dataset_digest": info.dataset_digest,
    }


def plan_run(
    store: EmbeddingStore,
    protocol: Protocol,
    name: str,
    config: Mapping[str, Any],
    fields: dict[str, Any],
    runs: str | Path,
) -> RunPlan:
    """Return the plan of a run; `name` is the readable part of its id."""
    full = {"protocol": protocol, "store": store.key, **config}
    info = store.info
    run_id = f"{name}-{config_hash(full)}"
    folder = run_folder(Path(runs), protocol, info.dataset, info.size, info.backbone, run_id)
    return RunPlan(store, protocol, folder, full, fields)


@contextmanager
def claim_missing(plans: Sequence[RunPlan], overwrite: bool) -> Iterator[list[RunRecord | None]]:
    """Hold the runs that are still to be made, and give the records of the others.

    So processes that plan the same runs make each of them once.

    Parameters
    ----------
    overwrite : bool
        Make all of them.
    """

    def look(plan: RunPlan) -> RunRecord | None:
        return None if overwrite else plan.existing()

    found = [look(plan) for plan in plans]
    missing = [plan for plan, record in zip(plans, found, strict=True) if record is None]
    for plan, record in zip(plans, found, strict=True):
        if record is not None:
            tidy_run(plan.folder)
    with claim_runs(plan.folder for plan in missing):
        # Another process may have made some of them while we waited for it.
        yield [record or look(plan) for plan, record in zip(plans, found, strict=True)]


def score_stored(
    splits: Mapping[Split, StoredSplit],
    scores: Mapping[Split, np.ndarray],
    task: Task,
    bootstrap: int | None,
) -> tuple[dict[Split, dict[str, Any]], dict[str, np.ndarray]]:
    """Score the predictions of val and test of a store; see `medplus.runs.scoring`."""
    truth = {split: splits[split].labels for split in EVALUATED}
    index = {split: splits[split].index for split in EVALUATED}
    return score_splits(truth, scores, index, task, bootstrap)


def check_trainable(store: EmbeddingStore, train: StoredSplit) -> None:
    """Refuse a train split that holds one class only: nothing can be learned from it.

    Raises
    ------
    RunError
    """
    if store.info.task == MULTI_LABEL:
        return
    present = np.unique(train.labels)
    if len(present) < 2:
        raise RunError(
            f"{store.path}: all {len(train.labels)} train labels are class {present[0]}; "
            "a classifier needs at least two classes"
        )


def select_best(records: list[RunRecord]) -> list[RunRecord]:
    """Mark, per dataset, size, backbone, store and seed, the run with the best val accuracy.

    Ties go to the higher val AUC, then to the earlier run. Test scores take no part.
    """
    best: dict[tuple[Any, ...], int] = {}

    def merit(record: RunRecord) -> tuple[float, float]:
        val = record.metrics["val"]
        return val["acc"], val["auc"] if val.get("auc") is not None else -1.0

    for position, record in enumerate(records):
        rival = best.get(record.group)
        if rival is None or merit(record) > merit(records[rival]):
            best[record.group] = position
    chosen = set(best.values())
    return [r.model_copy(update={"selected": i in chosen}) for i, r in enumerate(records)]
