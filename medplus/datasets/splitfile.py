"""`splits.csv`: a split, once made, is written down next to the data and used from then on."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medplus import atomic
from medplus.datasets.card import Card
from medplus.datasets.description import Description
from medplus.datasets.files import Sample
from medplus.datasets.groups import Groups, check_groups
from medplus.datasets.labels import Labels, check_class_sizes
from medplus.datasets.splits import split
from medplus.datasets.wording import count, some
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import SPLITS, Split

log = logging.getLogger(__name__)

SPLITS_FILE = "splits.csv"
_COLUMNS = ("path", "split", "made_by")
_GROUPS = re.compile(r" group_column=(.+) \([^()]*\)$")


@dataclass(frozen=True)
class SplitFile:
    """Where a folder's splits stand, and the text there or, still to be written, for there."""

    path: Path
    text: bytes
    is_new: bool = False

    def write(self) -> None:
        """Write the file, unless it is there already.

        Raises
        ------
        DatasetError
            If it cannot be written.
        """
        if not self.is_new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self.path, self.text)
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be written: {error.strerror}") from None
        log.info("%s: the split is written down there, and used from now on", self.path)


def find_split_file(root: Path, fallback: Path) -> SplitFile | None:
    """Return the splits of a folder, beside its images or, where that is read-only, elsewhere."""
    for place in (root, fallback):
        path = place / SPLITS_FILE
        try:
            return SplitFile(path, path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    return None


def with_written_groups(description: Description, known: SplitFile | None) -> Description:
    """Return the description with the groups of the split that was written down, if it has none.

    A command that names the group column is followed by others that do not.
    """
    if known is None or description.group_column is not None:
        return description
    found = (_GROUPS.search(row.get("made_by") or "") for row in _rows(known))
    columns = {match[1] for match in found if match}
    return description.model_copy(update={"group_column": min(columns)}) if columns else description


def settle(
    root: Path,
    fallback: Path,
    samples: list[Sample],
    labels: Labels,
    description: Description,
    groups: Groups,
    card: Card,
) -> tuple[list[Sample], SplitFile | None]:
    """Return samples that all have a split, and the file that keeps those not given.

    Splits that are missing are made of the images without one, or else of train.

    Raises
    ------
    UsageError
        If the images cannot be split, or a split that is given or written down does not fit.
    """
    present = {sample.split for sample in samples}
    missing = [name for name in SPLITS if name not in present]
    if not missing:
        check_groups(root, samples, groups, description, card)
        return samples, None
    if present != {None} and "train" in missing:
        raise UsageError(f"{root} has {some(sorted(map(str, present)))} but no train images; add a "
                         "folder train, or leave the splits out")  # fmt: skip
    open_names: list[Split] = ["train", *(name for name in missing if name != "train")]
    made_by = _settings(open_names, description, groups)
    known = find_split_file(root, fallback)
    if known is None:
        settled = _made(root, samples, labels, open_names, description, groups)
        place = root if os.access(root, os.W_OK) else fallback
        text = _text(settled, made_by)
        known = SplitFile(place / SPLITS_FILE, text, is_new=True)
    else:
        settled = _reused(known, samples, open_names, made_by, card)
    kept = f", whole by '{groups.column}'" if groups.column else ""
    which = "" if len(missing) == len(SPLITS) else f"{' and '.join(missing)} "
    card.split_from = f"{which}made: stratified, seed {description.seed}{kept}"
    check_groups(root, settled, groups, description, card)
    return settled, known


def _settings(names: list[Split], description: Description, groups: Groups) -> str:
    fractions = " ".join(f"{name}={getattr(description.fractions, name):g}" for name in SPLITS)
    column = groups.column or description.group_column
    group = f" group_column={column}" if column else ""
    return f"seed={description.seed} {fractions}{group} ({', '.join(names)})"


def _made(
    root: Path,
    samples: list[Sample],
    labels: Labels,
    names: list[Split],
    description: Description,
    kept: Groups,
) -> list[Sample]:
    free = [i for i, sample in enumerate(samples) if sample.split in (None, "train")]
    groups = None
    if kept.column is not None:
        groups = [samples[i].group for i in free]
        if len(set(groups)) < len(names):
            raise UsageError(
                f"{root}: {count(len(set(groups)), 'group')} in the column "
                f"'{kept.column}' cannot be split {len(names)} ways (--group-column none takes "
                "the images one by one)"
            )
    part = replace(labels, values=labels.values[free])
    if groups is None:
        check_class_sizes(root, part, len(names))
    if len(free) < len(names):
        raise UsageError(f"{root}: {count(len(free), 'image')} cannot be split {len(names)} ways")
    shares = np.array([getattr(description.fractions, name) for name in names])
    if "val" in names and "test" in names:
        fractions = shares
    else:  # what is given keeps its images; the rest is shared out as if it were all
        fractions = np.array([1 - shares[1], shares[1]])
    parts = split(part.flags, groups, fractions.tolist(), description.seed)
    settled = list(samples)
    for i, number in zip(free, parts, strict=True):
        settled[i] = replace(samples[i], split=names[number])
    return settled


def _text(samples: list[Sample], made_by: str) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((sample.path, sample.split, made_by) for sample in samples)
    return buffer.getvalue().encode()


def _rows(file: SplitFile) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(file.text.decode("utf-8-sig"), newline="")))
        if all("path" in row and "split" in row for row in rows):
            return rows
    except (ValueError, csv.Error):
        pass
    raise UsageError(
        f"{file.path} has no columns path and split; mend it, or delete it to split anew"
    )


def _reused(
    file: SplitFile, samples: list[Sample], names: list[Split], made_by: str, card: Card
) -> list[Sample]:
    rows = _rows(file)
    written = {row["path"]: row["split"] for row in rows}
    settings = {row.get("made_by") or made_by for row in rows}
    if settings - {made_by}:
        raise UsageError(
            f"{file.path} was made with {min(settings - {made_by})}, but {made_by} is asked for "
            "now; delete it to split anew, or ask as before (dataset.yaml; --group-column, where "
            "'none' stands for no groups)"
        )
    new = [sample.path for sample in samples if sample.path not in written]
    if new:
        raise UsageError(
            f"{file.path} does not name {count(len(new), 'image')} {some(new)}; add them there, or "
            "delete it to split anew"
        )
    gone = sorted(set(written) - {sample.path for sample in samples})
    if gone:
        card.warn(f"{file.path.name} names what is gone: {count(len(gone), 'image')} {some(gone)}")
    settled = []
    for sample in samples:
        name = written[sample.path]
        may = names if sample.split in (None, "train") else [sample.split]
        fitting = [split for split in may if split == name]
        if not fitting:
            raise UsageError(
                f"{file.path}: {some([sample.path])} is '{name}' there, but must be "
                f"{' or '.join(may)}; mend it, or delete it to split anew"
            )
        settled.append(replace(sample, split=fitting[0]))
    empty = [name for name in SPLITS if name not in {sample.split for sample in settled}]
    if empty:
        raise UsageError(f"{file.path} leaves {' and '.join(empty)} without an image; mend it, or "
                         "delete it to split anew")  # fmt: skip
    return settled
