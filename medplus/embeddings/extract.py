"""The extraction pipeline: images through a frozen backbone into a store, each exactly once.

Three stages run at the same time: a thread reads uint8 batches from the memory-mapped cache, the
main thread drives the device, and another thread writes finished chunks. Both queues are bounded,
so memory does not grow with the number of images, and the device waits for neither.
"""

from __future__ import annotations

import logging
import mmap
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medplus._version import __version__
from medplus.backbones.build import Backbone, load_backbone
from medplus.backbones.catalog import resolve
from medplus.backbones.inference import Embedder
from medplus.datasets import catalog as dataset_catalog
from medplus.datasets.dataset import ImageDataset
from medplus.datasets.load import is_path, load_dataset
from medplus.device import describe_device, resolve_device, resolve_precision
from medplus.embeddings.key import StoreKey
from medplus.embeddings.store import EmbeddingStore, StoreInfo, open_store
from medplus.embeddings.writer import StoreWriter, WriteStatus, open_writer
from medplus.errors import BackboneError, StoreError, UsageError
from medplus.progress import Advance, Progress, silent
from medplus.vocabulary import SPLITS, Fit, Precision, Split, StoreDtype

log = logging.getLogger(__name__)

_CPU_BATCH = 32
_CUDA_BATCH = 512
_QUEUED = 3


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
    fit: Fit = "pad",
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
        A MedMNIST flag or the path of an npz file in the same layout.
    size : int, optional
        Size of the images in pixels; 28 for a flag, a file's own size for a path.
    backbone : str
        One of the paper's ten, ``pixels``, or any timm name.
    weights : str
        ``pretrained``, ``none`` (random), or the path of a weights file.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Precision of the computation; ``auto`` is what the hardware runs natively.
    dtype : {"float32", "float16"}
        How embeddings are stored.
    fit : {"pad", "resize", "native"}
        How images are brought to the backbone's input size.
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
    fit: Fit = "pad",
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
    progress: Progress = silent,
) -> list[Extraction]:
    """Embed every dataset at every size with every backbone; parameters as for `extract`.

    All names are checked before any work starts, and each dataset and size is loaded once for all
    backbones.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    for name in datasets:
        if not is_path(name):
            dataset_catalog.info(name)
    for name in backbones:
        resolve(name)
    target = resolve_device(device)
    compute = resolve_precision(precision, target)
    batch = batch_size or (_CUDA_BATCH if target.type == "cuda" else _CPU_BATCH)
    results = []
    for name in datasets:
        for size in sizes:
            images = load_dataset(name, size, data_root)
            for backbone_name in backbones:
                backbone = load_backbone(backbone_name, weights, images.size, fit)
                embedder = Embedder(
                    backbone, target, compute if backbone.is_network else "fp32", batch
                )
                results.append(_extract_one(images, embedder, dtype, Path(store), progress))
    return results


def _extract_one(
    images: ImageDataset, embedder: Embedder, dtype: StoreDtype, root: Path, progress: Progress
) -> Extraction:
    embedder.backbone.preprocess.check(images.size)
    dim = embedder(_as_tensor(images, "train", slice(0, 1))).shape[1]
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
    folder = _safe_name(embedder.backbone.name)
    path = root / _safe_name(images.name) / str(images.size) / f"{folder}-{key.key8}.zarr"
    labels = {split: images.splits[split].labels for split in SPLITS}
    with open_writer(path, info, labels) as writer:
        missing = writer.n_missing
        reused = writer.n_chunks - missing
        status = writer.status
        if status == "skipped":
            return Extraction(open_store(path), status, 0, reused, 0.0, None)
        seconds, n_images = _fill(writer, images, embedder, progress)
        rate = n_images / seconds if n_images else None
        cost = dict(writer.info.cost)
        cost["seconds"] = cost.get("seconds", 0.0) + seconds
        cost["device"] = describe_device(embedder.device)
        if rate is not None:
            cost["images_per_second"] = rate
        writer.finish(cost)
    return Extraction(open_store(path), status, missing, reused, seconds, rate)


def _safe_name(name: str) -> str:
    """Return the name with everything replaced that could leave its folder or confuse a shell."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe.lstrip(".") or "_"


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
        task=images.task,
        classes=list(images.classes),
        size=images.size,
        backbone=backbone.name,
        weights=backbone.weights,
        dim=dim,
        dtype=key.dtype,
        n_samples={split: len(images.splits[split]) for split in SPLITS},
        versions={"medplus": __version__, **{name: version(name) for name in packages}},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cost={},
        checksums={},
        complete=False,
    )


def _as_tensor(images: ImageDataset, split: Split, rows: slice) -> torch.Tensor:
    # A copy: the map is read-only, and reading it here keeps page faults off the device loop.
    return torch.from_numpy(np.array(images.splits[split].images[rows]))


