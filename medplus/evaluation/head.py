"""Scoring the linear head of a probe run on stored embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from medplus.datasets import catalog, sources
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.store import (
    EmbeddingStore,
    Place,
    is_store,
    list_stores,
    open_store,
    read_info,
    to_place,
)
from medplus.errors import DatasetError, RunError, StoreError, UsageError
from medplus.evaluation.prepared import EvaluationOptions, Labelling, Prepared, match_classes
from medplus.heads.stored import read_split, store_facts
from medplus.runs.ledger import HEAD_FILE, read_head
from medplus.runs.record import Provenance, RunRecord
from medplus.vocabulary import Split

_Found = tuple[Place, StoreInfo]


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
    weight, bias = _read_head(run, record)
    if options.dataset in catalog.FLAGS:  # before anyone extracts what cannot be used
        flag = catalog.info(options.dataset)
        meant = Labelling(flag.flag, flag.task, list(flag.classes))
        match_classes(run, Labelling.of(record), meant)
    store = _find_store(run, record, options)
    info = store.info
    if info.dim != weight.shape[1]:
        raise UsageError(
            f"{info.backbone} gives {info.dim} dimensions for {info.dataset} at {info.size} px, "
            f"but the head of {run} takes {weight.shape[1]}; name another --dataset or --size"
        )
    splits = {split: read_split(store, split) for split in options.splits}

    def predict() -> Mapping[Split, torch.Tensor]:
        w, b = weight.to(options.device), bias.to(options.device)
        return {
            split: F.linear(torch.from_numpy(rows.whole()).to(options.device), w, b).cpu()
            for split, rows in ((s, data.embeddings) for s, data in splits.items())
        }

    return Prepared(
        record=record,
        provenance=Provenance.of(info),
        samples=splits,
        predict=predict,
        store=store_facts(store),
    )


def _read_head(run: Path, record: RunRecord) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = read_head(run)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    n = record.n_classes
    if weight is None or bias is None or (weight.shape[:1], tuple(bias.shape)) != ((n,), (n,)):
        raise RunError(
            f"{run / HEAD_FILE} is no head of {n} classes; run medplus probe again with --overwrite"
        )
    return weight.float(), bias.float()


# --- the embeddings ------------------------------------------------------------------------------


def _find_store(run: Path, record: RunRecord, options: EvaluationOptions) -> EmbeddingStore:
    """Return the embeddings to score on, made as those that the head was made on."""
    if options.dataset is None and options.size in (None, record.size):
        return _own_store(run, record, options.store_root)
    dataset = options.dataset or record.dataset
    # A file has a size of its own; a folder is read as the head's own images were.
    ref = sources.find(dataset)
    size = options.size or (record.size if ref is None or ref.any_size else None)
    name = sources.name_of(dataset)
    found = [
        (path, info)
        for path, info in _readable(options.store_root)
        if info.dataset == name and size in (None, info.size) and _same_embedder(info, record)
    ]
    found = _of_these_data(found, dataset, size, options.data_root)
    if not found:
        _check_dataset(dataset, size)
        raise StoreError(
            f"no store of {name} under {options.store_root} is made as the embeddings that the "
            f"head of {run} was made on; make it with: {_extract_command(record, options)}"
        )
    digests = {info.dataset_digest for _, info in found}
    if len(digests) > 1:
        paths = ", ".join(str(path) for path, _ in found)
        raise StoreError(
            f"stores of several datasets are named {name} ({paths}); say which is meant with "
            "--size, or by the folder of its file with --data-root"
        )
    # A store of the head's own dtype is preferred, and one that is complete.
    dtype = record.spec.dtype
    best = min(found, key=lambda it: (not it[1].complete, it[1].spec.dtype != dtype))
    return open_store(best[0])


def _own_store(run: Path, record: RunRecord, root: Place) -> EmbeddingStore:
    if record.store is None:
        raise RunError(f"the record of {run} is damaged: it tells of no embeddings")
    recorded = to_place(record.store.path)
    if isinstance(recorded, Path):  # a URL in a stranger's record is not followed unasked
        try:
            if read_info(recorded).key == record.store_key:
                return open_store(recorded)
        except StoreError:
            if recorded.exists():
                raise  # it is damaged or incomplete, and the message says how to mend it
    for path, info in _readable(root):
        if info.key == record.store_key:
            return open_store(path)
    raise StoreError(
        f"the embeddings of {run} (key {str(record.store_key)[:8]}) lie neither at {recorded} nor "
        f"under {root}; name the root of the stores with --store, or the data with --dataset"
    )


def _readable(root: Place) -> Iterator[_Found]:
    for path in [root] if is_store(root) else list_stores(Path(root)):
        try:
            yield path, read_info(path)
        except StoreError:
            continue  # a damaged store matches nothing; `medplus store verify` names it


def _same_embedder(info: StoreInfo, record: RunRecord) -> bool:
    """Tell whether only the data of a store, and how it is stored, differ from the head's own."""

    def choices(made: StoreInfo | RunRecord) -> tuple[Any, ...]:
        spec = made.spec
        return made.backbone_digest, spec.fit, spec.feature, spec.precision

    return choices(info) == choices(record)


def _of_these_data(
    found: list[_Found], dataset: str, size: int | None, data_root: Path
) -> list[_Found]:
    """Keep the stores of the data that are meant, where stores of several share the name."""
    ref = sources.find(dataset)
    if ref is None:
        return found
    if ref.source != "medmnist":
        digests = sources.digests(ref, size, data_root)
    elif len({info.dataset_digest for _, info in found}) > 1:
        try:
            digests = sources.digests(ref, size, data_root)
        except DatasetError:  # no such file there: the caller tells them apart or gives up
            digests = None
    else:
        digests = None
    return [it for it in found if digests is None or it[1].dataset_digest in digests]


def _check_dataset(dataset: str, size: int | None) -> None:
    """Raise for a name that is no dataset's, and for a file that is not there."""
    ref = sources.resolve(dataset)
    if ref.source != "medmnist":
        sources.load(ref, size)


def _extract_command(record: RunRecord, options: EvaluationOptions) -> str:
    ref = sources.resolve(options.dataset or record.spec.dataset)
    size = options.size or record.size
    spec = replace(record.spec, dataset=ref.spelling, size=size if ref.any_size else None)
    given = str(options.data_root)
    data_root = given if ref.source == "medmnist" and given != "data" else None
    root = str(options.store_root)
    return spec.command(data_root, None if root == "embeddings" else root)
