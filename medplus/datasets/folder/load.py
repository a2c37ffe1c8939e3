"""A folder as a dataset: from its cache where that is current, else filled anew."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus import atomic, lock
from medplus.datasets import arrays, cache
from medplus.datasets.dataset import ImageDataset, ImageSplit
from medplus.datasets.folder import splitfile
from medplus.datasets.folder.build import fill_arrays
from medplus.datasets.folder.decode import Reading
from medplus.datasets.folder.describe import (
    DEFAULT_SIZE,
    DESCRIPTION_FILE,
    LARGEST_SIZE,
    Description,
    read_description,
    with_group_column,
)
from medplus.datasets.folder.find import File, Sample, find_files, from_places
from medplus.datasets.folder.labels import Labels, encode
from medplus.datasets.folder.splitfile import SplitFile
from medplus.datasets.folder.table import read_table, table_path
from medplus.datasets.folder.wording import count
from medplus.datasets.folder.workers import refuse_while_starting
from medplus.errors import DatasetError, MedplusError, UsageError, first_line
from medplus.progress import Progress, silent
from medplus.vocabulary import SPLITS, Split, Task

log = logging.getLogger(__name__)

_SCHEMA = 2
_RUN_FILES = ("record.json", "network.safetensors", "zarr.json")


@dataclass(frozen=True)
class Source:
    """A folder as it is now.

    Attributes
    ----------
    beside, elsewhere : Path
        Where caches may lie: in the folder, or in the user's cache.
    """

    root: Path
    description: Description
    files: list[File]
    table: Path | None
    beside: Path
    elsewhere: Path

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.description.name or self.root.name

    def reading(self, size: int) -> Reading:
        """Return how files become pixels."""
        said = self.description
        return Reading(size, said.policy, said.channels, said.value_range)

    def signature(self, split_file: SplitFile | None) -> str:
        """Return what changes when the folder changes: names, sizes, times; texts in full."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path!r}:{file.nbytes}:{file.mtime_ns}\n".encode())
        for path in (self.root / DESCRIPTION_FILE, self.table):
            digest.update(b"|" + (path.read_bytes() if path and path.is_file() else b"-"))
        digest.update(b"|" + (split_file.text if split_file else b"-"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Content:
    """What a folder's samples are, before any image is decoded."""

    samples: list[Sample]
    labels: Labels
    split_file: SplitFile | None
    group_column: str | None


def load_folder(
    path: Path,
    size: int | None = None,
    *,
    group_column: str | None = None,
    progress: Progress = silent,
) -> ImageDataset:
    """Load a folder of images at a size, memory-mapped; decode it first where that is needed.

    `group_column` is as in ``dataset.yaml``, for folders where that names none.

    Raises
    ------
    UsageError, DatasetError
        If the folder, its description, its table or an image cannot be used.
    """
    source = read_source(path, group_column)
    if size is None:
        size = source.description.size or DEFAULT_SIZE
    if not 1 <= size <= LARGEST_SIZE:
        raise UsageError(f"--size {size}: folders are read at sizes from 1 to {LARGEST_SIZE} px")
    for root in (source.beside, source.elsewhere):
        found = _open_if_current(root / str(size), source, size)
        if found is not None:
            lock.remove_stale(root / f"{size}.lock")
            return found
    refuse_while_starting()
    home = source.beside if cache.is_writable(source.beside) else source.elsewhere
    _make_folder(home)
    folder = home / str(size)
    with lock.hold(home / f"{size}.lock", f"the cache of {source.root}", cache.LOCK_TIMEOUT_S):
        source = read_source(path, group_column)
        found = _open_if_current(folder, source, size)  # filled by another process meanwhile
        if found is not None:
            return found
        atomic.remove_leftovers(folder)
        _fill(folder, source, size, progress)
    found = _open_if_current(folder, read_source(path, group_column), size)
    if found is None:
        raise DatasetError(f"{path} was changed while it was read; run the command again")
    return found


def read_source(path: Path, group_column: str | None = None) -> Source:
    """Look at a folder: its description, its table, its files.

    Raises
    ------
    UsageError, DatasetError
    """
    try:
        root = path.resolve()
        is_folder = root.is_dir()
        runs = [name for name in _RUN_FILES if (root / name).is_file()]
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path} cannot be reached: {first_line(error)}") from None
    if not is_folder:
        raise DatasetError(f"{path} is no folder of images")
    if runs:
        what = "an embedding store" if "zarr.json" in runs else "a run"
        raise UsageError(
            f"{path} is {what} of medplus, not a dataset: it holds {runs[0]} (a fine-tuned run is "
            "a --backbone)"
        )
    description = with_group_column(read_description(root), root, group_column)
    table = table_path(root, description)
    place = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return Source(
        root, description, find_files(root), table,
        root / cache.FOLDER, cache.user_cache() / f"{root.name}-{place}",
    )  # fmt: skip


def folder_name(path: Path) -> str:
    """Return the name of a folder as a dataset, whatever its images are."""
    root = path.resolve()
    try:
        return read_description(root).name or root.name
    except UsageError:
        return root.name  # loading the folder will say what is wrong


def cached_sizes(path: Path) -> list[int]:
    """Return the sizes at which a folder has been read, current or not."""
    source = read_source(path)
    found = {
        int(meta.parent.name)
        for root in (source.beside, source.elsewhere)
        for meta in root.glob("[1-9]*/meta.json")
        if meta.parent.name.isdecimal()
    }
    return sorted(found)


def count_samples(path: Path) -> tuple[dict[Split, int], Labels]:
    """Return the numbers of images per split, and the labels, without decoding or writing."""
    content = read_content(read_source(path))
    splits = [sample.split for sample in content.samples]
    return {name: splits.count(name) for name in SPLITS}, content.labels


def read_content(source: Source) -> Content:
    """Return a folder's samples with their labels and splits.

    Raises
    ------
    UsageError, DatasetError
    """
    names: tuple[str, ...] = ()
    said = source.description
    if source.table is not None:
        said = splitfile.with_written_groups(said, source.root, source.elsewhere)
        table = read_table(source.root, source.table, said, source.files)
        samples, names = table.samples, table.labels
    else:
        _check_no_columns(source)
        samples = from_places(source.root, source.files)
    labels = encode(source.root, samples, names, said)
    settled, split_file = splitfile.settle(source.root, source.elsewhere, samples, labels, said)
    return Content(settled, labels, split_file, said.group_column)


def _check_no_columns(source: Source) -> None:
    said = source.description
    if said.label_columns or said.group_column:
        key = "group_column" if said.group_column else "label_columns"
        raise UsageError(
            f"{source.root} has no table whose {key} could be meant; put a labels.csv there, or "
            f"name one as 'table' in {DESCRIPTION_FILE}"
        )


def _fill(folder: Path, source: Source, size: int, progress: Progress) -> None:
    content = read_content(source)
    log.info("reading %s of %s at %d px", count(len(content.samples), "image"), source.root, size)
    try:
        if folder.exists():
            atomic.remove_folder(folder)
        with atomic.new_folder(folder) as temporary:
            reading = source.reading(size)
            with progress(
                f"{source.name} {size} px · reading", len(content.samples), "img"
            ) as tell:
                channels, digest = fill_arrays(
                    source.root, content.samples, content.labels.values, reading, temporary, tell
                )
            meta = {
                "schema": _SCHEMA,
                "signature": source.signature(content.split_file),
                "digest": digest,
                "reading": reading.to_dict(),
                "task": content.labels.task,
                "classes": list(content.labels.classes),
                "channels": channels,
                "group_column": content.group_column,
                "arrays": arrays.describe_arrays(temporary),
            }
            cache.write_meta(temporary, meta)
            if content.split_file is not None:
                content.split_file.write()
    except OSError as error:
        raise DatasetError(
            f"the cache of {source.root} cannot be written to {folder.parent}: "
            f"{error.strerror or error} (MEDPLUS_CACHE names another folder)"
        ) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"the dataset cache {folder} cannot be written ({error.strerror}); set MEDPLUS_CACHE "
            "to a folder for it"
        ) from None


