"""Cross-validation of heads: every row is predicted by a head that neither saw nor was tuned on it.

The folds of a repeat make one run, whose test predictions are those of all rows, out of fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medplus.embeddings.derived import view_of
from medplus.embeddings.store import EmbeddingStore
from medplus.run.best import select_best
from medplus.run.folds import Folds, deal, parts_of
from medplus.run.outoffold import FoldRun, save_joined
from medplus.run.plan import RunPlan, claim_missing, plan_run
from medplus.run.record import RunRecord
from medplus.run.scoring import Samples
from medplus.vocabulary import MULTI_LABEL, Split

Plan = Callable[[EmbeddingStore], list[RunPlan]]
Made = tuple[RunRecord, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]
"""A run that has been done: its record, its predictions, and the tensors of its head, if any."""
Run = Callable[[EmbeddingStore, list[RunPlan]], Iterable[Made]]


def run_folded(
    store: EmbeddingStore, plan: Plan, run: Run, folds: Folds, overwrite: bool
) -> list[RunRecord]:
    """Cross-validate the heads on a store: one record per repeat and seed.

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
            done = iter(_run(store, plan, run, folds, repeat, todo) if todo else ())
        records += [record or next(done) for record in found]
    return records


def deal_store(store: EmbeddingStore, folds: Folds, repeat: int) -> list[np.ndarray]:
    """Return the rows of every fold of a store, counted over its splits one after the other."""
    return _deal(store, pooled(store, folds), folds, repeat)


def _deal(store: EmbeddingStore, samples: Samples, folds: Folds, repeat: int) -> list[np.ndarray]:
    many = store.info.task == MULTI_LABEL
    return deal(samples.labels, samples.groups, folds, repeat, multi_label=many)


def sample_names(store: EmbeddingStore, splits: Sequence[Split]) -> list[str]:
    """Return a name for each row, one split after the other: its file's, or its place."""
    return [
        name or f"{split}/{row}"
        for split in splits
        for name, row in zip(store.names(split), store.index(split), strict=True)
    ]


def pooled(store: EmbeddingStore, folds: Folds) -> Samples:
    """Return what is known of the rows that are dealt out, one split after the other."""
    return Samples(
        np.concatenate([store.labels(split) for split in folds.splits]),
        np.concatenate([store.index(split) for split in folds.splits]),
        names=sample_names(store, folds.splits),
        groups=[group for split in folds.splits for group in store.groups(split)],
    )


def _plans(settings: Sequence[RunPlan], folds: Folds, repeat: int) -> list[RunPlan]:
    """Return a plan per seed, which has all the settings that a fold chooses from."""
    by_seed: dict[int | None, list[RunPlan]] = {}
    for one in settings:
        by_seed.setdefault(one.fields.get("seed"), []).append(one)
    plans = []
    for seed, own in by_seed.items():
        first = own[0]
        dealt = folds.facts(repeat)
        config = {**first.config, "folds": dealt, "settings": [one.config for one in own]}
        name = f"{'' if seed is None else f'seed{seed}-'}best-of-{len(own)}"
        alike = {
            key: value
            for key, value in first.fields.items()
            if all(one.fields.get(key) == value for one in own)
        }
        root = folds.root(first.folder.parents[4], repeat)
        plans.append(plan_run(first.provenance, first.protocol, name, config, alike, root))
    return plans


def _run(
    store: EmbeddingStore,
    plan: Plan,
    run: Run,
    folds: Folds,
    repeat: int,
    todo: Sequence[RunPlan],
) -> list[RunRecord]:
    samples = pooled(store, folds)
    dealt = _deal(store, samples, folds, repeat)
    seeds = [one.fields.get("seed") for one in todo]
    found: dict[Any, list[FoldRun]] = {seed: [] for seed in seeds}
    for number in range(folds.n):
        rows = parts_of(dealt, number)
        view = view_of(store, rows)
        made = list(run(view, [one for one in plan(view) if one.fields.get("seed") in seeds]))
        for record, (_, *saved) in zip(select_best([m[0] for m in made]), made, strict=True):
            if record.selected:
                found[record.seed].append(FoldRun(record, rows, *saved))
    origin = np.repeat(folds.splits, [store.info.n_samples[split] for split in folds.splits])
    return [
        save_joined(one, samples, origin, found[seed], folds, repeat)
        for one, seed in zip(todo, seeds, strict=True)
    ]
