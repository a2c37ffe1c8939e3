"""A folder of images, named by its path; it is read at any size."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medplus.datasets.build import fill_arrays
from medplus.datasets.cache import FOLDER, META, Cache, Cached, Facts, elsewhere, read_file
from medplus.datasets.card import Card
from medplus.datasets.dataset import (
    DatasetRef,
    ImageDataset,
    ImageSplit,
    Names,
    Outline,
    data_digest,
)
from medplus.datasets.description import DEFAULT_SIZE, LARGEST_SIZE
from medplus.datasets.imagefolder import ImageFolder, folder_name, read_content, read_folder
from medplus.errors import UsageError
from medplus.jsonfile import digest_of
from medplus.naming import leads_to
from medplus.progress import Progress
from medplus.reading import Reading
from medplus.vocabulary import SPLITS

log = logging.getLogger(__name__)


def claims(name: str) -> bool:
    """Tell the path of a folder."""
    return leads_to(name, Path.is_dir)


def resolve(name: str) -> DatasetRef:
    """Return what the path of a folder means: its name is what its `dataset.yaml` says, or its own.

    What else is there plays no part.
    """
    return DatasetRef("folder", str(Path(name).absolute()), folder_name(Path(name)), any_size=True)


def path(ref: DatasetRef, size: int | None, data_root: Path) -> Path:
    """Return the path of the folder."""
    return Path(ref.spelling)


def load(
    ref: DatasetRef,
    size: int | None,
    data_root: Path,
    *,
    read: bool,
    group_column: str | None = None,
    progress: Progress,
) -> ImageDataset | None:
    """Load the images at a size, memory-mapped; None if they are to be `read` first, and are not.

    Raises
    ------
    UsageError, DatasetError
        If the folder, its description, its table or an image cannot be used.
    """
    found = read_folder(Path(ref.spelling), group_column)
    if size is None:
        size = found.description.size or DEFAULT_SIZE
    if not 1 <= size <= LARGEST_SIZE:
        raise UsageError(f"--size {size}: folders are read at sizes from 1 to {LARGEST_SIZE} px")
    cache = Cache(found.root, found.root, str(size))
    cached = cache.find(lambda facts: _is_of(found, size, facts))
    if cached is None and read:
        cached = cache.fill(
            lambda facts: _is_of(read_folder(found.root, group_column), size, facts),
            lambda folder: _decode(read_folder(found.root, group_column), size, folder, progress),
        )
    return None if cached is None else _dataset(found, size, cached)


def describe(ref: DatasetRef, size: int | None, data_root: Path) -> Outline:
    """Return what the folder's files, places and table tell, without decoding or writing.

    Raises
    ------
    UsageError, DatasetError
        If they cannot be used.
    """
    found = read_folder(Path(ref.spelling))
    content = read_content(found)
    splits = [sample.split for sample in content.samples]
    return Outline(
        {name: splits.count(name) for name in SPLITS},
        len(content.labels.classes),
        content.labels.values.shape[1],
        size or found.description.size or DEFAULT_SIZE,
    )


def cached_sizes(ref: DatasetRef) -> list[int]:
    """Return the sizes at which the folder has been read, current or not."""
    found = read_folder(Path(ref.spelling))
    names = {
        meta.parent.name
        for root in (found.root / FOLDER, elsewhere(found.root))
        for meta in root.glob(f"[1-9]*/{META}")
    }
    return sorted(int(name) for name in names if name.isdecimal())


def _is_of(folder: ImageFolder, size: int, facts: Facts) -> bool:
    """Tell whether facts are of the folder as it is now."""
    signatures = [folder.signature(None), folder.signature(folder.split_file())]
    # The signature knows nothing of a column that is asked for by a flag.
    column = folder.description.group_column in (None, facts["group_column"])
    reading = facts["reading"] == folder.reading(size).model_dump(mode="json")
    return facts["signature"] in signatures and column and reading


def _decode(found: ImageFolder, size: int, folder: Path, progress: Progress) -> Facts:
    """Decode all images into the folder of a new cache, and write the split down."""
    content = read_content(found)
    n_images = len(content.samples)
    log.info("reading %d images of %s at %d px", n_images, found.root, size)
    reading = found.reading(size)
    with progress(f"{found.name} {size} px · reading", n_images, "img") as tell:
        settled = fill_arrays(
            found.root, content.samples, content.labels.values, reading, folder, tell, content.card
        )
    if content.split_file is not None:
        content.split_file.write()
    return {
        "signature": found.signature(content.split_file),
        "reading": reading.model_dump(mode="json"),
        "settled": settled.model_dump(mode="json"),
        "task": content.labels.task,
        "classes": list(content.labels.classes),
        "group_column": content.group_column,
        "card": content.card.to_dict(),
    }


def _dataset(folder: ImageFolder, size: int, cached: Cached) -> ImageDataset:
    facts, arrays = cached.facts, cached.arrays
    splits = {}
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].copy()
        names = Names(len(images), partial(_read_column, cached.folder, f"{split}_names.json"))
        groups: Sequence[str] = ()
        if facts["card"]["groups"]:
            groups = Names(
                len(images), partial(_read_column, cached.folder, f"{split}_groups.json")
            )
        splits[split] = ImageSplit(images, labels, names, groups)
    return ImageDataset(
        name=folder.name,
        size=size,
        task=facts["task"],
        classes=tuple(facts["classes"]),
        source="custom",
        licence=folder.description.licence,
        citation=folder.description.citation,
        digest=data_digest(
            digest_of({"arrays": facts["digest"], "reading": facts["reading"]}),
            facts["task"],
            facts["classes"],
        ),
        path=str(folder.root),
        splits=splits,
        reading=Reading(**facts["settled"]),
        card=Card(**facts["card"]),
    )


def _read_column(cache: Path, file: str) -> list[str]:
    values: list[str] = json.loads(read_file(cache, file))
    return values
