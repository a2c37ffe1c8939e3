"""What every head on stored embeddings shares: its data, and the way to its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medplus.datasets.card import warn_of
from medplus.datasets.dataset import Names
from medplus.datasets.exclusion import read_exclusion
from medplus.embeddings.derived import DerivedStore, without
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.view import View
from medplus.heads.features import Features, fit_memory, read_features
from medplus.heads.folded import Plan, Run, run_folded
from medplus.run.best import select_best
from medplus.run.folds import Folds
from medplus.run.ledger import save_run
from medplus.run.plan import RunPlan, claim_missing, plan_run
from medplus.run.record import PartFacts, Protocol, Provenance, RunRecord, StoreFacts
from medplus.run.scoring import EVALUATED, Samples, check_trainable
from medplus.vocabulary import Split

Stores = EmbeddingStore | str | Path | Iterable[EmbeddingStore | str | Path]
"""One store or several, open or by path."""


def open_stores(stores: Stores) -> list[EmbeddingStore]:
    """Open one store or several."""
    if isinstance(stores, EmbeddingStore | str | Path):
        stores = [stores]
    return [s if isinstance(s, EmbeddingStore) else open_store(s) for s in stores]


def store_facts(store: EmbeddingStore) -> StoreFacts:
    """Return what a record tells of the store that a head was made on."""
    parts = [
        PartFacts(
            path=str(part.path),
            key=part.key,
            spec=part.info.spec,
            backbone_digest=part.info.backbone_digest,
        )
        for part in (store.parts if isinstance(store, DerivedStore) else ())
    ]
    return StoreFacts(path=str(store.path), key=store.key, parts=parts)


def input_tensors(store: EmbeddingStore) -> dict[str, np.ndarray]:
    """Return what a head must keep of its embeddings: what was fitted to make them of others."""
    return store.fit.tensors() if isinstance(store, DerivedStore) else {}


def identity_of(store: EmbeddingStore) -> dict[str, Any]:
    """Return what identifies what is read, beside the store's key: rows, or what is made of it."""
    if isinstance(store, DerivedStore):
        return store.identity
    return {"rows": store.digest} if isinstance(store, View) else {}


def leaves_out(record: RunRecord) -> bool:
    """Tell whether a head was made without some rows of its stores: by `identity_of` them."""
    return "rows" in record.config or any("/" in key for key in record.config.get("parts", ()))


def plan_head(
    store: EmbeddingStore,
    protocol: Protocol,
    name: str,
    config: Mapping[str, Any],
    fields: Mapping[str, Any],
    runs: str | Path,
) -> RunPlan:
    """Return the plan of a head on a store; `name` is the readable part of its id."""
    known = {**fields, "store": store_facts(store)}
    made_of = Provenance.of(store.info)
    config = {"store": store.key, **identity_of(store), **config}
    return plan_run(made_of, protocol, name, config, known, runs)


def run_heads(
    stores: Stores,
    plan: Plan,
    run: Run,
    overwrite: bool,
    exclude: str | Path | None = None,
    *,
    folds: Folds | None = None,
) -> list[RunRecord]:
    """Run what has not been run of the heads on some stores, and mark the best of each.

    Parameters
    ----------
    plan : callable
        Returns the runs on a store.
    run : callable
        Does some of them at once, and yields of each what `save_run` takes.
    overwrite : bool
        Run all of them.
    exclude : str or Path, optional
        A table of suspects: what its verdicts leave out takes no part.
    folds : Folds, optional
        Cross-validate instead of learning from train alone.
    """
    records: list[RunRecord] = []
    exclusion = None if exclude is None else read_exclusion(exclude)
    for whole in open_stores(stores):
        store = whole if exclusion is None else without(whole, exclusion)
        warn_of(f"{store.info.dataset} at {store.info.size} px", store.info.warnings)
        if folds is not None:
            records += run_folded(store, plan, run, folds, overwrite)
            continue
        plans = plan(store)
        with claim_missing(plans, overwrite) as found:
            todo = [plan for plan, record in zip(plans, found, strict=True) if record is None]
            for made in run(store, todo) if todo else ():
                save_run(*made)
                found[found.index(None)] = made[0]
        records += [record for record in found if record is not None]
    return select_best(records)


@dataclass(frozen=True)
class StoredSplit(Samples):
    """One split of a store.

    Attributes
    ----------
    embeddings : Features
        float32, shape (n_samples, dim).
    """

    embeddings: Features


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
    names = Names(store.info.n_samples[split], partial(store.names, split))
    groups = store.groups(split)
    labels, index = store.labels(split), store.index(split)
    return StoredSplit(labels, index, embeddings, names=names, groups=groups)


def read_splits(store: EmbeddingStore) -> dict[Split, StoredSplit]:
    """Read train, and what heads are scored on.

    Raises
    ------
    StoreError
        If the store is damaged.
    RunError
        If nothing can be learned from train, or embeddings are not finite.
    """
    hold = fit_memory(store)
    train = read_split(store, "train", hold=hold)
    check_trainable(str(store.path), train.labels, store.info.task)
    others: dict[Split, StoredSplit] = {
        split: read_split(store, split, hold=hold) for split in EVALUATED
    }
    return {"train": train, **others}
