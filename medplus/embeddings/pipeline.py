"""The pipeline that fills a store: read, compute and write at the same time.

A thread reads uint8 batches from the memory-mapped cache, the main thread drives the device, and
another thread writes finished chunks. Both queues are bounded, so memory does not grow with the
number of images, and the device waits for neither.
"""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medplus.backbones.inference import Embedder
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.writer import StoreWriter
from medplus.errors import BackboneError, StoreError
from medplus.progress import Advance, Progress
from medplus.vocabulary import SPLITS, Precision, Split

_QUEUED = 3


def as_tensor(images: ImageDataset, split: Split, rows: slice) -> torch.Tensor:
    """Return some images of a split, uint8, in memory."""
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


def fill_store(
    writer: StoreWriter, images: ImageDataset, embedder: Embedder, progress: Progress
) -> int:
    """Compute every missing chunk of a store, and return of how many images.

    Raises
    ------
    BackboneError
        If the network does not take the images, or gives embeddings that are not finite.
    StoreError
        If the disk refuses a chunk, or float16 cannot hold it.
    """
    layouts = {split: writer.info.layouts(split)[0] for split in SPLITS}
    todo = [(split, chunk) for split in SPLITS for chunk in writer.missing[split]]
    rows = {(s, c): layouts[s].rows(c) for s, c in todo}
    total: int = sum(r.stop - r.start for r in rows.values())
    pinned = embedder.device.type == "cuda"
    what = f"{images.name} {images.size} px · {embedder.backbone.name} · {embedder.precision}"

    def read() -> Iterator[_Batch]:
        for split, chunk in todo:
            span = rows[split, chunk]
            step = embedder.batch_limit  # once: it may be halved while this chunk is read
            for first in range(span.start, span.stop, step):
                part = as_tensor(images, split, slice(first, min(first + step, span.stop)))
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
    return total


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
        try:
            self._end()
        except KeyboardInterrupt:
            self._end()  # or it would write on when the store is let go
            raise
        if self._error is not None and error is None:
            raise self._error

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()

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
