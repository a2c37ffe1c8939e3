"""Scoring the linear head of a probe run on stored embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

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
from medplus.evaluation.trial import Labelling, Request, Trial, check_labelling
from medplus.heads.evaluation import read_split, store_facts
from medplus.runs.ledger import HEAD_FILE, read_head
from medplus.runs.record import RunRecord
from medplus.vocabulary import Split, Task

_Found = tuple[Place, StoreInfo]


def head_trial(run: Path, record: RunRecord, request: Request) -> Trial:
    """Return the trial of a probe run's head.

    Raises
    ------
    MedplusError
        If the head is damaged, or there are no such embeddings.
    """
    if request.precision is not None:
        raise UsageError(
            f"--precision {request.precision} is for networks, but {run} is a head on stored "
            "embeddings; leave it out"
        )
    weight, bias = _read_head(run, record)
    learned = Labelling(record.dataset, cast("Task", record.task), _classes(record))
    if request.dataset in catalog.FLAGS:  # before anyone extracts what cannot be used
        flag = catalog.info(request.dataset)
        check_labelling(run, learned, Labelling(flag.flag, flag.task, flag.classes))
    store = _find_store(run, record, request)
    info = store.info
    if info.dim != weight.shape[1]:
        raise UsageError(
            f"{info.backbone} gives {info.dim} dimensions for {info.dataset} at {info.size} px, "
            f"but the head of {run} takes {weight.shape[1]}; name another --dataset or --size"
        )
    splits = {split: read_split(store, split) for split in request.splits}

    def predict() -> Mapping[Split, torch.Tensor]:
        w, b = weight.to(request.device), bias.to(request.device)
        return {
            split: F.linear(torch.from_numpy(rows.whole()).to(request.device), w, b).cpu()
            for split, rows in ((s, data.embeddings) for s, data in splits.items())
        }

    return Trial(
        record=record,
        learned=learned,
        found=Labelling(info.dataset, info.task, tuple(info.classes)),
        size=info.size,
        digest=info.dataset_digest,
        data_source=info.data_source,
        licence=info.licence,
        citation=info.citation,
        truth={split: data.labels for split, data in splits.items()},
        index={split: data.index for split, data in splits.items()},
        predict=predict,
        changes={"store": store_facts(store)},
    )


def _read_head(run: Path, record: RunRecord) -> tuple[torch.Tensor, torch.Tensor]:
    path = run / HEAD_FILE
    tensors = read_head(run)
    if not {"weight", "bias"} <= tensors.keys():
        raise RunError(f"{path} is damaged; run medplus probe again with --overwrite")
    weight, bias = tensors["weight"], tensors["bias"]
    shape = tuple(weight.shape)
    if len(shape) != 2 or shape[0] != record.n_classes or tuple(bias.shape) != shape[:1]:
        raise RunError(
            f"{path} holds a head of shape {shape}, not one of {record.n_classes} classes; run "
            "medplus probe again with --overwrite"
        )
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise RunError(f"{path} holds values that are not finite; run medplus probe again")
    return weight.float(), bias.float()


def _classes(record: RunRecord) -> tuple[str, ...]:
    """Return the classes that a head learned, by name if the dataset is known."""
    if record.dataset in catalog.FLAGS and record.data_source != "custom":
        return catalog.info(record.dataset).classes
    return tuple(str(i) for i in range(record.n_classes))


# --- the embeddings ------------------------------------------------------------------------------


def _find_store(run: Path, record: RunRecord, request: Request) -> EmbeddingStore:
    """Return the embeddings to score on, made as those that the head was made on."""
    if request.dataset is None and request.size in (None, record.size):
        return _own_store(run, record, request.store_root)
    dataset = request.dataset or record.dataset
    # A file has a size of its own; a folder is read as the head's own images were.
    ref = sources.find(dataset)
    size = request.size or (record.size if ref is None or ref.any_size else None)
    name = sources.name_of(dataset)
    found = [
        (path, info)
        for path, info in _readable(request.store_root)
        if info.dataset == name and size in (None, info.size) and _same_embedder(info, record)
    ]
    found = _of_these_data(found, dataset, size, request.data_root)
    if not found:
        _check_dataset(dataset, size)
        raise StoreError(
            f"no store of {name} under {request.store_root} is made as the embeddings that the "
            f"head of {run} was made on; make it with: {_extract_command(record, request)}"
        )
    digests = {info.dataset_digest for _, info in found}
    if len(digests) > 1:
        paths = ", ".join(str(path) for path, _ in found)
        raise StoreError(
            f"stores of several datasets are named {name} ({paths}); say which is meant with "
            "--size, or by the folder of its file with --data-root"
        )
    # A store of the head's own dtype is preferred, and one that is complete.
    dtype = _store(record)["dtype"]
    best = min(found, key=lambda it: (not it[1].complete, it[1].spec.dtype != dtype))
    return open_store(best[0])


def _own_store(run: Path, record: RunRecord, root: Place) -> EmbeddingStore:
    recorded = to_place(_store(record)["path"])
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


def _store(record: RunRecord) -> dict[str, Any]:
    """Return what the record tells of the embeddings that the head was made on."""
    if record.store is None:
        raise RunError(f"the record of {record.path} is damaged: it tells of no embeddings")
    return record.store


def _readable(root: Place) -> Iterator[_Found]:
    for path in [root] if is_store(root) else list_stores(Path(root)):
        try:
            yield path, read_info(path)
        except StoreError:
            continue  # a damaged store matches nothing; `medplus store verify` names it


def _same_embedder(info: StoreInfo, record: RunRecord) -> bool:
    """Tell whether only the data of a store, and how it is stored, differ from the head's own.

    The record holds the digest of its store's key, so a key with the other data put back in must
    have that digest: backbone, weights, preprocessing, feature and precision are then the same.
    """
    store, own = _store(record), record.spec
    return info.backbone_digest == store["backbone_digest"] and (
        (info.spec.fit, info.spec.feature, info.spec.precision)
        == (own.fit, own.feature, own.precision)
    )


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


def _extract_command(record: RunRecord, request: Request) -> str:
    ref = sources.resolve(request.dataset or record.spec.dataset)
    size = request.size or record.size
    spec = replace(record.spec, dataset=ref.spelling, size=size if ref.any_size else None)
    given = str(request.data_root)
    data_root = given if ref.source == "medmnist" and given != "data" else None
    root = str(request.store_root)
    return spec.command(data_root, None if root == "embeddings" else root)
