"""What folds say together: means, with the interval that their dependence asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medplus.metrics.intervals import student_half
from medplus.metrics.operating_points import Estimate
from medplus.run.record import RunRecord


def summarise(values: Sequence[float], n_train: float, n_test: float) -> Estimate:
    """Return the mean over folds of scores from 0 to 1, and its corrected interval.

    Folds share training rows, so that their scores vary together and the plain interval is too
    narrow. Of J scores with the variance s² that of the mean is taken as (1/J + n_test/n_train) s²,
    with J - 1 degrees of freedom [1]_. The interval ends where scores do: few folds that differ say
    little, and a normal approximation would go on beyond 100 %.

    References
    ----------
    .. [1] Nadeau & Bengio, "Inference for the generalization error", Machine Learning 52, 2003,
       239-281, section 3.

    Examples
    --------
    >>> found = summarise([0.8, 0.7, 0.9], 60, 30)
    >>> [round(number, 3) for number in found]
    [0.8, 0.407, 1.0]
    """
    mean = float(np.mean(values))
    half = float(student_half(values, np.sqrt(1 + len(values) * n_test / n_train)))
    # max and min would take the bound itself for NaN
    return Estimate(mean, float(np.maximum(0.0, mean - half)), float(np.minimum(1.0, mean + half)))


def summaries(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Summarise cross-validated runs over all folds and repeats: one row per store and seed.

    AUC is left out where a fold lacks a class.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.folds is not None:
            key = str((record.protocol, record.store_key, record.seed, record.solver))
            groups.setdefault(key, []).append(record)
    rows = []
    for own in groups.values():
        facts = [record.folds for record in own if record.folds is not None]
        first = own[0]
        n_train = float(np.mean([n for fact in facts for n in fact.n_train]))
        n_test = float(np.mean([n for fact in facts for n in fact.n_test]))
        row: dict[str, Any] = {
            "protocol": first.protocol, "dataset": first.dataset, "size": first.size,
            "backbone": first.backbone, "seed": first.seed,
            "folds": facts[0].n, "repeats": len(own), "grouped": facts[0].grouped,
        }  # fmt: skip
        for name in ("acc", "auc"):
            values = [value for fact in facts for value in getattr(fact, name)]
            if all(value is not None for value in values):
                found = summarise(values, n_train, n_test)
                row[name] = {"mean": found.value, "ci95": [found.low, found.high]}
        rows.append(row)
    return rows
