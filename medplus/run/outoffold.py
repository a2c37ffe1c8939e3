"""From the runs of folds to one run: out-of-fold predictions of all rows, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medplus.run.folds import Folds
from medplus.run.ledger import save_run
from medplus.run.plan import RunPlan
from medplus.run.record import FoldFacts, RunRecord
from medplus.run.scoring import EVALUATED, Samples, score_splits
from medplus.vocabulary import Split

_SETTINGS = ("k", "lr", "weight_decay", "strength", "best_epoch")


@dataclass(frozen=True)
class FoldRun:
    """What was predicted for the rows that a fold did not learn from.

    Attributes
    ----------
    record : RunRecord
    rows : mapping of split to ndarray of int64
        Of train, val and test, counted over all that were dealt out.
    saved : mapping of str to ndarray
        The run's predictions.
    head : mapping of str to ndarray
        The tensors of the head that was trained; empty where none was.
    """

    record: RunRecord
    rows: Mapping[Split, np.ndarray]
    saved: Mapping[str, np.ndarray]
    head: Mapping[str, np.ndarray] = field(default_factory=dict)


def save_joined(
    plan: RunPlan,
    samples: Samples,
    origin: np.ndarray,
    own: Sequence[FoldRun],
    folds: Folds,
    repeat: int,
    **found: Any,
) -> RunRecord:
    """Join the runs of all folds of a repeat, and save what that makes.

    Val's scores are those of the rows on which each fold chose, test's those out of fold. Heads are
    kept together: ``fold0.weight``, ….

    Parameters
    ----------
    samples : Samples
        All rows that were dealt out.
    origin : ndarray of str, shape (n_samples,)
        The split that each of them came from.
    own : sequence of FoldRun
        In the order of the folds.
    **found
        Further fields of the record.
    """
    scores: dict[Split, np.ndarray] = {}
    baseline: dict[Split, float] = {}
    for split in EVALUATED:
        rows = np.concatenate([fold.rows[split] for fold in own])
        values = np.concatenate([fold.saved[f"{split}_score"] for fold in own])
        scores[split] = values[np.argsort(rows)]
        known = [fold.record.baseline_acc.get(split, np.nan) for fold in own]
        baseline[split] = float(np.average(known, weights=[len(f.rows[split]) for f in own]))
    task = plan.provenance.task
    metrics, predictions = score_splits(dict.fromkeys(EVALUATED, samples), scores, task)
    predictions |= {f"{split}_split": origin for split in EVALUATED}
    told = {split: value for split, value in baseline.items() if np.isfinite(value)}
    plan = replace(plan, provenance=plan.provenance.model_copy(update={"baseline_acc": told}))
    tests = [fold.record.metrics["test"] for fold in own]
    facts = FoldFacts(
        n=folds.n,
        repeat=repeat,
        pool=folds.pool,
        grouped=bool(samples.groups),
        n_train=[len(fold.rows["train"]) for fold in own],
        n_test=[len(fold.rows["test"]) for fold in own],
        acc=[test["acc"] for test in tests],
        auc=[test.get("auc") for test in tests],
        chosen=[_chosen(fold.record) for fold in own],
    )
    head = {f"fold{i}.{name}": t for i, fold in enumerate(own) for name, t in fold.head.items()}
    record = plan.record(metrics, *_cost(own), folds=facts, **found)
    save_run(record, predictions, head)
    return record


def _cost(own: Sequence[FoldRun]) -> tuple[float, dict[str, Any]]:
    """Return seconds and cost of all folds: times and energies add up, peaks do not."""
    costs = [fold.record.cost for fold in own]
    seconds = sum(fold.record.seconds for fold in own)
    summed = {
        name: sum(cost[name] for cost in costs)
        for name in ("device_seconds", "energy_joules")
        if all(name in cost for cost in costs)
    }
    return seconds, {**costs[0], **summed, "seconds": seconds}


def _chosen(record: RunRecord) -> dict[str, float]:
    found = {name: getattr(record, name) for name in _SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
