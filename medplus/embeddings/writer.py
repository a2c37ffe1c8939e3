"""Writing embedding stores: create, resume, repair, complete. One writer per store."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medplus import atomic, lock
from medplus.embeddings.info import DamagedStoreError, StoreInfo, read_info, write_info
from medplus.embeddings.layout import METADATA
from medplus.embeddings.store import Damage, find_damage
from medplus.errors import StoreError, explained
from medplus.run.scoring import Samples
from medplus.vocabulary import Split

log = logging.getLogger(__name__)

WriteStatus = Literal["extracted", "resumed", "skipped"]
Known = Mapping[Split, Samples]
"""What is known of the rows before they are embedded."""


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

    def __init__(
        self, path: Path, info: StoreInfo, status: WriteStatus, missing: dict[Split, list[int]]
    ) -> None:
        self.path = path
        self.info = info
        self.status = status
        self.missing = missing
        self._arrays: dict[Split, Any] = {}

    @property
    def n_missing(self) -> int:
        """Number of chunks that must be computed."""
        return sum(len(chunk_list) for chunk_list in self.missing.values())

    @property
    def n_chunks(self) -> int:
        """Number of embedding chunks of the whole store."""
        return sum(self.info.layout(split).n_chunks for split in self.info.splits)

    def commit(self, split: Split, chunk: int, rows: np.ndarray) -> None:
        """Write one chunk of embeddings, whole or not at all.

        It outlives the process from here on; what a power cut takes of it fails its checksum, and
        is computed again.

        Raises
        ------
        StoreError
            If the disk refuses the data.
        """
        from medplus.embeddings.arrays import open_array

        layout = self.info.layout(split)
        with _disk_errors(self.path):
            if split not in self._arrays:
                self._arrays[split] = open_array(self.path, layout)
            self._arrays[split][layout.rows(chunk)] = rows

    def keep_cost(self, cost: Mapping[str, Any]) -> None:
        """Note what the sessions so far have cost; nothing else of the store changes.

        Raises
        ------
        StoreError
            If the disk refuses it.
        """
        self.info.cost = dict(cost)
        with _disk_errors(self.path):
            write_info(self.path, self.info)

    def finish(self, cost: Mapping[str, Any]) -> None:
        """Sync the embeddings, then mark the store complete, with its cost over all sessions."""
        with _disk_errors(self.path):
            for split in self.info.splits:
                atomic.sync_tree(self.path / self.info.layout(split).path)
        self.info.complete = True
        self.keep_cost(cost)


def tidy_stores(root: Path) -> None:
    """Remove the locks that killed writers have left beside the stores under a root."""
    for file in root.glob("*/*/*.zarr.lock"):
        lock.remove_stale(file)


@contextmanager
def open_writer(
    path: Path, info: StoreInfo, samples: Known, patience_s: float = 0.0
) -> Iterator[StoreWriter]:
    """Hold a store for writing: create it, or find out what is left to do.

    Parameters
    ----------
    path : Path
        Where the store lies or will lie.
    info : StoreInfo
        What the store is to hold; an existing store's own attributes take its place.
    samples : mapping of split to Samples
        Labels, positions, names and groups of the rows.
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
            writer = _prepare(path, info, samples)
        yield writer


@contextmanager
def _held(path: Path, patience_s: float = 0.0) -> Iterator[None]:
    try:
        with lock.hold(path.with_name(f"{path.name}.lock"), f"the store {path}", patience_s):
            yield
    except lock.LockHeldError as error:
        raise StoreInUseError(str(error)) from None


def _disk_errors(path: Path) -> AbstractContextManager[None]:
    return explained(
        StoreError,
        f"{path} cannot be written",
        "free space or choose another folder with --store, then run the same command again: "
        "finished chunks are kept",
    )


