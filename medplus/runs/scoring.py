"""From predictions to what a run keeps: metrics per split, and the predictions themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from medplus.metrics import score
from medplus.vocabulary import Split, Task

EVALUATED: tuple[Split, ...] = ("val", "test")
"""The splits that every run is scored on."""


def score_splits(
    truth: Mapping[Split, np.ndarray],
    scores: Mapping[Split, np.ndarray],
    index: Mapping[Split, np.ndarray],
    task: Task,
    bootstrap: int | None,
    evaluated: Iterable[Split] = EVALUATED,
) -> tuple[dict[Split, dict[str, Any]], dict[str, np.ndarray]]:
    """Score the predictions of val and test.

    Parameters
    ----------
    truth : mapping of split to ndarray of int, shape (n_samples, n_labels)
    scores : mapping of split to ndarray of float, shape (n_samples, n_classes)
        Probabilities or vote shares.
    index : mapping of split to ndarray of int64, shape (n_samples,)
        The samples' positions in the source split.
    bootstrap : int or None
        Resamples for the test split's confidence intervals; None chooses by cost, 0 leaves
        them out.
    evaluated : iterable of Split
        The splits to score; the mappings may hold more.

    Returns
    -------
    metrics : dict
        Per split, as `medplus.metrics.Scores.to_dict` gives them.
    predictions : dict of ndarray
        What ``predictions.npz`` holds.
    """
    metrics: dict[Split, dict[str, Any]] = {}
    predictions: dict[str, np.ndarray] = {}
    for split in evaluated:
        # Intervals are of the test samples; val only selects.
        resamples = bootstrap if split == "test" else 0
        # Scored as they are stored, so that the same metrics follow from the predictions.
        stored = scores[split].astype(np.float32, copy=False)
        metrics[split] = score(truth[split], stored, task, bootstrap=resamples).to_dict()
        predictions[f"{split}_score"] = stored
        predictions[f"{split}_true"] = truth[split]
        predictions[f"{split}_index"] = index[split]
    return metrics, predictions
