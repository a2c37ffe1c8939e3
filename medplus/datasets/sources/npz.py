"""An npz file in MedMNIST's layout, named by its path; it has the size of its images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from medplus.datasets import npzfile
from medplus.datasets.cache import Cache, Cached, Facts, check_room
from medplus.datasets.card import Card, copies, task_of
from medplus.datasets.dataset import (
    DatasetRef,
    ImageDataset,
    ImageSplit,
    Names,
    Outline,
    data_digest,
)
from medplus.errors import DatasetError, UsageError, first_line
from medplus.naming import counted, leads_to, some
from medplus.reading import Reading
from medplus.remembered import stamp
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split, Task

log = logging.getLogger(__name__)


def claims(name: str) -> bool:
    """Tell a path, from a MedMNIST flag that nobody knows: with a separator, npz ending, or there.

    What is there may also be a folder, which another source claims first.
    """
    return "/" in name or "\\" in name or name.endswith(".npz") or leads_to(name)


def resolve(name: str) -> DatasetRef:
    """Return what a path means, whether or not there is a file."""
    return DatasetRef("npz", str(Path(name).absolute()), Path(name).stem, any_size=False)


def path(ref: DatasetRef, size: int | None, data_root: Path) -> Path:
    """Return the path of the file."""
    return Path(ref.spelling)


def load(
    ref: DatasetRef, size: int | None, data_root: Path, *, read: bool, **options: Any
) -> ImageDataset | None:
    """Load the file, memory-mapped; None if it is to be `read` first, and is not.

    Raises
    ------
    UsageError
        If a size is asked for that its images have not.
    DatasetError
        If the file is missing, damaged, or in another layout.
    """
    file = Path(ref.spelling)
    cached = open_cached(file) if read else find_cached(file)
    if cached is None:
        return None
    found = int(cached.arrays["train_images"].shape[1])
    if size is not None and size != found:
        raise UsageError(f"{file} holds images of {found} px; leave --size out, or say {found}")
    task, classes, why, labels = _meaning(cached, file)
    return dataset_of(cached, file, ref.name, task, classes, why, labels)


def dataset_of(
    cached: Cached,
    file: Path,
    name: str,
    task: Task,
    classes: tuple[str, ...],
    why: str,
    labels: Mapping[str, np.ndarray],
) -> ImageDataset:
    """Return the dataset that a file's arrays are.

    Parameters
    ----------
    why : str
        Who says what the task is.

    Raises
    ------
    DatasetError
        If the labels are not those of such a task.
    """
    splits = {}
    for split in SPLITS:
        images = cached.arrays[f"{split}_images"]
        names = Names(len(images), partial(_number, split, len(images)))
        images = images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
        checked = _checked(labels[f"{split}_labels"], split, file, task, len(classes))
        splits[split] = ImageSplit(images, checked, names)
    size, grey = splits["train"].images.shape[1], splits["train"].images.ndim == 3
    told = f"{size} × {size} px, {'grey' if grey else 'colour'}"
    card = Card(task, why, split_from="given by the file", images=told)
    card.warnings += cached.facts["copies"]
    card.describe(classes, {split: part.labels for split, part in splits.items()})
    return ImageDataset(
        name=name,
        size=size,
        task=task,
        classes=classes,
        source="phantom" if cached.facts["phantom"] else "custom",
        licence="",
        digest=data_digest(cached.facts["digest"], task, classes),
        path=str(file),
        splits=splits,
        # How files become such arrays, as far as that is known.
        reading=Reading(size=size, channels="grey" if grey else "rgb"),
        card=card,
    )


def describe(ref: DatasetRef, size: int | None, data_root: Path) -> Outline:
    """Return what the headers of the file tell.

    Raises
    ------
    DatasetError
        If the file is missing, damaged, or in another layout.
    """
    file = Path(ref.spelling)
    with npzfile.open_npz(file) as archive:
        headers = npzfile.read_headers(archive, file)
    n_labels = (*headers["train_labels"].shape, 1)[1]
    n_samples = {split: headers[f"{split}_images"].shape[0] for split in SPLITS}
    return Outline(n_samples, max(2, n_labels), n_labels, headers["train_images"].shape[1])


def open_cached(file: Path) -> Cached:
    """Return the arrays of an npz file from its cache, filling the cache first where needed.

    The cache's facts are ``md5`` of the file; ``phantom``, what the phantom generator noted, or
    None; ``copies``, warnings of images that repeat others; and ``signature``, by which a change
    is noticed.

    Raises
    ------
    DatasetError
        If the file is missing, damaged or not in MedMNIST's layout, or the cache cannot be written.
    """
    file = _existing(file)
    cache = Cache(file, file.parent, file.stem)
    check = partial(_is_of, file)
    return cache.find(check) or cache.fill(check, lambda folder: _copy(file, folder))


def find_cached(file: Path) -> Cached | None:
    """Return the arrays of a file if they have been read as they are now; nothing is computed."""
    try:
        file = _existing(file)
    except DatasetError:
        return None
    return Cache(file, file.parent, file.stem).find(partial(_is_of, file))


def file_md5(file: Path) -> str:
    """Return the MD5 of a file in hex: what MedMNIST publishes. It identifies, not secures."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _existing(file: Path) -> Path:
    try:
        file = file.resolve()
        found = file.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, …
        raise DatasetError(f"{file} cannot be reached: {first_line(error)}") from None
    if not found:
        reason = "is a folder; name the npz file in it" if file.is_dir() else "does not exist"
        raise DatasetError(f"{file} {reason}")
    return file


