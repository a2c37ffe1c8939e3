"""Scoring the linear head of a probe run on stored embeddings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medplus.datasets import catalog, sources
from medplus.embeddings.container import Place, to_place
from medplus.embeddings.info import StoreInfo, read_info
from medplus.embeddings.select import find_store, readable
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.view import View
from medplus.errors import StoreError, UsageError
from medplus.evaluation.prepared import EvaluationOptions, Prepared, match_classes
from medplus.heads.knn.search import search
from medplus.heads.saved import SavedHead, derived, read_heads
from medplus.heads.stored import StoredSplit, leaves_out, read_split, store_facts
from medplus.naming import counted
from medplus.run.folds import Folds
from medplus.run.ledger import read_predictions
from medplus.run.record import PartFacts, Provenance, RunRecord
from medplus.training.loss import probabilities
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

log = logging.getLogger(__name__)

_ALIKE = 1e-3
"""What share of the spread of train two embeddings of one image differ by at most."""


def prepare_head(run: Path, record: RunRecord, options: EvaluationOptions) -> Prepared:
    """Return a probe run's head, or heads of folds, and the embeddings to score on.

    Raises
    ------
    MedplusError
        If the head is damaged, or there are no such embeddings.
    """
    if options.precision is not None:
        raise UsageError(
            f"--precision {options.precision} is for networks, but {run} is a head on stored "
            "embeddings; leave it out"
        )
    heads = read_heads(run)
    if options.dataset in catalog.FLAGS:  # before anyone extracts what cannot be used
        flag = catalog.info(options.dataset)
        match_classes(run, record, (flag.flag, flag.task, list(flag.classes)))
    parts = _find_parts(run, record, options)
    _check_unseen(run, record, parts[0].info, options.splits)
    _warn_of_copies(run, record, parts[0], options)
    inputs = [derived(record, parts, head.fit) for head in heads]
    for store, head in zip(inputs, heads, strict=True):
        if store.info.dim != head.dim:
            raise UsageError(
                f"{store.info.backbone} gives {store.info.dim} dimensions for {store.info.dataset} "
                f"at {store.info.size} px, but the head of {run} takes {head.dim}; name another "
                "--dataset or --size"
            )
    read = [
        {split: read_split(part, split) for split in options.splits}
        for part in (_as_scored(run, record, store) for store in inputs)
    ]

    def predict() -> Mapping[Split, torch.Tensor]:
        many = record.task == MULTI_LABEL
        return {
            split: mean_logits(
                [_logits(head, own[split], options) for head, own in zip(heads, read, strict=True)],
                many,
            )
            for split in options.splits
        }

    return Prepared(
        record=record,
        provenance=Provenance.of(inputs[0].info),
        samples=read[0],
        predict=predict,
        store=store_facts(inputs[0]),
    )


def _as_scored(run: Path, record: RunRecord, store: EmbeddingStore) -> EmbeddingStore:
    """Return those rows of a head's own data that it was scored on: it may leave some out."""
    if not leaves_out(record) or store.info.dataset_digest != record.dataset_digest:
        return store
    saved, rows, first = read_predictions(run), {}, 0
    for split in SPLITS:
        index = store.index(split)
        taken = np.isin(index, saved.get(f"{split}_index", index))
        rows[split] = first + np.flatnonzero(taken)
        first += len(index)
    return View(store, rows)


def _logits(head: SavedHead, split: StoredSplit, options: EvaluationOptions) -> torch.Tensor:
    x = torch.from_numpy(split.embeddings.whole())
    return head.logits(x.to(options.device)).cpu()


def mean_logits(logits: Sequence[torch.Tensor], multi_label: bool) -> torch.Tensor:
    """Return the logits of the mean probability of several heads; those of one as they are."""
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack([probabilities(one, multi_label) for one in logits]).double().mean(0)
    return (torch.logit(mean, 1e-7) if multi_label else mean.clamp_min(1e-12).log()).float()


