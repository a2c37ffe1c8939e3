"""Scoring the linear head of a probe run on stored embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812

from medplus.datasets import catalog, sources
from medplus.embeddings.select import find_store, readable
from medplus.embeddings.store import (
    EmbeddingStore,
    Place,
    is_store,
    open_store,
    read_info,
    to_place,
)
from medplus.errors import RunError, StoreError, UsageError
from medplus.evaluation.prepared import EvaluationOptions, Prepared, match_classes
from medplus.heads.stored import read_split, store_facts
from medplus.run.ledger import read_head
from medplus.run.record import Provenance, RunRecord
from medplus.vocabulary import Split


def prepare_head(run: Path, record: RunRecord, options: EvaluationOptions) -> Prepared:
    """Return a probe run's head, and the embeddings to score it on.

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
    tensors = read_head(run)
    weight, bias = tensors["weight"].float(), tensors["bias"].float()
    if options.dataset in catalog.FLAGS:  # before anyone extracts what cannot be used
        flag = catalog.info(options.dataset)
        match_classes(run, record, (flag.flag, flag.task, list(flag.classes)))
    store = _find_store(run, record, options)
    info = store.info
    if info.backbone_digest != record.backbone_digest:
        raise StoreError(
            f"{store.path} is of other weights of {info.backbone} than those that the head of "
            f"{run} was made on"
        )
    if info.dim != weight.shape[1]:
        raise UsageError(
            f"{info.backbone} gives {info.dim} dimensions for {info.dataset} at {info.size} px, "
            f"but the head of {run} takes {weight.shape[1]}; name another --dataset or --size"
        )
    splits = {split: read_split(store, split) for split in options.splits}

    def predict() -> Mapping[Split, torch.Tensor]:
        w, b = weight.to(options.device), bias.to(options.device)
        rows = {s: torch.from_numpy(data.embeddings.whole()) for s, data in splits.items()}
        return {s: F.linear(x.to(options.device), w, b).cpu() for s, x in rows.items()}

    return Prepared(
        record=record,
        provenance=Provenance.of(info),
        samples=splits,
        predict=predict,
        store=store_facts(store),
    )


# --- the embeddings ------------------------------------------------------------------------------


def _find_store(run: Path, record: RunRecord, options: EvaluationOptions) -> EmbeddingStore:
    """Return the embeddings to score on, made as those that the head was made on."""
    if "parts" in record.config:
        raise RunError(
            f"{run} is a head on {record.backbone}, embeddings that were made of others when they "
            "were read, which cannot be scored again; run medplus "
            f"{record.protocol} with the same --backbone and --transform"
        )
    if options.dataset is None and options.size in (None, record.size):
        return own_store(run, record, options.store_root)
    dataset = options.dataset or record.spec.dataset
    # A file has a size of its own; a folder is read as the head's own images were.
    ref = sources.find(dataset)
    size = options.size or (record.size if ref is None or ref.any_size else None)
    spec = replace(record.spec, dataset=ref.spelling if ref else dataset, size=size)
    data_root = None if options.data_root == Path("data") else options.data_root
    try:
        return find_store(options.store_root, spec, data_root=data_root)
    except StoreError:  # a store of another dtype serves as well
        with suppress(StoreError):
            return find_store(options.store_root, replace(spec, dtype=None), data_root=data_root)
        raise


def own_store(run: Path, record: RunRecord, root: Place) -> EmbeddingStore:
    """Return the store that a head was made on: where its record says, or else under a root.

    Raises
    ------
    StoreError
        If it lies nowhere, or is damaged or incomplete.
    """
    assert record.store is not None  # as every probe's record has it
    recorded = to_place(record.store.path)
    if isinstance(recorded, Path):  # a URL in a stranger's record is not followed unasked
        try:
            if read_info(recorded).key == record.store_key:
                return open_store(recorded)
        except StoreError:
            if recorded.exists():
                raise  # it is damaged or incomplete, and the message says how to mend it
    known = [(root, read_info(root))] if is_store(root) else readable(Path(root))
    for path, info in known:
        if info.key == record.store_key:
            return open_store(path)
    raise StoreError(
        f"the embeddings of {run} (key {str(record.store_key)[:8]}) lie neither at {recorded} nor "
        f"under {root}; name the root of the stores with --store, or the data with --dataset"
    )
