"""Writing embedding stores: create, resume, repair, complete. One writer per store."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medplus import atomic, lock
from medplus.embeddings import chunks
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.schema import ArrayLayout, group_metadata
from medplus.embeddings.store import (
    DamagedStoreError,
    find_damage,
    read_info,
    write_info,
)
from medplus.errors import StoreError
from medplus.vocabulary import SPLITS, Split

log = logging.getLogger(__name__)

WriteStatus = Literal["extracted", "resumed", "skipped"]


class StoreInUseError(StoreError, lock.LockHeldError):
    """Another process writes the store."""


class StoreWriter:
    """The one writer of a store.

    Attributes
    ----------
    status : {"extracted", "resumed", "skipped"}
        Whether the store is new, was found incomplete or damaged, or has nothing left to do.
    missing : dict
        Per split, the embedding chunks that must be computed.
    """

    def __init__(self, path: Path, info: StoreInfo, status: WriteStatus) -> None:
        self.path = path
        self.info = info
        self.status = status
        self.missing: dict[Split, list[int]] = {
            split: self._uncommitted(info.layouts(split)[0]) for split in SPLITS
        }

    def _uncommitted(self, layout: ArrayLayout) -> list[int]:
        committed = self.info.checksums.get(layout.path, {})
        return [chunk for chunk in range(layout.n_chunks) if str(chunk) not in committed]

    @property
    def n_missing(self) -> int:
        """Number of chunks that must be computed."""
        return sum(len(chunk_list) for chunk_list in self.missing.values())

    @property
    def n_chunks(self) -> int:
        """Number of embedding chunks of the whole store."""
        return sum(self.info.layouts(split)[0].n_chunks for split in SPLITS)

    def commit(self, split: Split, chunk: int, rows: np.ndarray) -> None:
        """Write one chunk of embeddings and record its checksum; then, and only then, it counts.

        Raises
        ------
        StoreError
            If the disk refuses the data.
        """
        layout = self.info.layouts(split)[0]
        with _disk_errors(self.path):
            digest = chunks.write_chunk(self.path, layout, chunk, rows)
            self.info.checksums.setdefault(layout.path, {})[str(chunk)] = digest
            write_info(self.path, self.info)

    def finish(self, cost: Mapping[str, Any]) -> None:
        """Mark the store complete, with what it cost over all sessions."""
        self.info.cost = dict(cost)
        self.info.complete = True
        with _disk_errors(self.path):
            write_info(self.path, self.info)


@contextmanager
def open_writer(
    path: Path, info: StoreInfo, labels: Mapping[Split, np.ndarray], patience_s: float = 0.0
) -> Iterator[StoreWriter]:
    """Hold a store for writing: create it, or find out what is left to do.

    Parameters
    ----------
    path : Path
        Where the store lies or will lie.
    info : StoreInfo
        What the store is to hold; an existing store's own attributes take its place.
    labels : mapping of split to ndarray, shape (n_samples, n_labels)
    patience_s : float
        How long to wait for another process that writes this store, in seconds.

    Raises
    ------
    StoreError
        If another process still writes this store, or the folder cannot be written.
    """
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path, patience_s):
        with _disk_errors(path):
            atomic.remove_leftovers(path)
            existing, status = _inspect(path)
            if existing is None:
                _create(path, info, labels)
                existing = info
            elif status == "resumed":
                _repair(path, existing, labels)
        yield StoreWriter(path, existing, status)


@contextmanager
def _held(path: Path, patience_s: float = 0.0) -> Iterator[None]:
    try:
        with lock.hold(path.with_name(f"{path.name}.lock"), f"the store {path}", patience_s):
            yield
    except lock.LockHeldError as error:
        raise StoreInUseError(str(error)) from None


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another "
            "folder with --store, then run the same command again: finished chunks are kept"
        ) from error


def _inspect(path: Path) -> tuple[StoreInfo | None, WriteStatus]:
    if not path.exists():
        return None, "extracted"
    try:
        info = read_info(path)
    except DamagedStoreError as error:
        # Without its checksums nothing in it counts. Another schema or a disk that refuses to read
        # is no such damage: those stores are left as they are.
        log.warning("%s: it is made anew", error)
        atomic.remove_folder(path)
        return None, "extracted"
    damage = find_damage(path, info)
    if info.complete and not damage:
        return info, "skipped"
    for part in damage:
        info.checksums.get(part.array, {}).pop(str(part.chunk), None)
    return info, "resumed"


def _create(path: Path, info: StoreInfo, labels: Mapping[Split, np.ndarray]) -> None:
    """Make the whole skeleton under a temporary name, so that no store ever lacks a part of it."""
    info.complete = False
    with atomic.new_folder(path) as temporary:
        _write_skeleton(temporary, info, labels)


def _repair(path: Path, info: StoreInfo, labels: Mapping[Split, np.ndarray]) -> None:
    info.complete = False
    for leftover in path.rglob("*.tmp-*"):
        leftover.unlink(missing_ok=True)
    _write_skeleton(path, info, labels)


def _write_skeleton(path: Path, info: StoreInfo, labels: Mapping[Split, np.ndarray]) -> None:
    """Write everything but the embeddings: metadata, labels and index."""
    write_info(path, info)  # first, so that a store under repair is incomplete from here on
    for split in SPLITS:
        embeddings, label_layout, index = info.layouts(split)
        small = {
            label_layout: np.ascontiguousarray(labels[split]),
            index: np.arange(info.n_samples[split]),
        }
        (path / split).mkdir(exist_ok=True)
        atomic.write_json(path / split / "zarr.json", group_metadata({}))
        for layout in (embeddings, *small):
            (path / layout.path).mkdir(exist_ok=True)
            atomic.write_json(path / layout.path / "zarr.json", layout.metadata())
        for layout, values in small.items():
            digest = chunks.write_chunk(path, layout, 0, values)
            info.checksums[layout.path] = {"0": digest}
        info.checksums.setdefault(embeddings.path, {})
    write_info(path, info)


def remove_store(path: Path) -> None:
    """Delete a store, while nobody writes it.

    Raises
    ------
    StoreError
        If there is no store at `path`, or another process writes it.
    """
    # A damaged store may have lost everything but its name; other Zarr folders lack the key in it.
    if not re.fullmatch(r".+-[0-9a-f]{8}\.zarr", path.name) or not path.is_dir():
        raise StoreError(f"there is no embedding store at {path}; nothing was deleted")
    with _held(path):
        atomic.remove_folder(path)