def _check_unseen(run: Path, record: RunRecord, info: StoreInfo, splits: tuple[Split, ...]) -> None:
    """Refuse rows that one of the heads of several folds has learned from."""
    if record.folds is None or info.dataset_digest != record.dataset_digest:
        return
    seen = Folds(record.folds.n, pool=record.folds.pool).splits
    if any(split in seen for split in splits):
        remedy = "another --dataset" if record.folds.pool else "--split test, or another --dataset"
        raise UsageError(
            f"{run} has learned from {', '.join(seen)} of {record.dataset}, fold by fold; its own "
            f"test predictions are those out of fold. To score the mean of its heads, name {remedy}"
        )


def _warn_of_copies(
    run: Path, record: RunRecord, store: EmbeddingStore, options: EvaluationOptions
) -> None:
    """Tell how many images of other data lie where images of the head's train lie."""
    if store.info.dataset_digest == record.dataset_digest:
        return
    try:
        own = own_store(run, record.parts[0], options.store_root)
    except StoreError:  # it is not needed else
        return
    if own.info.dim != store.info.dim:
        return
    train = read_split(own, "train").embeddings
    spread = float(np.sqrt(train.whole().var(axis=0, dtype=np.float64).sum()))
    for split in options.splits:
        found = search(train, read_split(store, split).embeddings, 1, device=str(options.device))
        n_copies = int((found.distances[:, 0] <= _ALIKE * spread).sum())
        if n_copies:
            log.warning(
                "%s of %s in %s cannot be told from images that %s has learned from; scores will "
                "be too good", counted(n_copies, "image"), store.info.dataset, split, run.name,
            )  # fmt: skip


# --- the embeddings ------------------------------------------------------------------------------


def _find_parts(run: Path, record: RunRecord, options: EvaluationOptions) -> list[EmbeddingStore]:
    """Return the embeddings to score on, or those that they are made of, as the head's were."""
    stores = []
    for part in record.parts:
        store = _find_store(run, record, part, options)
        if store.info.backbone_digest != part.backbone_digest:
            raise StoreError(
                f"{store.path} is of other weights of {store.info.backbone} than those that the "
                f"head of {run} was made on"
            )
        stores.append(store)
    return stores


def _find_store(
    run: Path, record: RunRecord, part: PartFacts, options: EvaluationOptions
) -> EmbeddingStore:
    if options.dataset is None and options.size in (None, record.size):
        return own_store(run, part, options.store_root)
    dataset = options.dataset or record.spec.dataset
    # A file has a size of its own; a folder is read as the head's own images were.
    ref = sources.find(dataset)
    size = options.size or (record.size if ref is None or ref.any_size else None)
    spec = replace(part.spec, dataset=ref.spelling if ref else dataset, size=size)
    data_root = None if options.data_root == Path("data") else options.data_root
    try:
        return find_store(options.store_root, spec, data_root=data_root)
    except StoreError:  # a store of another dtype serves as well
        with suppress(StoreError):
            return find_store(options.store_root, replace(spec, dtype=None), data_root=data_root)
        raise


def own_store(run: Path, part: PartFacts, root: Place) -> EmbeddingStore:
    """Return the store that a head was made on: where its record says, or else under a root.

    Raises
    ------
    StoreError
        If it lies nowhere, or is damaged or incomplete.
    """
    recorded = to_place(part.path)
    if isinstance(recorded, Path):  # a URL in a stranger's record is not followed unasked
        try:
            if read_info(recorded).key == part.key:
                return open_store(recorded)
        except StoreError:
            if recorded.exists():
                raise  # it is damaged or incomplete, and the message says how to mend it
    for path, info in readable(root):
        if info.key == part.key:
            return open_store(path)
    raise StoreError(
        f"the embeddings of {run} (key {part.key[:8]}) lie neither at {recorded} nor "
        f"under {root}; name the root of the stores with --store, or the data with --dataset"
    )