def _release(images: ImageDataset, split: Split) -> None:
    """Give pages that have been read back to the system, or they would add up to the dataset."""
    mapping = getattr(images.splits[split].images, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class _Batch:
    split: Split
    chunk: int
    offset: int
    images: torch.Tensor
    chunk_rows: int

    @property
    def ends_chunk(self) -> bool:
        return self.offset + len(self.images) == self.chunk_rows


def _fill(
    writer: StoreWriter, images: ImageDataset, embedder: Embedder, progress: Progress
) -> tuple[float, int]:
    """Compute every missing chunk; return the seconds and the number of images."""
    layouts = {split: writer.info.layouts(split)[0] for split in SPLITS}
    todo = [(split, chunk) for split in SPLITS for chunk in writer.missing[split]]
    rows = {(s, c): layouts[s].rows(c) for s, c in todo}
    total = sum(r.stop - r.start for r in rows.values())
    pinned = embedder.device.type == "cuda"
    what = f"{images.name} {images.size} px · {embedder.backbone.name} · {embedder.precision}"
    start = time.perf_counter()

    def read() -> Iterator[_Batch]:
        for split, chunk in todo:
            span = rows[split, chunk]
            for first in range(span.start, span.stop, embedder.batch_limit):
                part = _as_tensor(
                    images, split, slice(first, min(first + embedder.batch_limit, span.stop))
                )
                part = part.pin_memory() if pinned else part
                yield _Batch(split, chunk, first - span.start, part, span.stop - span.start)
            _release(images, split)

    with (
        progress(what, total, "img") as advance,
        _ChunkSink(writer, embedder, advance) as sink,
        closing(_read_ahead(read())) as batches,
    ):
        for batch in batches:
            if batch.offset == 0:
                buffer = torch.empty(batch.chunk_rows, writer.info.dim, pin_memory=pinned)
            end = batch.offset + len(batch.images)
            buffer[batch.offset : end].copy_(embedder(batch.images), non_blocking=True)
            if batch.ends_chunk:
                sink.put(batch.split, batch.chunk, buffer)
    return time.perf_counter() - start, total


def _read_ahead(batches: Iterator[_Batch]) -> Generator[_Batch, None, None]:
    """Run an iterator in a thread, a few items ahead of its consumer."""
    waiting: queue.Queue[_Batch | BaseException | None] = queue.Queue(_QUEUED)
    stopped = threading.Event()

    def offer(item: _Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for batch in batches:
                if not offer(batch):
                    return
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=produce, name="medplus-reader", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


class _ChunkSink:
    """The writer thread: takes finished chunks, checks them, commits them in order."""

    def __init__(self, writer: StoreWriter, embedder: Embedder, advance: Advance) -> None:
        self._writer = writer
        self._embedder = embedder
        self._advance = advance
        self._queue: queue.Queue[tuple[Split, int, torch.Tensor, Any] | None] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="medplus-writer", daemon=True)

    def __enter__(self) -> _ChunkSink:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Also after an error or Ctrl-C: chunks that are computed are worth keeping.
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, split: Split, chunk: int, rows: torch.Tensor) -> None:
        if self._error is not None:
            raise self._error
        copied = None
        if self._embedder.device.type == "cuda":
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self._embedder.device))
        self._queue.put((split, chunk, rows, copied))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep the queue moving, so that the main thread never hangs on it
            try:
                split, chunk, rows, copied = item
                if copied is not None:
                    copied.synchronize()
                self._commit(split, chunk, rows.numpy())
            except BaseException as error:
                self._error = error

    def _commit(self, split: Split, chunk: int, rows: np.ndarray) -> None:
        first = self._writer.info.layouts(split)[0].rows(chunk).start
        _check_finite(rows, f"{split} row", first, self._embedder)
        with np.errstate(over="ignore"):
            stored = rows.astype(self._writer.info.dtype, copy=False)
        if stored is not rows and not np.isfinite(stored).all():
            raise StoreError(
                f"embeddings of {self._embedder.backbone.name} exceed the range of float16 "
                "(65504); store them with --dtype float32"
            )
        self._writer.commit(split, chunk, stored)
        self._advance(len(rows))


def _check_finite(rows: np.ndarray, what: str, first: int, embedder: Embedder) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        better: Precision = "bf16" if embedder.precision == "fp16" else "fp32"
        remedy = (
            f"use --precision {better}" if embedder.precision != "fp32" else "check the weights"
        )
        raise BackboneError(
            f"{embedder.backbone.name} gives non-finite embeddings at {embedder.precision} "
            f"({what} {first + int(bad[0])}, {len(bad)} rows in this chunk); {remedy}"
        )
