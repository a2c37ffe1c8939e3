"""What must stay together, such as the images of a patient: what says it, and whether it holds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medplus.datasets.card import Card
from medplus.datasets.columns import Table
from medplus.datasets.description import DESCRIPTION_FILE, Description
from medplus.datasets.files import Sample, is_dicom
from medplus.errors import UsageError
from medplus.naming import counted, several, some
from medplus.spec import NO_GROUPS, PATTERN
from medplus.vocabulary import Split

PATIENT_ID = "PatientID"
"""The name of the groups that DICOM headers tell."""
_FOLDER = "([^/]+)/[^/]*$"
_BEGINNING = r"([^/]+?)([_ -][^/_ .-]*)?(\.[^/.]*)?$"
_BEFORE_LAST = "([^/]+)[_ -][^/]*$"
_MOST_OF_A_PATIENT = 50
_PATIENT = re.compile(
    r"(id[ _-]?)?(patient(en)?|subject|participant|person|proband(en)?|case|fall|lesion|mrn|pid"
    r"|(study|series)[ _-]?instance[ _-]?uid|accession)s?"
    r"([ _-]?(id|no|nr|num|number|nummer|code|key|name))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Groups:
    """The group of every image.

    Attributes
    ----------
    column : str or None
        What says it: a column of the table, ``path~`` and a regular expression, or ``PatientID``
        of DICOM headers; None where nothing does.
    values : sequence of str or None
    guessed : bool
        Whether nobody asked for it.
    without : sequence of str
        Paths of the images without a value, each of which is a group of its own.
    """

    column: str | None
    values: Sequence[str | None]
    guessed: bool = False
    without: Sequence[str] = ()


def with_group_column(description: Description, root: Path, asked: str | None) -> Description:
    """Return the description of a folder with the group column that a command asks for.

    Raises
    ------
    UsageError
        If `dataset.yaml` names another: commands without the flag would disagree on the split.
    """
    said = description.group_column
    if asked is None or asked == said:
        return description
    if said is not None:
        raise UsageError(
            f"--group-column {asked}: {root / DESCRIPTION_FILE} says group_column: "
            f"{said}; leave the flag out, or change it there"
        )
    return description.model_copy(update={"group_column": asked})


def find_groups(
    root: Path, table: Table | None, paths: Sequence[str], description: Description
) -> Groups:
    """Return the groups that are asked for, or else those that a column looks like patients.

    Raises
    ------
    UsageError
        If what is asked for is not there, or a pattern leaves an image without a group.
    """
    asked = description.group_column
    nothing = Groups(None, [None] * len(paths))
    columns = {} if table is None else table.columns
    if asked == NO_GROUPS:
        return nothing
    if asked is not None and asked.startswith(PATTERN):
        return Groups(asked, list(_matches(root, paths, asked.removeprefix(PATTERN))))
    if table is not None and asked is not None and (asked in columns or asked != PATIENT_ID):
        values = table.columns[asked] if asked in columns else table.full(asked)
        return _filled(asked, values, paths, guessed=False)
    if asked not in (None, PATIENT_ID):
        raise UsageError(
            f"{root} has no table whose group_column could be meant; put a labels.csv there, "
            f"or name one as 'table' in {DESCRIPTION_FILE}"
        )
    found = {name: len(set(filter(None, values))) for name, values in columns.items()
             if _PATIENT.fullmatch(name)}  # fmt: skip
    repeating = [name for name, n in found.items() if 1 < n < sum(map(bool, columns[name]))]
    if repeating:
        name = min(repeating, key=found.__getitem__)  # the fewest: patients before their lesions
        return _filled(name, columns[name], paths, guessed=True)
    # Names of embeddings that were made elsewhere are no files.
    if all(map(is_dicom, paths)) and (root / paths[0]).is_file():
        from medplus.datasets import dicom

        patients = [dicom.patient(root / path) or "" for path in paths]
        n_groups = len(set(filter(None, patients))) + patients.count("")
        if asked == PATIENT_ID or 1 < n_groups < len(paths):
            return _filled(PATIENT_ID, patients, paths, guessed=asked is None)
    return nothing


def resembling(samples: Sequence[Sample], n_classes: int) -> list[str]:
    """Return a warning of images in several splits whose places look like those of one patient.

    Images resemble each other that lie in one folder of many, or whose names have the same
    beginning, with a number in it: ``P7_1.png`` and ``P7_2.png``, ``7.png`` and ``7_flip.png``.
    """
    paths = [PurePosixPath(sample.path) for sample in samples]
    every = all(re.search(_BEFORE_LAST, path.name) for path in paths)
    by_name = _BEFORE_LAST if every else _BEGINNING
    for pattern, told, keys in (
        (_FOLDER, "lie in folders of one name", [path.parent.name for path in paths]),
        (by_name, "have names that begin alike", _beginnings(paths)),
    ):
        where: dict[str, list[Sample]] = defaultdict(list)
        for key, sample in zip(keys, samples, strict=True):
            where[key].append(sample)
        alike = [images for key, images in where.items() if key and len(images) > 1]
        torn = [images for images in alike if len({image.split for image in images}) > 1]
        are_many = len(where) >= max(2 * n_classes, len(samples) / _MOST_OF_A_PATIENT)
        if torn and are_many and 2 * sum(map(len, alike)) >= len(samples):
            first, *others = torn[0]
            other = next(image for image in others if image.split != first.split)
            return [
                f"{counted(sum(map(len, torn)), 'image')} of several splits {told} "
                f"{some([first.path, other.path])}; if those are of one patient, scores will be "
                f"too good: say --group-pattern '{pattern}', or --group-column none"
            ]
    return []


def _beginnings(paths: Sequence[PurePosixPath]) -> list[str]:
    """Return what stands before the last part of each file's name; empty where it has no number.

    Names without such a part, and what is added to them (``7_flip.png``), have their folder's, too.
    """
    stems = {str(path.with_suffix("")) for path in paths}
    found = []
    for path in paths:
        match = re.search(_BEGINNING, path.name)
        name = match[1] if match and re.search(r"\d", match[1]) else ""
        whole = str(path.with_name(name)) if name else ""
        found.append(whole if whole in stems else name)
    return found


def _filled(name: str, values: Sequence[str], paths: Sequence[str], guessed: bool) -> Groups:
    """Return groups by some values; an image that has none is a group of its own."""
    filled = [value or path for value, path in zip(values, paths, strict=True)]
    without = [path for value, path in zip(values, paths, strict=True) if not value]
    return Groups(name, filled, guessed, without)


def _matches(root: Path, paths: Sequence[str], pattern: str) -> list[str]:
    """Return what a pattern finds in each path: its first group, or all that it matches."""
    try:
        found = [re.search(pattern, path) for path in paths]
    except re.error as error:
        raise UsageError(f"--group-pattern {pattern}: no regular expression ({error})") from None
    missed = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missed:
        raise UsageError(
            f"--group-pattern {pattern} finds nothing in {several(missed, 'path')} of {root}; it "
            "has to match every one"
        )
    return [match[1 if match.re.groups else 0] or "" for match in found if match]


def check_groups(
    root: Path, samples: list[Sample], groups: Groups, description: Description, card: Card
) -> None:
    """Refuse groups that stand in several splits, or warn of them where that is allowed.

    Raises
    ------
    UsageError
    """
    if groups.column is None:
        return
    where: dict[str | None, set[Split | None]] = defaultdict(set)
    for sample in samples:
        where[sample.group].add(sample.split)
    card.groups = f"{counted(len(where), 'group')} by '{groups.column}'"
    if groups.guessed:
        card.groups += " (it looks like patients; --group-column none takes images one by one)"
    if groups.without:
        card.warn(
            f"{several(groups.without, 'image')} without a '{groups.column}' are groups of their "
            "own; if they belong to others, scores will be too good"
        )
    torn = sorted(str(group) for group, splits in where.items() if len(splits) > 1)
    if not torn:
        return
    told = f"{counted(len(torn), 'group')} of {len(where):,} in the column '{groups.column}' "
    told += some(torn)
    if not description.allow_shared_groups:
        raise UsageError(
            f"{root}: {told} stand in several splits, so test scores would be too good; split by "
            "group, or say allow_shared_groups: true in dataset.yaml"
        )
    card.warn(f"{told} stand in several splits; test scores may be too good")