def _open_if_current(folder: Path, source: Source, size: int) -> ImageDataset | None:
    try:
        meta = cache.read_meta(folder)
        split_file = splitfile.find_split_file(source.root, source.elsewhere)
        signatures = [source.signature(None), source.signature(split_file)]
        if meta["schema"] != _SCHEMA or meta["signature"] not in signatures:
            return None
        if meta["reading"] != source.reading(size).to_dict():
            return None
        if source.description.group_column not in (None, meta.get("group_column")):
            return None  # asked for by a flag, of which the signature knows nothing
        mapped = arrays.map_arrays(folder, meta["arrays"])
        return _dataset(source, size, meta, mapped)
    except MedplusError:
        raise
    except Exception:
        return None  # absent, or damaged in whatever way: it is filled again


def _dataset(
    source: Source, size: int, meta: dict[str, Any], mapped: dict[str, np.ndarray]
) -> ImageDataset:
    task: Task = meta["task"]
    classes: Sequence[str] = meta["classes"]
    return ImageDataset(
        name=source.name,
        size=size,
        task=task,
        classes=tuple(classes),
        channels=meta["channels"],
        source="custom",
        licence=source.description.licence,
        citation=source.description.citation,
        digest=meta["digest"],
        path=str(source.root),
        splits={
            split: ImageSplit(mapped[f"{split}_images"], np.array(mapped[f"{split}_labels"]))
            for split in SPLITS
        },
    )
