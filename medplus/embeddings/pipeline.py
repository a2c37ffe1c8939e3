"""The pipeline that fills a store: read, compute and write at the same time.

A thread reads uint8 batches from the memory-mapped cache, the main thread drives the device, and
another thread writes finished chunks. Few of either wait, so memory does not grow with the number
of images, and the device waits for neither.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from medplus.backbones.inference import Embedder
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.tuning import Tuned
from medplus.embeddings.writer import StoreWriter
from medplus.errors import BackboneError, StoreError
from medplus.memory import release_pages
from medplus.progress import Advance, Progress
from medplus.vocabulary import Precision, Split

_QUEUED = 3
Batch = TypeVar("Batch")


def as_tensor(images: ImageDataset, split: Split, rows: slice) -> torch.Tensor:
    """Return some images of a split, uint8, in memory."""
    # A copy: the map is read-only, and reading it here keeps page faults off the device loop.
    return torch.from_numpy(np.array(images.splits[split].images[rows]))


@dataclass(frozen=True)
class _Batch:
    split: Split
    chunk: int
    offset: int
    images: torch.Tensor
    chunk_rows: int


@dataclass(frozen=True)
class Filled:
    """How a store was filled.

    Attributes
    ----------
    n_images : int
    batch_size : int
        Of the last batches; the first ones may have been measured at others.
    compiled : bool
        Whether these ran through a compiled network.
    compile_seconds : float
        What compiling has taken, within the extraction.
    """

    n_images: int
    batch_size: int
    compiled: bool
    compile_seconds: float


def fill_store(
    writer: StoreWriter,
    images: ImageDataset,
    embedder: Embedder,
    progress: Progress,
    batch_size: int | None = None,
    compiled: bool | None = None,
) -> Filled:
    """Compute every missing chunk of a store.

    Parameters
    ----------
    batch_size, compiled : optional
        As for `medplus.embeddings.tuning.Tuned`: found by measuring unless they are given.

    Raises
    ------
    BackboneError
        If the network does not take the images, or gives embeddings that are not finite.
    StoreError
        If the disk refuses a chunk, or float16 cannot hold it.
    """
    layouts = {split: writer.info.layout(split) for split in writer.info.splits}
    todo = [(split, chunk) for split in writer.info.splits for chunk in writer.missing[split]]
    rows = {(s, c): layouts[s].rows(c) for s, c in todo}
    total: int = sum(r.stop - r.start for r in rows.values())
    pinned = embedder.device.type == "cuda"
    image_nbytes = int(np.prod(images.splits["train"].images.shape[1:]))
    tuned = Tuned(embedder, total, image_nbytes, batch_size, compiled)
    what = f"{images.name} {images.size} px · {embedder.backbone.name} · {embedder.precision}"

    def read() -> Iterator[_Batch]:
        for split, chunk in todo:
            span = rows[split, chunk]
            for first in range(span.start, span.stop, tuned.block):
                stop = min(first + tuned.block, span.stop)
                part = as_tensor(images, split, slice(first, stop))
                part = part.pin_memory() if pinned else part
                yield _Batch(split, chunk, first - span.start, part, span.stop - span.start)
            release_pages(images.splits[split].images)

    with (
        progress(what, total, "img") as advance,
        _commits(writer, embedder, advance) as commit,
        closing(read_ahead(read())) as batches,
    ):
        for batch in batches:
            if batch.offset == 0:
                buffer = torch.empty(batch.chunk_rows, writer.info.dim, pin_memory=pinned)
            end = batch.offset + len(batch.images)
            buffer[batch.offset : end].copy_(tuned(batch.images), non_blocking=True)
            if end == batch.chunk_rows:
                commit(batch.split, batch.chunk, buffer)
    return Filled(total, tuned.batch_size, tuned.is_compiled, tuned.compile_seconds)


def read_ahead(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Run an iterator in a thread, a few items ahead of its consumer."""
    with ThreadPoolExecutor(1, "medplus-reader") as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(_QUEUED))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, batches, None))
            yield batch


@contextmanager
def _commits(
    writer: StoreWriter, embedder: Embedder, advance: Advance
) -> Iterator[Callable[[Split, int, torch.Tensor], None]]:
    """Give what takes finished chunks; another thread checks and commits them in order.

    Each call raises what went wrong with an earlier chunk; so does the end of the block.
    """

    def commit(split: Split, chunk: int, rows: torch.Tensor, copied: Any) -> None:
        if copied is not None:
            copied.synchronize()
        writer.commit(split, chunk, _checked(rows.numpy(), writer.info, split, chunk, embedder))
        advance(len(rows))

    def put(split: Split, chunk: int, rows: torch.Tensor) -> None:
        if len(waiting) > _QUEUED:
            waiting.popleft().result()
        copied = None
        if embedder.device.type == "cuda":
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(embedder.device))
        waiting.append(thread.submit(commit, split, chunk, rows, copied))

    thread = ThreadPoolExecutor(1, "medplus-writer")
    waiting: deque[Future[None]] = deque()
    try:
        yield put
    finally:
        # Also after an error or Ctrl-C: chunks that are computed are worth keeping.
        try:
            thread.shutdown()
        except KeyboardInterrupt:
            thread.shutdown()  # or it would write on when the store is let go
            raise
    for done in waiting:
        done.result()


def _checked(
    rows: np.ndarray, info: StoreInfo, split: Split, chunk: int, embedder: Embedder
) -> np.ndarray:
    """Return a chunk of embeddings as it is stored, if all of it is finite."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        better: Precision = "bf16" if embedder.precision == "fp16" else "fp32"
        remedy = (
            f"use --precision {better}" if embedder.precision != "fp32" else "check the weights"
        )
        first = info.layout(split).rows(chunk).start + int(bad[0])
        raise BackboneError(
            f"{embedder.backbone.name} gives non-finite embeddings at {embedder.precision} "
            f"({split} row {first}, {len(bad)} rows in this chunk); {remedy}"
        )
    with np.errstate(over="ignore"):
        stored = rows.astype(info.dtype, copy=False)
    if stored is not rows and not np.isfinite(stored).all():
        raise StoreError(
            f"embeddings of {embedder.backbone.name} exceed the range of float16 (65504); store "
            "them with --dtype float32"
        )
    return stored
