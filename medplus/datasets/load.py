"""From a name and a size to images: which file, is it what it says, and what does it hold."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import numpy as np

from medplus.datasets import catalog
from medplus.datasets.cache import CachedArrays, open_cached
from medplus.datasets.dataset import ImageDataset, ImageSplit, Source
from medplus.datasets.folder.load import cached_sizes, folder_name, load_folder
from medplus.errors import DatasetError, UsageError
from medplus.progress import Progress, silent
from medplus.vocabulary import MULTI_LABEL, SIZES, SPLITS, Split, Task

log = logging.getLogger(__name__)

_MOST_CLASSES = 1 << 16


def load_dataset(
    name: str,
    size: int | None = None,
    data_root: str | Path = "data",
    *,
    group_column: str | None = None,
    progress: Progress = silent,
) -> ImageDataset:
    """Load a dataset at a size, memory-mapped.

    Parameters
    ----------
    name : str
        A MedMNIST flag such as ``breastmnist``, the path of an npz file in the same layout, or a
        folder of images (see ``docs/data.md``).
    size : int, optional
        Height and width in pixels. A flag's default is 28; a file has the size of its images; a
        folder's default is what its ``dataset.yaml`` says, else 224.
    data_root : str or Path
        The folder that holds the official npz files.
    group_column : str, optional
        Of a folder of images: the column of its table whose groups, such as patients, stay in one
        split, where ``dataset.yaml`` names none. The split that is made remembers it.
    progress : Progress
        Where to report the images of a folder that are read.

    Returns
    -------
    ImageDataset

    Raises
    ------
    UsageError
        If the name or the size is unknown, or a group column is named that cannot be.
    DatasetError
        If the file is missing, damaged, or holds something else than it should.
    """
    check_name(name, group_column)
    if is_folder(name):
        return load_folder(Path(name), size, group_column=group_column, progress=progress)
    if is_path(name):
        return _load_file(Path(name), size)
    info = catalog.info(name)
    size = 28 if size is None else size
    path = find_file(info, size, Path(data_root))
    cached = open_cached(path)
    found = cached.arrays["train_images"].shape[1]
    if found != size:
        raise DatasetError(f"{path} holds images of {found} px, not {size}; is it misnamed?")
    images_per_split = {split: _images(cached, split) for split in SPLITS}
    channels = 3 if images_per_split["train"].ndim == 4 else 1
    if channels != info.channels:
        raise DatasetError(
            f"{path} holds images of {channels} channels, but {name} has {info.channels}"
        )
    source: Source = "phantom" if cached.phantom else "official"
    if source == "official" and cached.md5 != info.md5[size]:
        source = "unofficial"
        log.warning(
            "%s is not the official file (MD5 %s, official %s): it is used, and every result "
            "records it as unofficial",
            path,
            cached.md5,
            info.md5[size],
        )
    return ImageDataset(
        name=name,
        size=size,
        task=info.task,
        classes=info.classes,
        channels=channels,
        source=source,
        licence=info.licence,
        citation="" if source == "phantom" else catalog.CITATION,
        digest=cached.digest,
        path=str(path),
        splits={
            split: ImageSplit(
                images_per_split[split], _labels(cached, split, path, info.task, len(info.classes))
            )
            for split in SPLITS
        },
    )


def check_name(name: str, group_column: str | None = None) -> None:
    """Refuse a name that is neither a flag nor a path, before anything is read.

    Raises
    ------
    UsageError
        Also if a group column is named for what is no folder of images.
    """
    if not is_path(name):
        catalog.info(name)
    if group_column is not None and not is_folder(name):
        raise UsageError(
            f"--group-column {group_column} is for folders of images, whose splits are still to be "
            f"made or checked; {name} is none"
        )


def dataset_path(name: str, size: int | None, data_root: str | Path) -> Path:
    """Return the path of a dataset's file or folder, whether or not it is there."""
    if is_path(name):
        return Path(name)
    return Path(data_root) / catalog.info(name).filename(28 if size is None else size)


def is_path(name: str) -> bool:
    """Tell a path from a MedMNIST flag: it has a separator, an npz ending, or exists.

    A flag stays a flag, also where a folder of its name lies here: that is ``./breastmnist``.
    """
    if not name or name in catalog.FLAGS:
        return False
    if "/" in name or "\\" in name or name.endswith(".npz"):
        return True
    try:
        return Path(name).exists()
    except OSError:  # longer than any file's name
        return False


def is_folder(name: str) -> bool:
    """Tell a folder of images, which can be read at any size, from other datasets."""
    try:
        return is_path(name) and Path(name).is_dir()
    except OSError:
        return False