def _prepare(path: Path, info: StoreInfo, samples: Known) -> StoreWriter:
    existing = _find(path, info)
    if existing is None:
        info.complete = False
        with atomic.new_folder(path) as temporary:
            _write_skeleton(temporary, info, samples)
        everything = {s: list(range(info.layout(s).n_chunks)) for s in info.splits}
        return StoreWriter(path, info, "extracted", everything)
    for leftover in (*path.rglob("*.partial"), *path.rglob(".*.tmp-*")):  # zarr's, and ours
        leftover.unlink(missing_ok=True)
    damage = find_damage(path, existing)
    if existing.complete and not damage:
        return StoreWriter(path, existing, "skipped", {split: [] for split in info.splits})
    _repair(path, existing, samples)
    if any(part.chunk is None for part in damage):  # chunks could not be read without metadata
        damage = find_damage(path, existing)
    return StoreWriter(path, existing, "resumed", _drop(path, existing, damage))


def _find(path: Path, info: StoreInfo) -> StoreInfo | None:
    if not path.exists():
        return None
    try:
        existing = read_info(path)
    except DamagedStoreError as error:
        # Without its description nothing in it counts. Another schema or a disk that refuses to
        # read is no such damage: those stores are left as they are.
        log.warning("%s: it is made anew", error)
        atomic.remove_folder(path)
        return None
    if existing.key != info.key:
        raise StoreError(f"{path} holds other embeddings than its name says; move it away")
    return existing


def _drop(path: Path, info: StoreInfo, damage: list[Damage]) -> dict[Split, list[int]]:
    """Remove the embedding chunks that are damaged, and return by split what is missing."""
    missing: dict[Split, list[int]] = {}
    for split in info.splits:
        layout = info.layout(split)
        chunks = (part.chunk for part in damage if part.array == layout.path)
        missing[split] = [chunk for chunk in chunks if chunk is not None]
        for chunk in missing[split]:
            (path / layout.chunk_key(chunk)).unlink(missing_ok=True)
    return missing


def _repair(path: Path, info: StoreInfo, samples: Known) -> None:
    """Put everything but the embeddings in its place again, file by file."""
    info.complete = False
    write_info(path, info)  # first, so that a store under repair is incomplete from here on
    with atomic.temporary_folder(path) as temporary:
        _write_skeleton(temporary, info, samples)
        atomic.sync_tree(temporary)
        folders = []
        for file in sorted(temporary.rglob("*")):  # the store's own zarr.json is the last
            place = path / file.relative_to(temporary)
            if file.is_dir():
                place.mkdir(exist_ok=True)
                folders.append(place)
            else:
                file.replace(place)
        for folder in (*folders, path):
            atomic.sync_folder(folder)


def _write_skeleton(folder: Path, info: StoreInfo, samples: Known) -> None:
    """Write everything but the embeddings: metadata, labels, index, names and groups."""
    from medplus.embeddings.arrays import create_arrays

    names = _encode({s: part.names or [""] * len(part.labels) for s, part in samples.items()})
    groups = _encode({split: part.groups for split, part in samples.items()})
    info.name_nbytes = names["test"].itemsize
    info.group_nbytes = groups["test"].itemsize if len(groups["test"]) else 0
    values: dict[str, np.ndarray] = {}
    for split in info.splits:
        values[f"{split}/labels"] = samples[split].labels
        values[f"{split}/index"] = samples[split].index
        for name, texts in (("names", names), ("groups", groups)):
            if name in info.arrays:
                shape = info.layout(split, name).shape
                values[f"{split}/{name}"] = texts[split].view("u1").reshape(shape)
    create_arrays(folder, info.all_layouts(), values)
    info.metadata = {
        str(file.parent.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob(METADATA))
        if file.parent != folder
    }
    write_info(folder, info)


def _encode(texts: Mapping[Split, Sequence[str]]) -> dict[Split, np.ndarray]:
    """Return texts as UTF-8, shape (n,), all of one length: what every Zarr reader can read."""
    encoded = {
        split: np.array([text.encode(errors="surrogateescape") for text in of_split], "S")
        for split, of_split in texts.items()
    }
    width = max((column.itemsize for column in encoded.values()), default=0)
    return {split: column.astype(f"S{width}") for split, column in encoded.items()}


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
