"""A folder of images as it is now: what its owner says of it, its files, its labels and splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from medplus.datasets import splitfile
from medplus.datasets.card import Card
from medplus.datasets.columns import read_columns
from medplus.datasets.description import DESCRIPTION_FILE, Description, read_description
from medplus.datasets.files import Found, Sample, find_files, from_places
from medplus.datasets.groups import find_groups, resembling, with_group_column
from medplus.datasets.labels import Labels, encode
from medplus.datasets.splitfile import SplitFile
from medplus.datasets.table import match_table, table_path, unread_tables
from medplus.errors import DatasetError, UsageError, first_line
from medplus.reading import Reading
from medplus.vocabulary import SPLITS

_RUN_FILES = ("record.json", "network.safetensors", "zarr.json")


@dataclass(frozen=True)
class ImageFolder:
    """A folder before anything in it is decoded.

    Attributes
    ----------
    root : Path
        Without links.
    description : Description
        With the group column that a command asked for.
    found : Found
        What lies there.
    table : Path or None
    """

    root: Path
    description: Description
    found: Found
    table: Path | None

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.description.name or self.root.name

    def reading(self, size: int) -> Reading:
        """Return how files are to become pixels."""
        said = self.description
        return Reading(
            size=size, policy=said.policy, channels=said.channels, value_range=said.value_range
        )

    def split_file(self) -> SplitFile | None:
        """Return the split that was written down, if one was."""
        return splitfile.find_split_file(self.root)

    def signature(self, split_file: SplitFile | None) -> str:
        """Return what changes when the folder changes: names, sizes, times; texts in full."""
        digest = hashlib.sha256()
        for file in self.found.files:
            digest.update(f"{file.path!r}:{file.stamp}\n".encode())
        digest.update(repr((self.found.folders, self.found.warnings)).encode())
        for path in (self.root / DESCRIPTION_FILE, self.table):
            digest.update(b"|" + (path.read_bytes() if path and path.is_file() else b"-"))
        digest.update(b"|" + (split_file.text if split_file else b"-"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Content:
    """What a folder's samples are, before any image is decoded.

    Attributes
    ----------
    samples : list of Sample
        Each with its split.
    labels : Labels
        One row per sample.
    split_file : SplitFile or None
        Where the splits stand, or are to stand, that neither places nor a table give.
    group_column : str or None
        The one that was asked for, now or when the splits were made.
    card : Card
        What is known before the images are read.
    """

    samples: list[Sample]
    labels: Labels
    split_file: SplitFile | None
    group_column: str | None
    card: Card


def read_folder(path: Path, group_column: str | None = None) -> ImageFolder:
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
    said = read_description(root)
    description = with_group_column(said, root, group_column)
    table = table_path(root, description)
    found = find_files(root)
    if table is None:
        found = replace(found, warnings=[*found.warnings, *unread_tables(root)])
    return ImageFolder(root, description, found, table)


def folder_name(path: Path) -> str:
    """Return the name of a folder as a dataset, whatever its images are."""
    root = path.resolve()
    try:
        return read_description(root).name or root.name
    except UsageError:
        return root.name  # loading the folder will say what is wrong


def read_content(folder: ImageFolder) -> Content:
    """Return a folder's samples with their labels and splits; nothing is written.

    Raises
    ------
    UsageError, DatasetError
    """
    root, said, found = folder.root, folder.description, folder.found
    card = Card(split_from="given by folders", warnings=list(found.warnings))
    names: tuple[str, ...] = ()
    said = splitfile.with_written_groups(said, folder.split_file())
    if folder.table is not None:
        table, there = read_columns(folder.table), {file.path for file in found.files}
        samples, names, groups = match_table(root, table, said, there, card)
    elif said.label_columns:
        raise UsageError(
            f"{root} has no table whose label_columns could be meant; put a labels.csv there, or "
            f"name one as 'table' in {DESCRIPTION_FILE}"
        )
    else:
        samples = from_places(root, found, card)
        groups = find_groups(root, None, [sample.path for sample in samples], said)
        samples = [replace(s, group=g) for s, g in zip(samples, groups.values, strict=True)]
    labels = encode(root, samples, names, said)
    card.task = labels.task
    settled, split_file = splitfile.Splitting(root, samples, labels, said, groups, card).settle()
    if groups.column is None and said.group_column is None:
        card.warnings += resembling(settled, len(labels.classes))
    splits = [sample.split for sample in settled]
    of_split = {
        split: labels.values[[i for i, name in enumerate(splits) if name == split]]
        for split in SPLITS
    }
    card.describe(labels.classes, of_split)
    return Content(settled, labels, split_file, said.group_column, card)