def _is_of(file: Path, facts: Facts) -> bool:
    return bool(facts["signature"] == stamp(file.stat()))


def _copy(file: Path, folder: Path) -> Facts:
    """Inflate a file's arrays into the folder of a new cache."""
    with npzfile.open_npz(file) as archive:
        headers = npzfile.read_headers(archive, file)
        signature = stamp(file.stat())
        nbytes = sum(header.nbytes for header in headers.values())
        log.info("caching %s (%.1f MB) for memory-mapped reading", file.name, nbytes / 1e6)
        check_room(folder, nbytes)
        for name, header in headers.items():
            with (folder / f"{name}.npy").open("wb") as array:
                array.writelines(npzfile.read_blocks(archive, file, header))
        phantom = npzfile.read_phantom_note(archive, file)
    return {
        "signature": signature,
        "md5": file_md5(file),
        "phantom": phantom,
        "copies": _copies(folder),
    }


def _copies(folder: Path) -> list[str]:
    contents: list[str] = []
    splits: list[Split | None] = []
    labels: list[Any] = []
    names: list[str] = []
    for split in SPLITS:
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
        contents += [xxhash.xxh3_128_hexdigest(image.tobytes()) for image in images]
        flags = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
        labels += flags.reshape(len(images), -1).tolist()
        splits += [split] * len(images)
        names += _number(split, len(images))
    return copies(contents, splits, labels, names)


def _meaning(
    cached: Cached, file: Path
) -> tuple[Task, tuple[str, ...], str, dict[str, np.ndarray]]:
    """Return the task that labels make, the classes, why, and the labels as class indices."""
    labels = {f"{split}_labels": cached.arrays[f"{split}_labels"] for split in SPLITS}
    every = [*labels.values()]
    width = every[0].shape[1] if every[0].ndim == 2 else 1
    if width > 1:
        names = tuple(map(str, range(width)))
        why = f"{width} columns of labels"
        if not all(a.ndim == 2 and _is_one_hot(a) for a in every):
            return MULTI_LABEL, names, why, labels
        why += ", exactly one of them 1 in every row"
        return task_of(names), names, why, {name: a.argmax(1) for name, a in labels.items()}
    values = np.unique(np.concatenate([np.unique(a) for a in every]))
    lowest, highest = int(values[0]), int(values[-1])
    if highest >= max(2 * len(values), 2) or lowest < 0:
        shown = some(map(str, values.tolist() if len(values) <= 3 else [*values[:2], highest]))
        odd = lowest if lowest < 0 else highest
        n = sum(int((a == odd).sum()) for a in every)
        raise DatasetError(
            f"{file}: the labels {shown} are no class indices from 0 on: "
            f"{counted(n, 'image')} {'has' if n == 1 else 'have'} the label {odd}; if that stands "
            "for a missing label, drop these images, else number the classes from 0"
        )
    if lowest == 1 and len(values) == highest > 1:
        names = tuple(map(str, values.tolist()))
        why = f"labels from 1 to {highest}, which are taken for the classes' names"
        labels = {name: a.astype(np.int64) - 1 for name, a in labels.items()}
        return task_of(names), names, why, labels
    names = tuple(map(str, range(max(highest, 1) + 1)))
    return task_of(names), names, f"labels from {lowest} to {highest}", labels


def _is_one_hot(labels: np.ndarray) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all())


def _number(split: Split, n: int) -> list[str]:
    return [f"{split}/{row}" for row in range(n)]


def _checked(
    labels: np.ndarray, split: Split, file: Path, task: Task, n_classes: int
) -> np.ndarray:
    labels = np.asarray(labels)
    labels = labels.reshape(len(labels), -1)
    width = n_classes if task == MULTI_LABEL else 1
    if labels.shape[1] != width:
        raise DatasetError(
            f"{file}: {split}_labels has {labels.shape[1]} columns, but the task '{task}' "
            f"with {n_classes} classes needs {width}"
        )
    highest = 1 if task == MULTI_LABEL else n_classes - 1
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > highest:
        raise DatasetError(
            f"{file}: {split}_labels has the value {low if low < 0 else high}, "
            f"but must lie between 0 and {highest}"
        )
    return np.ascontiguousarray(labels, dtype=np.uint8 if n_classes <= 256 else np.int64)
