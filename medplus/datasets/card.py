"""The data card: what exactly was read, in a few lines, and what to be careful of."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from medplus.jsonfile import digest_of
from medplus.naming import counted, quoted, several, some
from medplus.progress import SAID
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split, Task

log = logging.getLogger(__name__)

_MOST_NAMED = 12
_MISSING = {"", "na", "n/a", "nan", "none", "null", "nil", "unknown", "missing", "?", "-", "--",
            "unlabeled", "unlabelled", "undefined", "tbd", "todo"}  # fmt: skip
_CODES = {"-1", "-9", "-99", "-999", "99", "255", "999", "9999"}
_JOINED = re.compile(r"[,/&+]| and ")


@dataclass
class Card:
    """What was read of a dataset, and how; filled in while it is read.

    Attributes
    ----------
    task, task_from : str
        The task, and why: ``column 'diagnosis'``.
    classes : list of str
        In the order of the class indices.
    counts : dict
        Per split, the number of images of each class (or with each label), and of all.
    split_from : str
        Who made the split: given by folders, by a column, or made, and how.
    groups : str
        What was kept together; empty if nothing.
    images : str
        Sizes and modes of the files, and what was done to them.
    unused_columns : list of str
        Columns of the table that play no part.
    warnings : list of str
        What may make results wrong. Stores and records carry it.

    Examples
    --------
    >>> card = Card("binary-class", "the folders")
    >>> card.describe(("no", "yes"), {"train": [[0], [1]], "val": [[0]], "test": [[1]]})
    >>> card.warnings
    ['val has no image of yes', 'test has no image of no']
    """

    task: str = ""
    task_from: str = ""
    classes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    split_from: str = ""
    groups: str = ""
    images: str = ""
    unused_columns: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the card says, in hex."""
        return digest_of(self.to_dict())

    @property
    def baseline_acc(self) -> dict[Split, float]:
        """Per split, the ACC of always saying what most images of train are; empty if unknown."""
        if not self.counts:
            return {}
        train = np.array(self.counts["train"]["classes"])
        found: dict[Split, float] = {}
        for split in SPLITS:
            n, of = self.counts[split]["images"], np.array(self.counts[split]["classes"])
            if self.task == MULTI_LABEL:
                said = 2 * train > self.counts["train"]["images"]
                found[split] = float(np.where(said, of, n - of).mean() / n)
            else:
                found[split] = float(of[train.argmax()] / n)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def describe(self, classes: Sequence[str], labels: Mapping[Split, Any]) -> None:
        """Count the images of every class, and warn of classes that a split lacks."""
        self.classes = list(classes)
        for split in SPLITS:
            values = np.asarray(labels[split])
            if self.task == MULTI_LABEL:
                per_class = values.sum(0)
            else:
                per_class = np.bincount(values.ravel(), minlength=len(classes))
            self.counts[split] = {"images": len(values), "classes": per_class.tolist()}
        present = [sum(n) > 0 for n in zip(*self._per_class(), strict=True)]
        missing = [name for name, there in zip(self.classes, present, strict=True) if not there]
        if missing:
            self.warn(f"no image is of {several(missing, 'class')}")
        for split in SPLITS:
            numbers = zip(self.classes, self.counts[split]["classes"], present, strict=True)
            absent = [name for name, n, there in numbers if there and not n]
            if absent:
                cannot = ", which nothing can learn" if split == "train" else ""
                self.warn(f"{split} has no image of {_listed(absent)}{cannot}")
        self._warn_of_names()

    def recounted(self, classes: Sequence[str], labels: Mapping[Split, Any], *more: str) -> Card:
        """Return the card of some of the images, with `more` to be careful of."""
        card = replace(self, warnings=[*self.warnings, *more], counts={})
        card.describe(classes, labels)
        return card

    def lines(self) -> list[str]:
        """Return the card in a few lines, without its warnings."""
        sizes = " + ".join(f"{self.counts[split]['images']:,}" for split in SPLITS)
        told = [f"{self.task} ({self.task_from}); {sizes} images (train + val + test, "
                f"{self.split_from})"]  # fmt: skip
        if len(self.classes) <= _MOST_NAMED:
            numbers = zip(self.classes, *self._per_class(), strict=True)
            told.append("; ".join(f"{quoted(c)}: {a:,} + {b:,} + {d:,}" for c, a, b, d in numbers))
        else:
            totals = [sum(n) for n in zip(*self._per_class(), strict=True)]
            what = f"{len(self.classes)} classes of {min(totals):,} to {max(totals):,} images"
            told.append(f"{what} {some(self.classes)}")
        told.append(self.images)
        if self.groups:
            told.append(f"kept together: {self.groups}")
        if self.unused_columns:
            told.append(f"columns not used: {', '.join(map(quoted, self.unused_columns))}")
        return [line for line in told if line]

    def say(self, what: str, where: str) -> None:
        """Log the card of what was read, and where, and each of its warnings."""
        log.log(SAID, "%s (%s): %s", what, where, "\n  ".join(self.lines()))
        warn_of(what, self.warnings)

    def _per_class(self) -> list[list[int]]:
        return [self.counts[split]["classes"] for split in SPLITS]

    def _warn_of_names(self) -> None:
        alike: dict[str, list[str]] = defaultdict(list)
        for name in self.classes:
            alike[_plain(name)].append(name)
        for names in alike.values():
            if len(names) > 1:
                self.warn(f"the classes {_listed(names)} look alike; should they be one?")
        known = set(self.classes)
        codes = {code for code in _CODES if str(int(code) - 1) not in known}
        if len(known) < 3 or not known & {"0", "1"}:  # -1 and 1 are two classes
            codes = set()
        missing = [c for c in self.classes if c.strip().casefold() in _MISSING or c in codes]
        if missing:
            self.warn(
                f"the class {_listed(missing)} looks like a missing value; if it is, drop its "
                "images"
            )
        parts = {name: {part.strip() for part in _JOINED.split(name)} for name in self.classes}
        joined = [name for name in self.classes if len(parts[name]) > 1 and parts[name] <= known]
        if joined:
            self.warn(
                f"the class {_listed(joined)} looks like several labels; if an image may have "
                "several, separate them by | in a table"
            )


