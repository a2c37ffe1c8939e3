"""From predictions to what a run keeps: metrics per split, and the predictions themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medplus.datasets.dataset import ImageSplit
from medplus.errors import RunError
from medplus.metrics import score
from medplus.vocabulary import MULTI_LABEL, Split, Task

EVALUATED: tuple[Split, ...] = ("val", "test")
"""The splits that every run is scored on."""


@dataclass(frozen=True)
class Samples:
    """What is known of a split's samples, whatever is computed on them.

    Attributes
    ----------
    labels : ndarray of int, shape (n_samples, n_labels)
    index : ndarray of int64, shape (n_samples,)
        Their positions in the source split.
    names : sequence of str
        Where each came from; empty, or of empty names, where that is not known.
    groups : sequence of str
        What each belongs to, such as a patient; empty where nothing is known to belong together.
    """

    labels: np.ndarray
    index: np.ndarray
    names: Sequence[str] = field(default=(), kw_only=True)
    groups: Sequence[str] = field(default=(), kw_only=True)

    @classmethod
    def of(cls, split: ImageSplit) -> Samples:
        """Return what is known of a split of images besides their pixels."""
        return cls(split.labels, split.positions, names=split.names, groups=split.groups)

    @classmethod
    def joined(cls, parts: Iterable[Samples]) -> Samples:
        """Return the samples of several, one after the other."""
        own = list(parts)
        return cls(
            np.concatenate([part.labels for part in own]),
            np.concatenate([part.index for part in own]),
            names=[name for part in own for name in part.names],
            groups=[group for part in own for group in part.groups],
        )


def check_trainable(what: str, labels: np.ndarray, task: Task) -> None:
    """Refuse a train split that holds one class only: nothing can be learned from it.

    Raises
    ------
    RunError
    """
    present = np.unique(labels)
    if task != MULTI_LABEL and len(present) < 2:
        raise RunError(
            f"{what}: all {len(labels)} train labels are class {present[0]}; a classifier needs at "
            "least two classes"
        )


def score_splits(
    samples: Mapping[Split, Samples],
    scores: Mapping[Split, np.ndarray],
    task: Task,
) -> tuple[dict[Split, dict[str, Any]], dict[str, np.ndarray]]:
    """Score the predictions of some splits.

    Parameters
    ----------
    samples : mapping of split to Samples
        It may hold more splits than have scores.
    scores : mapping of split to ndarray of float, shape (n_samples, n_classes)
        Probabilities or vote shares.

    Returns
    -------
    metrics : dict
        Per split, as `medplus.metrics.Scores.to_dict` gives them.
    predictions : dict of ndarray
        What ``predictions.npz`` holds.
    """
    metrics: dict[Split, dict[str, Any]] = {}
    predictions: dict[str, np.ndarray] = {}
    for split in scores:
        own = samples[split]
        # Scored as they are stored, so that the same metrics follow from the predictions.
        stored = scores[split].astype(np.float32, copy=False)
        groups = np.asarray(list(own.groups), dtype=np.str_) if own.groups else None
        metrics[split] = score(own.labels, stored, task, groups=groups).to_dict()
        predictions[f"{split}_score"] = stored
        predictions[f"{split}_true"] = own.labels
        predictions[f"{split}_index"] = own.index
        if len(own.names) and own.names[0] not in ("", f"{split}/{own.index[0]}"):
            # They tell more than the index does, since these data have files of their own.
            predictions[f"{split}_name"] = np.asarray(list(own.names), dtype=np.str_)
        if groups is not None:
            predictions[f"{split}_group"] = groups
    return metrics, predictions
