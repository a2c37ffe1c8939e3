"""Where datasets come from: each module is one kind, and the only one that reads its names.

A name is resolved once; from then on its `DatasetRef` travels, and nobody looks at the string.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from medplus.datasets import catalog
from medplus.datasets.dataset import DatasetRef, ImageDataset, Outline
from medplus.datasets.exclusion import leave_out, read_exclusion
from medplus.datasets.sources import folder, medmnist, npz
from medplus.errors import MedplusError, UsageError
from medplus.progress import Progress, silent
from medplus.spec import ExtractSpec

ALL = "all"
_KINDS: dict[str, ModuleType] = {"medmnist": medmnist, "folder": folder, "npz": npz}


def resolve(name: str | Path, group_column: str | None = None) -> DatasetRef:
    """Return what a dataset's name means; nothing of its images is read.

    Parameters
    ----------
    name : str
        A MedMNIST flag, the path of an npz file, or of a folder of images.
    group_column : str, optional
        The group column that is asked for with it.

    Raises
    ------
    UsageError
        If the name is neither a flag nor a path; names the nearest. Also if a group column is
        asked for of what is no folder of images.
    """
    ref = find(name)
    if ref is None:
        raise catalog.unknown(str(name))
    if group_column is not None and ref.source != "folder":
        raise UsageError(
            f"--group-column {group_column} is for folders of images, whose splits are still to be "
            f"made or checked; {name} is none"
        )
    return ref


def find(name: str | Path) -> DatasetRef | None:
    """Return what a dataset's name means, or None for one that is neither a flag nor a path."""
    name = str(name)
    if name.startswith("~/"):
        name = str(Path(name).expanduser())
    for kind in _KINDS.values():
        if kind.claims(name):
            ref: DatasetRef = kind.resolve(name)
            return ref
    return None


def load(
    ref: DatasetRef,
    size: int | None = None,
    data_root: str | Path = "data",
    *,
    group_column: str | None = None,
    progress: Progress = silent,
    say: bool = True,
) -> ImageDataset:
    """Load a dataset at a size, memory-mapped, and `say` its card; as `load_dataset`."""
    images: ImageDataset = _KINDS[ref.source].load(
        ref, size, Path(data_root), read=True, group_column=group_column, progress=progress
    )
    if say:
        images.card.say(f"{images.name} at {images.size} px", images.path)
    return images


def load_dataset(
    name: str | Path,
    size: int | None = None,
    data_root: str | Path = "data",
    *,
    group_column: str | None = None,
    exclude: str | Path | None = None,
    progress: Progress = silent,
) -> ImageDataset:
    """Load a dataset at a size, memory-mapped.

    Parameters
    ----------
    name : str or Path
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
    exclude : str or Path, optional
        A ``suspects.csv``: images whose verdict says exclude are left out; the others are copied
        into memory.
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

    Examples
    --------
    >>> import medplus
    >>> data = medplus.load_dataset("breastmnist", 28)
    >>> data.splits["test"].images.dtype, data.splits["test"].images.shape[1:]
    (dtype('uint8'), (28, 28))
    """
    left_out = None if exclude is None else str(exclude)
    spec = ExtractSpec(str(name), size, group_column=group_column, exclude=left_out)
    return load_spec(spec, data_root, progress=progress)


def load_spec(
    spec: ExtractSpec,
    data_root: str | Path = "data",
    size: int | None = None,
    progress: Progress = silent,
    say: bool = True,
) -> ImageDataset:
    """Load the dataset that a spec names, by default at its size, and `say` its card."""
    exclusion = None if spec.exclude is None else read_exclusion(spec.exclude)
    ref, group = resolve(spec.dataset, spec.group_column), spec.group_column
    images = load(ref, size or spec.size, data_root, group_column=group, progress=progress, say=say)
    return images if exclusion is None else leave_out(images, exclusion)


def path(ref: DatasetRef, size: int | None = None, data_root: str | Path = "data") -> Path:
    """Return the path of a dataset's file or folder, whether or not it is there."""
    found: Path = _KINDS[ref.source].path(ref, size, Path(data_root))
    return found


def describe(ref: DatasetRef, size: int | None = None, data_root: str | Path = "data") -> Outline:
    """Return what is known of a dataset before its images are read; nothing is written.

    Raises
    ------
    MedplusError
        If the dataset cannot be used.
    """
    outline: Outline = _KINDS[ref.source].describe(ref, size, Path(data_root))
    return outline


def known_digest(
    ref: DatasetRef, size: int | None = None, data_root: str | Path = "data"
) -> str | None:
    """Return the digest of a dataset if its cache knows it; nothing is read or written."""
    try:
        known = _KINDS[ref.source].load(ref, size, Path(data_root), read=False, progress=silent)
    except MedplusError:
        return None
    return None if known is None else known.digest


def digests(
    ref: DatasetRef, size: int | None = None, data_root: str | Path = "data"
) -> frozenset[str] | None:
    """Return what identifies the data that are meant, or None if any of that name will do.

    A folder without a size means it at every size at which it has been read, each with a digest of
    its own. A path where nothing is any more is known by its name only.

    Raises
    ------
    DatasetError
        If the file of a flag is missing, or the data are damaged.
    """
    if ref.source != "medmnist" and not Path(ref.spelling).exists():
        return None
    sizes: list[int | None] = [size]
    if ref.source == "folder" and size is None:
        sizes = [*folder.cached_sizes(ref)]
    return frozenset(load(ref, each, data_root, say=False).digest for each in sizes)


def expand(names: Iterable[str]) -> list[str]:
    """Replace ``all`` by the paper's twelve, in the paper's order, and drop repetitions."""
    found = [each for name in names for each in (catalog.FLAGS if name == ALL else (name,))]
    return list(dict.fromkeys(found))


def name_of(name: str) -> str:
    """Return the name under which stores and records know a dataset, also one that is gone."""
    ref = find(name)
    return name if ref is None else ref.name
