"""`splits.csv`: a split, once made, is written down next to the data and used from then on."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from medplus import atomic
from medplus.datasets.cache import elsewhere
from medplus.datasets.card import Card
from medplus.datasets.columns import csv_rows, csv_text
from medplus.datasets.description import Description
from medplus.datasets.files import Sample
from medplus.datasets.groups import Groups, check_groups
from medplus.datasets.labels import Labels, check_class_sizes
from medplus.datasets.splits import split
from medplus.errors import DatasetError, UsageError, explained
from medplus.naming import counted, several, some
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
        with explained(DatasetError, f"{self.path} cannot be written"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self.path, self.text)
        log.info("%s: the split is written down there, and used from now on", self.path)


def find_split_file(root: Path) -> SplitFile | None:
    """Return the splits of a folder, beside its images or, where that is read-only, elsewhere."""
    for place in (root, elsewhere(root)):
        path = place / SPLITS_FILE
        with explained(DatasetError, f"{path} cannot be read"), suppress(FileNotFoundError):
            return SplitFile(path, path.read_bytes())
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


@dataclass(frozen=True)
class Splitting:
    """What splits of a folder are made of.

    Attributes
    ----------
    root : Path
        The folder, where `splits.csv` lies, or is to lie if it can be written.
    samples : list of Sample
        Those whose split is None, or else train, are dealt out.
    labels : Labels
    description : Description
        What its owner says: seed, fractions and groups.
    groups : Groups
    card : Card
        Is told who made the split.
    """

    root: Path
    samples: list[Sample]
    labels: Labels
    description: Description
    groups: Groups
    card: Card

    def settle(self) -> tuple[list[Sample], SplitFile | None]:
        """Return samples that all have a split, and the file that keeps those not given.

        Raises
        ------
        UsageError
            If the images cannot be split, or a split that is given or written down does not fit.
        """
        present = {sample.split for sample in self.samples}
        missing = [name for name in SPLITS if name not in present]
        settled, known = self.samples, None
        if missing and present != {None} and "train" in missing:
            told = f"{self.root} has {some(sorted(map(str, present)))} but no train images"
            raise UsageError(f"{told}; add a folder train, or leave the splits out")
        if missing:
            names: list[Split] = ["train", *(name for name in missing if name != "train")]
            known = find_split_file(self.root)
            if known is None:
                settled = self._made(names)
                place = self.root if os.access(self.root, os.W_OK) else elsewhere(self.root)
                text = _text(settled, self._settings(names))
                known = SplitFile(place / SPLITS_FILE, text, is_new=True)
            else:
                settled = self._reused(known, names)
            kept = f", whole by '{self.groups.column}'" if self.groups.column else ""
            which = "" if len(missing) == len(SPLITS) else f"{' and '.join(missing)} "
            seed = self.description.seed
            self.card.split_from = f"{which}made: stratified, seed {seed}{kept}"
        check_groups(self.root, settled, self.groups, self.description, self.card)
        return settled, known

    def _settings(self, names: list[Split]) -> str:
        said = self.description
        fractions = " ".join(f"{name}={getattr(said.fractions, name):g}" for name in SPLITS)
        column = self.groups.column or said.group_column
        group = f" group_column={column}" if column else ""
        return f"seed={said.seed} {fractions}{group} ({', '.join(names)})"

    def _made(self, names: list[Split]) -> list[Sample]:
        free = [i for i, sample in enumerate(self.samples) if sample.split in (None, "train")]
        part = replace(self.labels, values=self.labels.values[free])
        ways = f"cannot be split {len(names)} ways"
        groups = None
        if self.groups.column is not None:
            groups = [self.samples[i].group for i in free]
            if len(set(groups)) < len(names):
                raise UsageError(
                    f"{self.root}: {counted(len(set(groups)), 'group')} in the column "
                    f"'{self.groups.column}' {ways} (--group-column none takes the images one by "
                    "one)"
                )
        else:
            check_class_sizes(self.root, part, len(names))
        if len(free) < len(names):
            raise UsageError(f"{self.root}: {counted(len(free), 'image')} {ways}")
        shares = [getattr(self.description.fractions, name) for name in names]
        if len(names) < len(SPLITS):  # what is given keeps its images; the rest is shared out
            shares = [1 - shares[1], shares[1]]
        parts = split(part.flags, groups, shares, self.description.seed)
        settled = list(self.samples)
        for i, number in zip(free, parts, strict=True):
            settled[i] = replace(settled[i], split=names[number])
        return settled

    def _reused(self, file: SplitFile, names: list[Split]) -> list[Sample]:
        rows = _rows(file)
        written = {row["path"]: row["split"] for row in rows}
        asked = self._settings(names)
        other = {row.get("made_by") or asked for row in rows} - {asked}
        if other:
            raise UsageError(
                f"{file.path} was made with {min(other)}, but {asked} is asked for now; delete it "
                "to split anew, or ask as before (dataset.yaml; --group-column, where 'none' "
                "stands for no groups)"
            )
        new = [sample.path for sample in self.samples if sample.path not in written]
        if new:
            raise UsageError(
                f"{file.path} does not name {several(new, 'image')}; add them there, or delete it "
                "to split anew"
            )
        gone = sorted(set(written) - {sample.path for sample in self.samples})
        if gone:
            self.card.warn(f"{file.path.name} names what is gone: {several(gone, 'image')}")
        mend = "mend it, or delete it to split anew"
        settled = []
        for sample in self.samples:
            may = names if sample.split in (None, "train") else [sample.split]
            fitting = [name for name in may if name == written[sample.path]]
            if not fitting:
                told = f"{some([sample.path])} is '{written[sample.path]}' there, but must be"
                raise UsageError(f"{file.path}: {told} {' or '.join(may)}; {mend}")
            settled.append(replace(sample, split=fitting[0]))
        empty = [name for name in SPLITS if name not in {sample.split for sample in settled}]
        if empty:
            raise UsageError(f"{file.path} leaves {' and '.join(empty)} without an image; {mend}")
        return settled


def _text(samples: list[Sample], made_by: str) -> bytes:
    rows = ((sample.path, sample.split, made_by) for sample in samples)
    return csv_text([_COLUMNS, *rows]).encode()


def _rows(file: SplitFile) -> list[dict[str, str]]:
    remedy = "mend it, or delete it to split anew"
    return csv_rows(file.path, file.text, _COLUMNS[:2], remedy)
