"""Where datasets come from (stub until the sources are merged)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medplus.datasets import load as loading
from medplus.datasets.catalog import FLAGS
from medplus.datasets.dataset import ImageDataset
from medplus.datasets.load import dataset_name as name_of
from medplus.datasets.load import load_dataset
from medplus.errors import MedplusError
from medplus.progress import Progress, silent

__all__ = ["load_dataset", "name_of"]


@dataclass(frozen=True)
class DatasetRef:
    """What a name was resolved to."""

    source: str
    spelling: str
    name: str
    any_size: bool


def check(name: str, group_column: str | None = None) -> None:
    """Refuse a name."""
    loading.check_name(name, group_column)


def resolve(name: str) -> DatasetRef:
    """Resolve a name."""
    loading.check_name(name)
    if not loading.is_path(name):
        return DatasetRef("medmnist", name, name, True)
    folder = loading.is_folder(name)
    kind = "folder" if folder else "npz"
    return DatasetRef(kind, str(Path(name).absolute()), name_of(name), folder)


def load(
    ref: DatasetRef, size: int | None = None, data_root: str | Path = "data", *,
    group_column: str | None = None, progress: Progress = silent,
) -> ImageDataset:  # fmt: skip
    """Load it."""
    return load_dataset(ref.spelling, size, data_root, group_column=group_column, progress=progress)


def path(ref: DatasetRef, size: int | None, data_root: str | Path) -> Path:
    """Return where it lies."""
    return loading.dataset_path(ref.spelling, size, data_root)


def digests(ref: DatasetRef, size: int | None, data_root: str | Path) -> frozenset[str] | None:
    """Return what identifies it."""
    return loading.digests_of(ref.spelling, size, data_root)


def digest(ref: DatasetRef, size: int | None, data_root: str | Path) -> str | None:
    """Return what identifies it at a size, None where it is not at hand."""
    if not path(ref, size, data_root).exists():
        return None
    try:
        return load(ref, size, data_root).digest
    except MedplusError:
        return None


def expand(names: Iterable[str]) -> list[str]:
    """Expand `all`."""
    return list(dict.fromkeys(n for name in names for n in (FLAGS if name == "all" else (name,))))


def portable(name: str) -> str:
    """Return the name spelled so that it means the same from any folder; unknown ones stay."""
    try:
        return resolve(name).spelling
    except MedplusError:
        return name
