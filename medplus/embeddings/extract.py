"""Extraction: which images through which backbone into which store, each exactly once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medplus._version import __version__
from medplus.backbones.build import Backbone, check_backbone, load_backbone
from medplus.backbones.catalog import PRELOGITS
from medplus.backbones.features import check_feature
from medplus.backbones.inference import Embedder
from medplus.cost import add_costs, measure_cost
from medplus.datasets import sources
from medplus.datasets.dataset import ImageDataset
from medplus.device import resolve_device, resolve_precision
from medplus.embeddings.key import StoreKey
from medplus.embeddings.pipeline import as_tensor, fill_store
from medplus.embeddings.store import EmbeddingStore, StoreInfo, open_store
from medplus.embeddings.writer import WriteStatus, open_writer
from medplus.errors import UsageError
from medplus.naming import safe_name
from medplus.progress import Progress, silent
from medplus.vocabulary import SPLITS, Fit, StoreDtype

_CPU_BATCH = 32
_CUDA_BATCH = 512


@dataclass(frozen=True)
class Extraction:
    """What one extraction did.

    Attributes
    ----------
    status : {"extracted", "resumed", "skipped"}
    chunks_computed, chunks_reused : int
        Chunks of embeddings computed now, and found intact.
    seconds : float
        Wall time of the pipeline, without loading data and weights.
    images_per_second : float or None
        None if nothing was computed.
    """

    store: EmbeddingStore
    status: WriteStatus
    chunks_computed: int
    chunks_reused: int
    seconds: float
    images_per_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``medplus extract --json`` prints for this store."""
        info = self.store.info
        return {
            "path": str(self.store.path),
            "key": info.key_digest,
            "dataset": info.dataset,
            "size": info.size,
            "backbone": info.backbone,
            "dim": info.dim,
            "splits": dict(info.n_samples),
            "status": self.status,
            "chunks_computed": self.chunks_computed,
            "chunks_reused": self.chunks_reused,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


def extract(
    dataset: str,
    size: int | None = None,
    backbone: str = "resnet18",
    *,
    weights: str = "pretrained",
    precision: str = "auto",
    dtype: StoreDtype = "float32",
    fit: Fit | None = None,
    feature: str = PRELOGITS,
    group_column: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
) -> EmbeddingStore:
    """Embed one dataset at one size with one backbone, and return the store.

    An existing complete store is returned as it is; a partial or damaged one is completed.

    Parameters
    ----------
    dataset : str
        A MedMNIST flag, the path of an npz file in the same layout, or a folder of images.
    size : int, optional
        Size of the images in pixels; as for `medplus.load_dataset`.
    backbone : str
        One of the paper's ten, ``pixels``, any timm name, or the folder of a fine-tuned run.
    weights : str
        ``pretrained``, ``none`` (random), the path of a weights file, or a folder of pretrained
        weights (``medplus backbones --fetch NAME --to DIR``). A run has its own.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Precision of the computation; ``auto`` is what the hardware runs natively.
    dtype : {"float32", "float16"}
        How embeddings are stored.
    fit : {"pad", "resize", "native"}, optional
        How images are brought to the backbone's input size; by default ``pad``, or as a
        fine-tuned run was trained.
    feature : str
        What of the network is its embedding: ``prelogits``; for vision transformers ``cls`` (the
        class token), ``avg`` (the mean of the patch tokens; elsewhere of the last maps) or
        ``cls+avg`` (both); or ``layer:NAME``, the globally averaged output of a module inside. It
        means nothing for ``pixels``.
    group_column : str, optional
        Of a folder of images: the column of its table whose groups stay in one split; as for
        `medplus.load_dataset`.
    batch_size : int, optional
        Images per forward; found automatically by default. Halved when memory runs out.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    data_root, store : str or Path
        Folder of the datasets, and root of the stores.

    Raises
    ------
    MedplusError
        UsageError, DatasetError, BackboneError or StoreError, saying what is wrong and what to do.
    """
    [extraction] = extract_all(
        [dataset],
        [size],
        [backbone],
        weights=weights,
        precision=precision,
        dtype=dtype,
        fit=fit,
        feature=feature,
        group_column=group_column,
        batch_size=batch_size,
        device=device,
        data_root=data_root,
        store=store,
    )
    return extraction.store


def extract_all(
    datasets: Sequence[str],
    sizes: Sequence[int | None],
    backbones: Sequence[str],
    *,
    weights: str = "pretrained",
    precision: str = "auto",
    dtype: StoreDtype = "float32",
    fit: Fit | None = None,
    feature: str = PRELOGITS,
    group_column: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
    patience_s: float = math.inf,
    progress: Progress = silent,
) -> list[Extraction]:
    """Embed every dataset at every size with every backbone; parameters as for `extract`.

    All names are checked before any work starts, and each dataset and size is loaded once for all
    backbones. Where another process fills the same store it waits, `patience_s` seconds at most,
    and then finds the work done.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    check_feature(feature)
    refs = [sources.resolve(name, group_column) for name in datasets]
    for name in backbones:
        check_backbone(name, weights)
    target = resolve_device(device)
    compute = resolve_precision(precision, target)
    batch = batch_size or (_CUDA_BATCH if target.type == "cuda" else _CPU_BATCH)
    results = []
    for ref in refs:
        for size in sizes:
            images = sources.load(
                ref, size, data_root, group_column=group_column, progress=progress
            )
            for backbone_name in backbones:
                backbone = load_backbone(backbone_name, weights, images.size, fit, feature=feature)
                embedder = Embedder(
                    backbone, target, compute if backbone.is_network else "fp32", batch
                )
                results.append(
                    _extract_one(images, embedder, dtype, Path(store), patience_s, progress)
                )
    return results


def _extract_one(
    images: ImageDataset,
    embedder: Embedder,
    dtype: StoreDtype,
    root: Path,
    patience_s: float,
    progress: Progress,
) -> Extraction:
    embedder.backbone.preprocess.check(images.size)
    dim = embedder(as_tensor(images, "train", slice(0, 1))).shape[1]
    key = StoreKey(
        dataset_digest=images.digest,
        size=images.size,
        backbone=embedder.backbone.tag,
        weights_sha256=embedder.backbone.weights_sha256,
        preprocess=vars(embedder.backbone.preprocess).copy(),
        feature=embedder.backbone.feature,
        precision=embedder.precision,
        dtype=dtype,
        task=images.task,
    )
    info = _new_info(images, embedder.backbone, key, dim)
    folder = safe_name(embedder.backbone.name)
    path = root / safe_name(images.name) / str(images.size) / f"{folder}-{key.key8}.zarr"
    labels = {split: images.splits[split].labels for split in SPLITS}
    with open_writer(path, info, labels, patience_s) as writer:
        missing = writer.n_missing
        reused = writer.n_chunks - missing
        status = writer.status
        if status == "skipped":
            return Extraction(open_store(path), status, 0, reused, 0.0, None)
        with measure_cost(embedder.device) as meter:
            n_images = fill_store(writer, images, embedder, progress)
        cost = meter.cost(n_images)
        writer.finish(add_costs(writer.info.cost, cost))
    rate = cost.get("images_per_second")
    return Extraction(open_store(path), status, missing, reused, meter.seconds, rate)


def _new_info(images: ImageDataset, backbone: Backbone, key: StoreKey, dim: int) -> StoreInfo:
    packages = ("torch", "timm", "zarr", "numpy")
    return StoreInfo(
        schema_version=key.schema,
        key=key.to_dict(),
        key_digest=key.digest,
        dataset=images.name,
        dataset_path=str(Path(images.path).resolve()),
        data_source=images.source,
        licence=images.licence,
        citation=images.citation,
        task=images.task,
        classes=list(images.classes),
        size=images.size,
        backbone=backbone.name,
        weights=backbone.weights,
        run_id=backbone.run_id,
        dim=dim,
        dtype=key.dtype,
        n_samples={split: len(images.splits[split]) for split in SPLITS},
        versions={"medplus": __version__, **{name: version(name) for name in packages}},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cost={},
        checksums={},
        complete=False,
    )
