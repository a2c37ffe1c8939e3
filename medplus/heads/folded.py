"""Cross-validation of heads: every row is predicted by a head that neither saw nor was tuned on it.

Of K folds one is tested, the next one stops training and chooses among settings, and the others are
learned from; so each fold chooses for itself, and no label of a tested row takes part. The folds of
a repeat make one run, whose test predictions are those of all rows, out of fold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medplus.datasets import splits
from medplus.embeddings.derived import view_of
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import UsageError
from medplus.run.best import select_best
from medplus.run.ledger import read_predictions, save_run
from medplus.run.plan import RunPlan, claim_missing, plan_run
from medplus.run.record import FoldFacts, RunRecord
from medplus.run.scoring import EVALUATED, Samples, score_splits
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

_SETTINGS = ("k", "lr", "weight_decay", "strength")
Plan = Callable[[EmbeddingStore], list[RunPlan]]
Run = Callable[[EmbeddingStore, list[RunPlan]], list[RunRecord]]


@dataclass(frozen=True)
class Folds:
    """How a store's rows are dealt out.

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
        """The splits of the store whose rows are dealt out."""
        return SPLITS if self.pool else ("train", "val")


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


def run_folded(
    store: EmbeddingStore, plan: Plan, run: Run, folds: Folds, overwrite: bool
) -> list[RunRecord]:
    """Cross-validate the heads on a store: one record per repeat and seed.

    They lie in roots of their own below that of the runs, ``folds<K>/repeat<r>``, so that whatever
    reads runs reads a repeat like any other, and none mixes them with runs on the official splits.

    Parameters
    ----------
    plan, run : callable
        As for `medplus.heads.stored.run_heads`.
    """
    records: list[RunRecord] = []
    for repeat in range(folds.repeats):
        plans = _plans(plan(store), folds, repeat)
        with claim_missing(plans, overwrite) as found:
            todo = [p for p, record in zip(plans, found, strict=True) if record is None]
            done = iter(_run(store, plan, run, folds, repeat, todo, overwrite) if todo else ())
        records += [record or next(done) for record in found]
    return records


def _plans(settings: Sequence[RunPlan], folds: Folds, repeat: int) -> list[RunPlan]:
    """Return a plan per seed, which has all the settings that a fold chooses from."""
    by_seed: dict[int | None, list[RunPlan]] = {}
    for one in settings:
        by_seed.setdefault(one.fields.get("seed"), []).append(one)
    plans = []
    for seed, own in by_seed.items():
        first = own[0]
        dealt = {"n": folds.n, "repeat": repeat, "pool": folds.pool}
        config = {**first.config, "folds": dealt, "settings": [one.config for one in own]}
        pooled = "-pool" if folds.pool else ""
        root = first.folder.parents[4] / f"folds{folds.n}{pooled}" / f"repeat{repeat}"
        name = f"{'' if seed is None else f'seed{seed}-'}best-of-{len(own)}"
        alike = {
            key: value
            for key, value in first.fields.items()
            if all(one.fields.get(key) == value for one in own)
        }
        plans.append(plan_run(first.provenance, first.protocol, name, config, alike, root))
    return plans


def _run(
    store: EmbeddingStore,
    plan: Plan,
    run: Run,
    folds: Folds,
    repeat: int,
    todo: Sequence[RunPlan],
    overwrite: bool,
) -> list[RunRecord]:
    samples = _pooled(store, folds)
    dealt = deal(
        samples.labels,
        samples.groups,
        folds,
        repeat,
        multi_label=store.info.task == MULTI_LABEL,
    )
    seeds = [one.fields.get("seed") for one in todo]
    found: dict[Any, list[_Fold]] = {seed: [] for seed in seeds}
    for number, test in enumerate(dealt):
        view = _view(store, dealt, number)
        with tempfile.TemporaryDirectory(prefix="medplus-fold-") as folder:
            own = [
                replace(one, folder=Path(folder) / one.run_id)
                for one in plan(view)
                if one.fields.get("seed") in seeds
            ]
            for record in select_best(run(view, own)):
                if record.selected:
                    saved = read_predictions(Path(record.path))
                    val = np.sort(dealt[(number + 1) % folds.n])
                    rows: dict[Split, np.ndarray] = {"val": val, "test": np.sort(test)}
                    found[record.seed].append(
                        _Fold(record, rows, saved, view.info.n_samples["train"])
                    )
    return [
        _record(one, samples, store, found[seed], folds, repeat, overwrite)
        for one, seed in zip(todo, seeds, strict=True)
    ]


