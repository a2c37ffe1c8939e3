"""A collection of MedMNIST+, named by its flag: a file in the data root for every size."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.datasets import catalog
from medplus.datasets.dataset import DatasetRef, ImageDataset, Outline, Provenance
from medplus.datasets.sources import npz
from medplus.errors import DatasetError, explained
from medplus.vocabulary import SIZES

_DEFAULT_SIZE = 28


def claims(name: str) -> bool:
    """Tell a flag; it stays one where a folder of its name lies: that is ``./breastmnist``."""
    return name in catalog.FLAGS


def resolve(name: str) -> DatasetRef:
    """Return what a flag means."""
    return DatasetRef("medmnist", name, name, any_size=True)


def path(ref: DatasetRef, size: int | None, data_root: Path) -> Path:
    """Return the path of the file of a size, whether or not it is there."""
    return data_root / catalog.info(ref.spelling).filename(size or _DEFAULT_SIZE)


def load(
    ref: DatasetRef, size: int | None, data_root: Path, *, read: bool, **options: Any
) -> ImageDataset | None:
    """Load a collection at a size, memory-mapped; None if it is to be `read` first, and is not.

    Raises
    ------
    UsageError
        If MedMNIST+ has no such size.
    DatasetError
        If the file is missing, damaged, or holds something else than it should.
    """
    info = catalog.info(ref.spelling)
    size = _DEFAULT_SIZE if size is None else size
    file = find_file(info, size, data_root)
    cached = npz.open_cached(file) if read else npz.find_cached(file)
    if cached is None:
        return None
    found = cached.arrays["train_images"].shape[1]
    if found != size:
        raise DatasetError(f"{file} holds images of {found} px, not {size}; is it misnamed?")
    images = npz.dataset_of(
        cached, file, info.flag, info.task, info.classes, "MedMNIST", cached.arrays
    )
    if images.channels != info.channels:
        raise DatasetError(
            f"{file} holds images of {images.channels} channels, but {info.flag} has "
            f"{info.channels}"
        )
    if images.source == "phantom":
        return replace(images, licence=info.licence)
    source: Provenance = "official"
    if cached.facts["md5"] != info.md5[size]:
        source = "unofficial"
        images.card.warn(
            f"it is not the official file (MD5 {cached.facts['md5']}, official {info.md5[size]}): "
            "it is used, and every result records it as unofficial"
        )
    return replace(images, source=source, licence=info.licence, citation=catalog.CITATION)


def describe(ref: DatasetRef, size: int | None, data_root: Path) -> Outline:
    """Return what MedMNIST states of a collection, with the counts of its file if that is there."""
    info = catalog.info(ref.spelling)
    try:
        found = npz.describe(npz.resolve(str(path(ref, size, data_root))), size, data_root)
    except (DatasetError, OSError):
        found = Outline(info.n_samples, 0, 0, size or _DEFAULT_SIZE)
    return replace(found, n_classes=len(info.classes), n_labels=info.n_labels)


def find_file(info: catalog.DatasetInfo, size: int, data_root: Path) -> Path:
    """Return the path of a collection's npz file at a size.

    Raises
    ------
    UsageError
        If MedMNIST+ has no such size.
    DatasetError
        If the file is not there; says what is, and where the official file comes from.
    """
    path = data_root / info.filename(size)
    with explained(DatasetError, f"{path} cannot be reached"):
        if path.is_file():
            return path
    root = shlex.quote(str(data_root))
    others = [str(s) for s in SIZES if (data_root / info.filename(s)).is_file()]
    have = f" (sizes there: {', '.join(others)})" if others else ""
    raise DatasetError(
        f"{path} does not exist{have}; name its folder with --data-root, fetch it: medplus "
        f"download {info.flag} --size {size} --data-root {root} (from {info.url[size]}), or make a "
        f"synthetic one: medplus phantom --dataset {info.flag} --size {size} --out {root}"
    )
