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
from medplus.run.record import Provenance, RunRecord, StoreFacts
from medplus.run.scoring import Samples
from medplus.vocabulary import MULTI_LABEL, Split, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation is asked for, as `medplus.evaluate` has it; device and splits settled."""

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


Labelling = tuple[str, Task, list[str]]
"""What labels mean: the dataset's name, the task, and the classes in order."""


def match_classes(run: Path, record: RunRecord, found: Labelling) -> list[int]:
    """Return the index in which a run learned each class of some data, in the data's order.

    Classes are matched by name, and it is said where their order differs. Classes without names,
    which are numbered, as those of files, stand for any names but other numbers.

    Raises
    ------
    UsageError
        If task, number of classes or their names differ.
    """
    (origin, task, theirs), ours = found, record.classes
    nameless = not (_have_names(ours) and _have_names(theirs))
    numbers = all(name.isdecimal() for name in (*ours, *theirs))
    if not (
        _kind(record.task) == _kind(task)
        and len(ours) == len(theirs)
        and (set(ours) == set(theirs) or (nameless and not numbers))
    ):
        raise UsageError(
            f"{run} learned {_describe((record.dataset, record.task, ours))} and cannot be scored "
            f"on {_describe(found)}; name a --dataset with the same task and classes"
        )
    if ours == theirs or set(ours) != set(theirs):
        return list(range(len(ours)))
    log.warning(
        "%s learned the classes in another order than %s has them: they are matched by name",
        run, origin,
    )  # fmt: skip
    return [ours.index(name) for name in theirs]


def _have_names(classes: list[str]) -> bool:
    return classes != [str(index) for index in range(len(classes))]


def _describe(labelling: Labelling) -> str:
    origin, task, classes = labelling
    noun = "labels" if task == MULTI_LABEL else "classes"
    names = f": {', '.join(map(repr, classes))}" if _have_names(classes) else ""
    return f"{origin} ({task}, {len(classes)} {noun}{names})"


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