def warn_of(what: str, warnings: Iterable[str]) -> None:
    """Log what a card warns of, also one that was read long ago."""
    for text in warnings:
        log.warning("%s: %s", what, text)


def copies(
    contents: Sequence[str], splits: Sequence[Split | None], labels: Sequence[Any],
    names: Sequence[str],
) -> list[str]:  # fmt: skip
    """Return warnings of images that are there more than once: across splits, classes, or within.

    Parameters
    ----------
    contents : sequence of str
        What identifies each image's pixels.
    splits, labels, names : sequences
        Of the same length; labels are compared for equality.
    """
    members = defaultdict(list)
    for i, content in enumerate(contents):
        members[content].append(i)
    clusters = [rows for rows in members.values() if len(rows) > 1]
    warnings = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = [rows for rows in clusters if one in {splits[i] for i in rows}]
        leaked = sorted(names[i] for rows in shared for i in rows if splits[i] == other)
        if leaked:
            warnings.append(
                f"{counted(len(leaked), 'image')} of {other} {_have(leaked)} the same content as "
                f"one of {one} {some(leaked)}; scores will be too good"
            )
    torn = [rows for rows in clusters if len({str(labels[i]) for i in rows}) > 1]
    if torn:
        images = [names[i] for rows in torn for i in rows]
        warnings.append(
            f"{counted(len(images), 'image')} of the same content {_have(images)} different labels "
            f"{some(images)}; at most one can be right"
        )
    within: dict[str, list[list[int]]] = defaultdict(list)
    for rows in clusters:
        for split in {splits[i] for i in rows}:
            within[str(split)].append([i for i in rows if splits[i] == split])
    repeats = {split: [rows for rows in parts if len(rows) > 1] for split, parts in within.items()}
    told = [f"{sum(map(len, parts)) - len(parts):,} in {split}"
            for split, parts in sorted(repeats.items()) if parts]  # fmt: skip
    if told:
        pairs = [rows for parts in repeats.values() for rows in parts]
        first = some(" = ".join(names[i] for i in rows[:2]) for rows in sorted(pairs))
        warnings.append(f"images that repeat another of their split: {', '.join(told)} {first}")
    return warnings


def _have(images: Sequence[str]) -> str:
    return "has" if len(images) == 1 else "have"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    shown = ", ".join(map(quoted, names[:_MOST_NAMED]))
    return f"{shown} and {more} more" if more > 0 else shown


def _plain(name: str) -> str:
    """Return what names have in common that only look different: case, blanks, zeros, accents."""
    name = unicodedata.normalize("NFKC", name).casefold().strip()
    if re.fullmatch(r"-?\d+(\.0*)?", name, re.ASCII):
        return str(int(float(name)))
    return " ".join(re.sub("[_?!.*-]", " ", name).split())


def task_of(classes: Sequence[str]) -> Task:
    """Return the task that so many classes make, one per image."""
    return "binary-class" if len(classes) == 2 else "multi-class"
