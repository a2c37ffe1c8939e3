"""A saved network or head beside the data it is to be scored on, and whether they go together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medplus.errors import UsageError
from medplus.progress import Progress
from medplus.runs.record import Provenance, RunRecord, StoreFacts
from medplus.runs.scoring import Samples
from medplus.vocabulary import MULTI_LABEL, Split, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation is asked for.

    Attributes
    ----------
    dataset : str or None
        A MedMNIST flag or the path of an npz file; None for the run's own.
    size : int or None
        In pixels; None for the run's own, or a file's own.
    data_root : Path
        Where datasets lie.
    store_root : Path or str
        Where embedding stores lie, or one store.
    precision : str or None
        None for the precision that the run was made at.
    batch_size : int or None
        Images per forward; None for a default.
    code : str or None
        The Python file that defines the run's network.
    """

    dataset: str | None
    size: int | None
    splits: tuple[Split, ...]
    data_root: Path
    store_root: Path | str
    device: torch.device
    precision: str | None
    batch_size: int | None
    code: str | None
    progress: Progress


@dataclass(frozen=True)
class Labelling:
    """What labels mean: the task, and the classes in their order.

    Attributes
    ----------
    origin : str
        The dataset's name.
    task : Task
    classes : list of str
        Names, or just numbers where no names are known.
    """

    origin: str
    task: Task
    classes: list[str]

    @classmethod
    def of(cls, provenance: Provenance) -> Labelling:
        """Return that of a run's data."""
        return cls(provenance.dataset, provenance.task, provenance.classes)

    @property
    def has_names(self) -> bool:
        """Whether the classes are more than their indices: files have no names for theirs."""
        return self.classes != [str(index) for index in range(len(self.classes))]

    def describe(self) -> str:
        """Return the labelling in words."""
        noun = "labels" if self.task == MULTI_LABEL else "classes"
        names = f": {', '.join(map(repr, self.classes))}" if self.has_names else ""
        return f"{self.origin} ({self.task}, {len(self.classes)} {noun}{names})"


def match_classes(run: Path, learned: Labelling, found: Labelling) -> list[int]:
    """Return the index in which a run learned each class of some data, in the data's order.

    Classes are matched by name, and it is said where their order differs. Classes without names,
    as those of files, stand for any names but other numbers.

    Raises
    ------
    UsageError
        If task, number of classes or their names differ.
    """
    ours, theirs = learned.classes, found.classes
    nameless = not (learned.has_names and found.has_names)
    numbers = all(name.isdecimal() for name in (*ours, *theirs))
    same = (
        _kind(learned.task) == _kind(found.task)
        and len(ours) == len(theirs)
        and (set(ours) == set(theirs) or (nameless and not numbers))
    )
    if same and ours != theirs and set(ours) == set(theirs):
        log.warning(
            "%s learned the classes in another order than %s has them: they are matched by name",
            run, found.origin,
        )  # fmt: skip
        return [ours.index(name) for name in theirs]
    if not same:
        raise UsageError(
            f"{run} learned {learned.describe()} and cannot be scored on {found.describe()}; "
            "name a --dataset with the same task and classes"
        )
    return list(range(len(ours)))


def _kind(task: Task) -> Task:
    """Return the task as a file can tell it: not whether its classes are ordered."""
    return "multi-class" if task == "ordinal-regression" else task


@dataclass(frozen=True)
class Prepared:
    """A saved network or head, and the data that it is to be scored on.

    Attributes
    ----------
    record : RunRecord
        Of the run; its path is the run's folder.
    provenance : Provenance
        Of the data that are scored, and of the backbone.
    samples : mapping of split to Samples
    predict : callable
        Computes the logits of every split, float32 (n_samples, n_classes) on the CPU.
    config : dict
        What else determines the scores.
    store : StoreFacts or None
        The embeddings that a head is scored on.
    """

    record: RunRecord
    provenance: Provenance
    samples: Mapping[Split, Samples]
    predict: Callable[[], Mapping[Split, torch.Tensor]]
    config: dict[str, Any] = field(default_factory=dict)
    store: StoreFacts | None = None
