"""What the findings cost: saved runs scored again without the test images that were found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.errors import RunError
from medplus.metrics import percentile_interval, replicates, score
from medplus.metrics.predictions import check
from medplus.naming import counted
from medplus.run.ledger import read_predictions, read_runs
from medplus.vocabulary import Task

_RESAMPLES, _FEWEST, _BUDGET = 1000, 200, 20_000
"""Resamples for an interval: for few runs, at least, and for all runs together."""


@dataclass(frozen=True)
class Difference:
    """One metric with and without the images that were found; fractions.

    Attributes
    ----------
    everything, without : float
    interval : (float, float) or None
        95 % interval of `without`.
    change : float
        `without` less `everything`.
    change_interval : (float, float) or None
        Its 95 % interval: a bootstrap over the test images, the same for both.
    """

    everything: float
    without: float
    interval: tuple[float, float] | None
    change: float
    change_interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them: what is not defined is None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Consequence:
    """One saved run, scored without some test images.

    Attributes
    ----------
    run : str
        Its folder.
    what : str
        What was left out.
    n_left_out, n_test : int
    acc, auc : Difference
    is_chosen : bool
        Whether the run is the best on val of its protocol and backbone.
    """

    run: str
    protocol: str
    backbone: str
    what: str
    n_left_out: int
    n_test: int
    acc: Difference
    auc: Difference
    is_chosen: bool = True

    @property
    def sentence(self) -> str:
        """The consequence in words."""
        points = 100 * self.acc.everything, 100 * self.acc.without
        images = counted(self.n_left_out, "test image")
        told = f"ACC {points[0]:.1f} % → {points[1]:.1f} % without the {images} {self.what}"
        if self.acc.change_interval is None:
            return told
        low, high = (100 * value for value in self.acc.change_interval)
        return f"{told} ({100 * self.acc.change:+.1f}, 95 % interval {low:+.1f} to {high:+.1f})"


def score_without(
    y_true: np.ndarray,
    y_score: np.ndarray,
    task: Task,
    found: np.ndarray,
    groups: np.ndarray | None = None,
    resamples: int = _RESAMPLES,
) -> tuple[Difference, Difference]:
    """Score predictions with and without some samples; return the differences of ACC and AUC.

    Parameters
    ----------
    y_true : ndarray of int, shape (n, n_labels)
    y_score : ndarray of float, shape (n, n_classes)
    task : Task
    found : ndarray of bool, shape (n,)
        What is left out; not all.
    groups : ndarray, shape (n,), optional
        What each sample belongs to, such as a patient; resamples are then of groups.
    resamples : int
        For the intervals.
    """
    keep = ~found
    every = score(y_true, y_score, task)
    rest = score(y_true[keep], y_score[keep], task)
    cases = check(y_true, y_score, task)
    drawn = (
        replicates(cases, resamples, groups=groups),
        replicates(cases, resamples, groups=groups, keep=keep),
    )
    return (
        _difference(every.acc, rest.acc, drawn[0].acc, drawn[1].acc),
        _difference(every.auc_present, rest.auc_present, drawn[0].auc, drawn[1].auc),
    )


def score_runs(
    runs: Path, dataset_digest: str, found: Mapping[str, np.ndarray]
) -> list[Consequence]:
    """Score all saved runs on a dataset again without what was found.

    Parameters
    ----------
    runs : Path
        Root of the runs; it need not exist.
    dataset_digest : str
        Of the images that were audited.
    found : mapping of str to ndarray of int64
        What was found, in words that follow "the test images", and its positions in test.

    Returns
    -------
    list of Consequence
        Per run, one for everything that was found among its test images.
    """
    consequences = []
    records = [one for one in read_runs(runs)[0] if one.dataset_digest == dataset_digest]
    best: dict[tuple[str, str], str] = {}  # of equal ones the first
    for one in sorted(records, key=lambda one: -one.metrics.get("val", {}).get("acc", -1.0)):
        best.setdefault((one.protocol, one.backbone), one.path)
    resamples = max(_FEWEST, min(_RESAMPLES, _BUDGET // max(1, len(records))))
    for record in records:
        try:
            predictions = read_predictions(Path(record.path))
        except RunError:
            continue  # as of damaged records, medplus doctor and medplus report tell of them
        index = predictions["test_index"]
        is_best = record.path == best[record.protocol, record.backbone]
        # Out of fold, rows of train and val are tested as well: they are not those that were found.
        of_test = predictions.get("test_split", np.repeat("test", len(index))) == "test"
        for what, positions in found.items():
            left_out = np.isin(index, positions) & of_test
            if not left_out.any() or left_out.all():
                continue
            acc, auc = score_without(
                predictions["test_true"],
                predictions["test_score"],
                record.task,
                left_out,
                predictions.get("test_group"),
                resamples,
            )
            consequences.append(
                Consequence(
                    record.path, record.protocol, record.backbone, what,
                    int(left_out.sum()), len(index), acc, auc, is_best,
                )
            )  # fmt: skip
    return consequences


def _difference(
    everything: float, without: float, all_drawn: np.ndarray, drawn: np.ndarray
) -> Difference:
    return Difference(
        everything,
        without,
        percentile_interval(drawn),
        without - everything,
        percentile_interval(drawn - all_drawn),
    )
