"""Labels and scores, checked once and laid out so that every task is scored by the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.errors import RunError
from medplus.vocabulary import MULTI_LABEL, Task

THRESHOLD = 0.5
"""A label is predicted where its score is above this, as in `medmnist.evaluator.getACC`."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """True labels, predicted labels and scores of one split.

    A single-label task has one label column (`n_labels` = 1) with `n_classes` values; a
    multi-label task has one column of 0 and 1 per label. The AUC sees one-vs-rest problems
    instead: one per class or label, and a single one for the binary task.

    Attributes
    ----------
    task : Task
        MedMNIST's task type.
    n_classes : int
        Values a label column can take; 2 for binary and multi-label tasks.
    true, predicted : ndarray of shape (n_samples, n_labels), int64
        The label columns.
    targets : ndarray of shape (n_samples, n_problems), bool
        Which samples are positive in each one-vs-rest problem.
    scores : ndarray of shape (n_samples, n_problems), float64
        Score of the positive side of each one-vs-rest problem.
    """

    task: Task
    n_classes: int
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    targets: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.true)

    @property
    def missing_classes(self) -> tuple[int, ...]:
        """Classes without a sample; for multi-label, labels without a positive or a negative."""
        if self.task == MULTI_LABEL:
            absent = self.targets.all(axis=0) | ~self.targets.any(axis=0)
        else:
            absent = np.bincount(self.true[:, 0], minlength=self.n_classes) == 0
        return tuple(np.flatnonzero(absent).tolist())


def check(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> Predictions:
    """Check labels and scores against each other and against the task.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), (n_samples, 1) or (n_samples, n_labels)
        Integer labels, as MedMNIST stores them.
    y_score : array-like of float, shape (n_samples, n_classes) or (n_samples, n_labels)
        Scores; for the binary task the last column counts, and one column or a vector will do.
    task : Task
        MedMNIST's task type; ordinal regression is scored like multi-class.

    Returns
    -------
    Predictions
        The checked arrays.

    Raises
    ------
    RunError
        If shapes, labels or scores cannot be scored together.

    Examples
    --------
    >>> check([0, 1], [0.2, 0.9], "binary-class").predicted.tolist()
    [[0], [1]]
    """
    if task not in get_args(Task):
        raise RunError(f"Unknown task {task!r}; the tasks are {', '.join(get_args(Task))}.")
    scores = _score_table(y_score)
    labels = _label_table(y_true)
    if len(labels) != len(scores):
        raise RunError(
            f"y_true has {len(labels)} rows, y_score {len(scores)}; score every sample once."
        )
    if len(labels) == 0:
        raise RunError("y_true and y_score are empty; there is nothing to score.")
    if task == MULTI_LABEL:
        return _multi_label(labels, scores)
    if labels.shape[1] != 1:
        raise RunError(
            f"y_true has {labels.shape[1]} label columns; the task {task!r} has one label per "
            f"sample. Several labels per sample need the task {MULTI_LABEL!r}."
        )
    return _binary(labels, scores) if task == "binary-class" else _one_of_many(labels, scores, task)


def _multi_label(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Predictions:
    if labels.shape != scores.shape:
        raise RunError(
            f"y_true has shape {labels.shape}, y_score {scores.shape}; "
            "a multi-label task needs one score per label."
        )
    _check_range(labels, 2)
    predicted = (scores > THRESHOLD).astype(np.int64)
    return Predictions(MULTI_LABEL, 2, labels, predicted, labels == 1, scores)


def _binary(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Predictions:
    if scores.shape[1] not in (1, 2):
        raise RunError(
            f"y_score has {scores.shape[1]} columns; the binary task needs two, or one with the "
            "score of class 1."
        )
    _check_range(labels, 2)
    positive = scores[:, -1:]
    predicted = (positive > THRESHOLD).astype(np.int64)
    return Predictions("binary-class", 2, labels, predicted, labels == 1, positive)


def _one_of_many(labels: NDArray[np.int64], scores: NDArray[np.float64], task: Task) -> Predictions:
    n_classes = scores.shape[1]
    if n_classes < 2:
        raise RunError(f"y_score has one column; the task {task!r} needs one per class.")
    _check_range(labels, n_classes)
    predicted = scores.argmax(axis=1)[:, None]
    return Predictions(task, n_classes, labels, predicted, labels == np.arange(n_classes), scores)


def _score_table(y_score: ArrayLike) -> NDArray[np.float64]:
    try:
        scores = np.asarray(y_score, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RunError(f"y_score is not a table of numbers: {error}.") from error
    scores = _as_table(scores, "y_score")
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise RunError(
            f"y_score holds {scores[row, column]} at row {row}, column {column}; "
            "every score must be finite. Look for a diverged head or overflow in half precision."
        )
    return scores


def _label_table(y_true: ArrayLike) -> NDArray[np.int64]:
    raw = _as_table(np.asarray(y_true), "y_true")
    if raw.dtype.kind not in "biuf":
        raise RunError(f"y_true has dtype {raw.dtype}; labels must be integers.")
    if raw.dtype.kind == "f" and not (np.isfinite(raw) & (raw == np.round(raw))).all():
        raise RunError("y_true holds values that are not whole numbers; labels must be integers.")
    return raw.astype(np.int64)


def _as_table(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] == 0):
        raise RunError(
            f"{name} has shape {values.shape}; it must be (n_samples,) or (n_samples, n_columns)."
        )
    return values[:, None] if values.ndim == 1 else values


def _check_range(labels: NDArray[np.int64], n_classes: int) -> None:
    if labels.min() < 0 or labels.max() >= n_classes:
        raise RunError(
            f"y_true holds labels from {labels.min()} to {labels.max()}; "
            f"they must lie between 0 and {n_classes - 1}."
        )