@dataclass(frozen=True)
class _Fold:
    """What a fold's best setting predicted for the rows that it did not learn from."""

    record: RunRecord
    rows: dict[Split, np.ndarray]
    saved: dict[str, np.ndarray]
    n_train: int


def _view(store: EmbeddingStore, dealt: Sequence[np.ndarray], number: int) -> EmbeddingStore:
    val = (number + 1) % len(dealt)
    rest = [rows for i, rows in enumerate(dealt) if i not in (number, val)]
    parts = {"train": np.concatenate(rest), "val": dealt[val], "test": dealt[number]}
    return view_of(store, {split: np.sort(parts[split]) for split in SPLITS})


def _pooled(store: EmbeddingStore, folds: Folds) -> Samples:
    """Return what is known of the rows that are dealt out, one split after the other."""
    index = {split: store.index(split) for split in folds.splits}
    names = [
        name or f"{split}/{row}"
        for split in folds.splits
        for name, row in zip(store.names(split), index[split], strict=True)
    ]
    return Samples(
        np.concatenate([store.labels(split) for split in folds.splits]),
        np.concatenate([index[split] for split in folds.splits]),
        names=names,
        groups=[group for split in folds.splits for group in store.groups(split)],
    )


def _record(
    plan: RunPlan,
    samples: Samples,
    store: EmbeddingStore,
    own: Sequence[_Fold],
    folds: Folds,
    repeat: int,
    overwrite: bool,
) -> RunRecord:
    scores: dict[Split, np.ndarray] = {}
    baseline: dict[Split, float] = {}
    for split in EVALUATED:
        rows = np.concatenate([fold.rows[split] for fold in own])
        values = np.concatenate([fold.saved[f"{split}_score"] for fold in own])
        scores[split] = values[np.argsort(rows)]
        known = [fold.record.baseline_acc.get(split, np.nan) for fold in own]
        baseline[split] = float(np.average(known, weights=[len(f.rows[split]) for f in own]))
    metrics, predictions = score_splits(dict.fromkeys(EVALUATED, samples), scores, store.info.task)
    origin = np.repeat(folds.splits, [store.info.n_samples[split] for split in folds.splits])
    predictions |= {f"{split}_split": origin for split in EVALUATED}
    told = {split: value for split, value in baseline.items() if np.isfinite(value)}
    plan = replace(plan, provenance=plan.provenance.model_copy(update={"baseline_acc": told}))
    facts = FoldFacts(
        n=folds.n,
        repeat=repeat,
        pool=folds.pool,
        grouped=bool(samples.groups),
        n_train=[fold.n_train for fold in own],
        n_test=[len(fold.rows["test"]) for fold in own],
        acc=[fold.record.metrics["test"]["acc"] for fold in own],
        auc=[fold.record.metrics["test"].get("auc") for fold in own],
        chosen=[_chosen(fold.record) for fold in own],
    )
    seconds = sum(fold.record.seconds for fold in own)
    cost = {**own[0].record.cost, "seconds": seconds}
    record = plan.record(metrics, seconds, cost, folds=facts)
    save_run(record, predictions, overwrite=overwrite)
    return record


def _chosen(record: RunRecord) -> dict[str, float]:
    found = {name: getattr(record, name) for name in _SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
