"""Images that a person has decided to leave out: the verdicts of a ``suspects.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medplus.datasets.columns import csv_rows
from medplus.datasets.dataset import ImageDataset
from medplus.errors import UsageError, explained
from medplus.jsonfile import digest_of
from medplus.naming import counted
from medplus.vocabulary import SPLITS, Split

_EXCLUDE = ("exclude", "drop")
_KEEP = ("", "keep")
_NEEDED = ("name", "split", "index", "kind", "verdict")


@dataclass(frozen=True)
class Exclusion:
    """What is left out.

    Attributes
    ----------
    path : str
        The table that says so.
    rows : mapping of split to dict of int to str
        Positions in the split, and the names that the table has for them.
    """

    path: str
    rows: Mapping[Split, Mapping[int, str]]

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def digest(self) -> str:
        """SHA-256 of the positions, in hex; names and the table's place take no part."""
        return digest_of({split: sorted(self.rows[split]) for split in SPLITS})

    @property
    def sentence(self) -> str:
        """What is left out, in words."""
        parts = [f"{len(self.rows[s])} of {s}" for s in SPLITS if self.rows[s]]
        images = f"{counted(len(self), 'image')} ({', '.join(parts)})"
        return f"{images} left out by the verdicts of {Path(self.path).name}"

    def kept(self, split: Split, index: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Tell which samples of a split stay, bool, shape (n,).

        Parameters
        ----------
        index : ndarray of int64, shape (n,)
            Their positions in the split.
        names : sequence of str
            Their names; empty ones are not compared.

        Raises
        ------
        UsageError
            If the table is of other images.
        """
        place = {int(position): row for row, position in enumerate(index)}
        keep = np.ones(len(index), bool)
        for position, name in self.rows[split].items():
            row = place.get(position)
            if row is None or (names[row] and name and names[row] != name):
                there = "there is none" if row is None else f"that is {names[row]}"
                raise UsageError(
                    f"{self.path}: {name or 'a row'} is not number {position} of {split} here "
                    f"({there}); the table is of other images, make it anew with medplus audit"
                )
            keep[row] = False
        return keep


def leave_out(images: ImageDataset, exclusion: Exclusion) -> ImageDataset:
    """Return a dataset without some images: other data, of a digest of their own.

    Raises
    ------
    UsageError
        If the table is of other images, or leaves nothing of a split.
    """
    splits = {}
    for split, part in images.splits.items():
        keep = exclusion.kept(split, part.positions, part.names)
        if not keep.any():
            raise UsageError(f"{exclusion.path} leaves nothing of {split}")
        splits[split] = part if keep.all() else part.take(np.flatnonzero(keep))
    labels = {split: part.labels for split, part in splits.items()}
    card = images.card.recounted(images.classes, labels, exclusion.sentence)
    digest = digest_of({"data": images.digest, "exclude": exclusion.digest})
    return replace(images, splits=splits, card=card, digest=digest)


def read_exclusion(path: str | Path) -> Exclusion:
    """Read which rows of a table are to be left out: those whose verdict is ``exclude``.

    ``drop`` means the same; an empty verdict and ``keep`` leave the image in.

    Raises
    ------
    UsageError
        If the table cannot be read, says something else, or leaves nothing out.
    """
    path = Path(path)
    rows: dict[Split, dict[int, str]] = {split: {} for split in SPLITS}
    for line, row in enumerate(read_rows(path), start=2):
        verdict = row["verdict"].strip().lower()
        if verdict in _KEEP:
            continue
        if verdict not in _EXCLUDE:
            raise UsageError(
                f"{path}, line {line}: the verdict '{row['verdict']}' is neither exclude nor keep"
            )
        split = next((name for name in SPLITS if name == row["split"]), None)
        if split is None or not row["index"].isdecimal():
            raise UsageError(
                f"{path}, line {line}: '{row['split']}' and '{row['index']}' are no split and index"
            )
        rows[split][int(row["index"])] = row["name"]
    if not any(rows.values()):
        raise UsageError(
            f"{path} leaves nothing out: write exclude into the column verdict of the images that "
            "you have decided on"
        )
    return Exclusion(str(path), rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of suspects.

    Raises
    ------
    UsageError
        If it is missing, is no table, or lacks a column.
    """
    with explained(UsageError, f"{path} cannot be read"):
        text = path.read_bytes()
    return csv_rows(path, text, _NEEDED, "medplus audit writes such a table as suspects.csv")
