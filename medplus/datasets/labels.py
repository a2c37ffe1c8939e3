"""From words to labels: the task, the classes in their order, and the array."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medplus.datasets.card import task_of
from medplus.datasets.description import Description
from medplus.datasets.files import Sample
from medplus.errors import UsageError, nearest
from medplus.naming import counted, several, some
from medplus.vocabulary import MULTI_LABEL, Task


@dataclass(frozen=True)
class Labels:
    """The task, the names of classes or labels, and the values, shape (n_samples, n_labels)."""

    task: Task
    classes: tuple[str, ...]
    values: npt.NDArray[np.integer]

    @property
    def flags(self) -> npt.NDArray[np.float64]:
        """One column of 0 and 1 per class or label, shape (n_samples, n_classes)."""
        if self.task == MULTI_LABEL:
            return self.values.astype(np.float64)
        one_hot = np.eye(len(self.classes), dtype=np.float64)
        return np.asarray(one_hot[self.values[:, 0]])


def encode(
    root: Path, samples: list[Sample], names: tuple[str, ...], description: Description
) -> Labels:
    """Return the labels of samples; `names` are those of 0/1 columns, if the table has any.

    Raises
    ------
    UsageError
        If the description's task or classes do not go with what is there.
    """
    if names:
        return _encode_flags(root, samples, names, description)
    if description.task == MULTI_LABEL:
        raise UsageError(
            f"{root}: the task is multi-label, but each image has one class; name several "
            "label_columns of a table in dataset.yaml"
        )
    words = [sample.labels[0] for sample in samples]
    classes = description.classes or _in_order(set(words))
    number = {name: index for index, name in enumerate(classes)}
    unknown = sorted(set(words) - set(classes))
    if unknown:
        raise UsageError(
            f"{root}: {several(unknown, 'class')} not among the classes of dataset.yaml"
            f"{nearest(unknown[0], classes)}"
        )
    if len(set(words)) < 2:
        inside = root / words[0]
        below = all(sample.path.count("/") > 1 for sample in samples) and inside.is_dir()
        raise UsageError(
            f"{root}: all {counted(len(words), 'image')} are of the class '{words[0]}'; a "
            "classifier needs at least two classes: as folders, or in labels.csv (path, label)"
            + (f"; if its folders are the classes, name {inside}" if below else "")
        )
    task: Task = description.task or task_of(classes)
    if task == "ordinal-regression" and not (description.classes or _all_numbers(words)):
        raise UsageError(
            f"{root}: the task is ordinal-regression, but nothing says in which order the classes "
            f"{some(classes)} stand; name them in their order as classes in dataset.yaml"
        )
    if task == "binary-class" and len(classes) != 2:
        raise UsageError(f"{root}: the task is binary-class, but there are {len(classes)} classes")
    dtype: type[np.integer] = np.uint8 if len(classes) <= 256 else np.int64
    values = np.array([number[word] for word in words], dtype)[:, None]
    return Labels(task, tuple(classes), values)


def _encode_flags(
    root: Path, samples: list[Sample], names: tuple[str, ...], description: Description
) -> Labels:
    if description.task not in (None, MULTI_LABEL):
        raise UsageError(
            f"{root}: the task is {description.task}, but the table has several label columns "
            f"{some(names)}; name one as label_columns in dataset.yaml"
        )
    classes = description.classes or names
    if len(classes) != len(names):
        raise UsageError(
            f"{root}: dataset.yaml names {counted(len(classes), 'class')}, but the table has "
            f"{len(names)} label columns {some(names)}"
        )
    values = np.array([sample.labels for sample in samples], dtype=np.uint8)
    if set(classes) == set(names):  # else they are other names for the same columns
        values = values[:, [names.index(name) for name in classes]]
    return Labels(MULTI_LABEL, tuple(classes), values)


def _all_numbers(words: Iterable[str]) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _in_order(words: set[str]) -> tuple[str, ...]:
    """Sort by name; numbers by value, so that 10 comes after 9."""
    if _all_numbers(words):
        return tuple(sorted(words, key=lambda word: (float(word), word)))
    return tuple(sorted(words))


def check_class_sizes(root: Path, labels: Labels, parts: int) -> None:
    """Refuse to split classes that have fewer images than there are splits to fill.

    Raises
    ------
    UsageError
    """
    if labels.task == MULTI_LABEL:
        return
    counts = Counter(labels.values[:, 0].tolist())
    small = [labels.classes[index] for index, n in sorted(counts.items()) if n < parts]
    if small:
        raise UsageError(
            f"{root}: {several(small, 'class')} with fewer than {parts} images "
            f"cannot be split {parts} ways; add images, remove the classes, or give the splits "
            "(folders train, val and test, or a column split)"
        )
