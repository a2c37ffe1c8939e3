"""Folds: how rows are dealt out, so that each is tested once by what has not seen it.

Of K folds one is tested, the next one stops training and chooses among settings, and the others are
learned from; so each fold chooses for itself, and no label of a tested row takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.datasets import splits
from medplus.errors import UsageError
from medplus.vocabulary import SPLITS, Split

FOLDED = "folds*/repeat*"
"""Where the roots of repeats lie below that of the runs on the official splits."""


@dataclass(frozen=True)
class Folds:
    """How the rows of a dataset are dealt out.

    Attributes
    ----------
    n : int
        Number of folds, at least 3.
    repeats : int
        How often all rows are dealt out anew; repeat `r` with ``random_state=r``.
    pool : bool
        Whether the test split takes part; by default only train and val do, and test stays unseen.
    """

    n: int
    repeats: int = 1
    pool: bool = False

    def __post_init__(self) -> None:
        if self.n < 3:
            raise UsageError(
                f"--folds {self.n} is too few: one fold is tested, one chooses, and the others are "
                "learned from; use 3 or more"
            )
        if self.repeats < 1:
            raise UsageError(f"--repeats {self.repeats} must be at least 1")

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits whose rows are dealt out."""
        return SPLITS if self.pool else ("train", "val")

    def facts(self, repeat: int) -> dict[str, Any]:
        """Return what identifies one dealing out, for a run's configuration."""
        return {"n": self.n, "repeat": repeat, "pool": self.pool}

    def __len__(self) -> int:
        """Return the number of folds of all repeats."""
        return self.n * self.repeats

    def root(self, runs: Path, repeat: int) -> Path:
        """Return the root of a repeat's runs, below that of the runs on the official splits.

        Whatever reads runs reads a repeat like any other, and none mixes it with other runs.
        """
        return runs / f"folds{self.n}{'-pool' if self.pool else ''}" / f"repeat{repeat}"


def deal(
    labels: np.ndarray, groups: Sequence[str], folds: Folds, repeat: int, *, multi_label: bool
) -> list[np.ndarray]:
    """Return the rows of every fold.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples, n_labels)
    groups : sequence of str
        Rows of one group, such as a patient's, come into one fold; empty where none are known.
    multi_label : bool
        Several labels cannot be stratified, so that rows are dealt out by chance.

    Returns
    -------
    list of ndarray of int64
        The test rows of scikit-learn's `StratifiedKFold`, or of `StratifiedGroupKFold`, shuffled
        with the repeat's number.

    Raises
    ------
    UsageError
        If a class has fewer rows, or there are fewer groups, than folds.
    """
    y = np.zeros(len(labels), np.int64) if multi_label else labels[:, 0].astype(np.int64)
    counts = np.bincount(y)
    smallest = int(min(np.flatnonzero(counts).tolist(), key=counts.tolist().__getitem__))
    if counts[smallest] < folds.n:
        raise UsageError(
            f"--folds {folds.n} exceeds the {counts[smallest]} images of class {smallest}; say less"
        )
    units = None
    if groups:
        # What belongs to nothing that is known belongs to itself.
        units = np.array([group or f"\0{row}" for row, group in enumerate(groups)])
        if len(set(units.tolist())) < folds.n:
            raise UsageError(
                f"--folds {folds.n} exceeds the {len(set(units.tolist()))} groups; say less"
            )
    dealt = splits.deal(y, units, folds.n, repeat)
    return [np.flatnonzero(dealt == fold) for fold in range(folds.n)]


@dataclass(frozen=True)
class Fold:
    """One fold of one dealing out.

    Attributes
    ----------
    folds : Folds
    repeat, number : int
        From 0.

    Examples
    --------
    >>> Fold.at(Folds(5, 2), 7)
    Fold(folds=Folds(n=5, repeats=2, pool=False), repeat=1, number=2)
    """

    folds: Folds
    repeat: int
    number: int

    @classmethod
    def at(cls, folds: Folds, position: int) -> Fold:
        """Return a fold by its number among those of all repeats, from 0."""
        return cls(folds, *divmod(position, folds.n))

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies it, for a run's configuration."""
        return {**self.folds.facts(self.repeat), "fold": self.number}

    def root(self, runs: Path) -> Path:
        """Return the root of the fold's own runs, beside those that all folds make together."""
        return self.folds.root(runs, self.repeat) / f"fold{self.number}"


def is_of(config: Mapping[str, Any], fold: Fold | None) -> bool:
    """Tell by its configuration whether a run is of a fold, or of none."""
    told = config.get("folds")
    if fold is None or told is None:
        return fold is None and told is None
    return bool(fold.facts.items() <= told.items())


def parts_of(dealt: Sequence[np.ndarray], number: int) -> Mapping[Split, np.ndarray]:
    """Return what one fold tests, what chooses for it, and what it learns from: ascending rows.

    Examples
    --------
    >>> parts = parts_of([np.array([0, 3]), np.array([1]), np.array([2])], 1)
    >>> {split: rows.tolist() for split, rows in parts.items()}
    {'train': [0, 3], 'val': [2], 'test': [1]}
    """
    val = (number + 1) % len(dealt)
    rest = [rows for i, rows in enumerate(dealt) if i not in (number, val)]
    parts: dict[Split, np.ndarray] = {
        "train": np.concatenate(rest), "val": dealt[val], "test": dealt[number],
    }  # fmt: skip
    return {split: np.sort(rows) for split, rows in parts.items()}