def dataset_name(name: str) -> str:
    """Return the name under which stores and records know a dataset: of a path, its last part."""
    if is_folder(name):
        return folder_name(Path(name))
    return Path(name).stem if is_path(name) else name


def digests_of(name: str, size: int | None, data_root: str | Path) -> frozenset[str] | None:
    """Return what identifies the data that a name means, or None if any of that name will do.

    A folder without a size means it at every size at which it has been read, each with a digest of
    its own. A path where nothing is any more is known by its name only.
    """
    if not is_path(name):
        return frozenset([load_dataset(name, size, data_root).digest])
    if not Path(name).exists():
        return None
    sizes: list[int | None] = [size]
    if is_folder(name) and size is None:
        sizes = [*cached_sizes(Path(name))]
    return frozenset(load_dataset(name, each).digest for each in sizes)


def find_file(info: catalog.DatasetInfo, size: int, data_root: Path) -> Path:
    """Return the path of a collection's npz file at a size.

    Raises
    ------
    UsageError
        If MedMNIST+ has no such size.
    DatasetError
        If the file is not there; says what is, and where the official file comes from.
    """
    if size not in SIZES:
        raise UsageError(f"{info.flag} has no size {size}; MedMNIST+ has 28, 64, 128 and 224")
    path = data_root / info.filename(size)
    try:
        found, has_root = path.is_file(), data_root.is_dir()
    except OSError as error:
        raise DatasetError(f"{path} cannot be reached: {error.strerror}") from None
    if found:
        return path
    if not has_root:
        raise DatasetError(
            f"the data folder {data_root} does not exist; name the folder that holds "
            f"{path.name} with --data-root, or fetch it: "
            f"medplus download {info.flag} --size {size} --data-root {shlex.quote(str(data_root))}"
        )
    others = [str(s) for s in SIZES if (data_root / info.filename(s)).is_file()]
    have = f" (sizes there: {', '.join(others)})" if others else ""
    raise DatasetError(
        f"{path} does not exist{have}; fetch it: medplus download {info.flag} --size {size} "
        f"--data-root {shlex.quote(str(data_root))} (from {info.url[size]}), or make a synthetic "
        f"one: medplus phantom --dataset {info.flag} --size {size} --out {data_root}"
    )


def _load_file(path: Path, size: int | None) -> ImageDataset:
    cached = open_cached(path)
    found = int(cached.arrays["train_images"].shape[1])
    if size is not None and size != found:
        raise UsageError(f"{path} holds images of {found} px; leave --size out, or say {found}")
    images = {split: _images(cached, split) for split in SPLITS}
    task, n_classes = _infer_task(cached, path)
    return ImageDataset(
        name=path.stem,
        size=found,
        task=task,
        classes=tuple(str(i) for i in range(n_classes)),
        channels=3 if images["train"].ndim == 4 else 1,
        source="phantom" if cached.phantom else "custom",
        licence="",
        digest=cached.digest,
        path=str(path),
        splits={
            split: ImageSplit(images[split], _labels(cached, split, path, task, n_classes))
            for split in SPLITS
        },
    )


def _infer_task(cached: CachedArrays, path: Path) -> tuple[Task, int]:
    labels = cached.arrays["train_labels"]
    if labels.ndim == 2 and labels.shape[1] > 1:
        return MULTI_LABEL, labels.shape[1]
    highest = max(int(cached.arrays[f"{split}_labels"].max()) for split in SPLITS)
    if highest >= _MOST_CLASSES:
        raise DatasetError(
            f"{path}: the labels reach {highest}; class indices must lie between 0 and "
            f"{_MOST_CLASSES - 1}"
        )
    return ("binary-class", 2) if highest <= 1 else ("multi-class", highest + 1)


def _images(cached: CachedArrays, split: Split) -> np.ndarray:
    images = cached.arrays[f"{split}_images"]
    return images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images


def _labels(
    cached: CachedArrays, split: Split, path: Path, task: Task, n_classes: int
) -> np.ndarray:
    labels = np.asarray(cached.arrays[f"{split}_labels"])
    labels = labels.reshape(len(labels), -1)
    width = n_classes if task == MULTI_LABEL else 1
    if labels.shape[1] != width:
        raise DatasetError(
            f"{path}: {split}_labels has {labels.shape[1]} columns, but the task '{task}' "
            f"with {n_classes} classes needs {width}"
        )
    highest = 1 if task == MULTI_LABEL else n_classes - 1
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > highest:
        raise DatasetError(
            f"{path}: {split}_labels has the value {low if low < 0 else high}, "
            f"but must lie between 0 and {highest}"
        )
    return np.ascontiguousarray(labels, dtype=np.uint8 if n_classes <= 256 else np.int64)
