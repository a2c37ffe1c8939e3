"""Cross-validation of whole networks: each fold a run of its own, and all of them joined as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medplus.datasets.dataset import ImageDataset
from medplus.errors import UsageError
from medplus.run.folds import Fold, Folds
from medplus.run.ledger import find_run, read_predictions, tidy_run
from medplus.run.outoffold import FoldRun, save_joined
from medplus.run.plan import RunPlan, claim_missing
from medplus.run.record import RunRecord
from medplus.training.folds import images_of, pooled, rows_of
from medplus.training.plan import FinetunePlan, load_backbone


def carry_out(plan: FinetunePlan, run: RunPlan, images: ImageDataset) -> RunRecord:
    """Return the record of a planned run, which is trained unless it is finished.

    Parameters
    ----------
    images : ImageDataset
        All of them, whatever the fold.
    """
    record = None if plan.overwrite else find_run(run.folder)
    if record is not None:
        tidy_run(run.folder)
        return record
    # Fabric takes seconds to import, which a finished run does not need.
    from medplus.training.run import make_run

    own = images if plan.fold is None else images_of(images, rows_of(images, plan.fold))
    return make_run(plan, run, own, load_backbone(plan.asked, own))


def cross_validate(
    plan: FinetunePlan, images: ImageDataset, folds: Folds, only: Sequence[int] | None
) -> list[RunRecord]:
    """Train a network for each fold of each repeat, and join what they predict out of fold.

    Parameters
    ----------
    only : sequence of int or None
        The folds to train, counted from 0 through the repeats; all by default. Those of a repeat
        are joined once all are finished, whoever trained them.

    Returns
    -------
    list of RunRecord
        One per repeat that was asked for; where folds are missing, those that were asked for.

    Raises
    ------
    UsageError
        If there is no such fold, or the rows cannot be dealt out.
    """
    asked = range(len(folds)) if only is None else sorted(set(only))
    if any(not 0 <= position < len(folds) for position in asked):
        raise UsageError(
            f"--fold {asked[-1]}: the {len(folds)} folds are counted from 0 to {len(folds) - 1}"
        )
    records = []
    for repeat in sorted({position // folds.n for position in asked}):
        every = [Fold(folds, repeat, number) for number in range(folds.n)]
        joined = plan.run(images, joined=every[0])
        found = find_run(joined.folder)
        if found is not None and not plan.overwrite:
            records.append(found)
            continue
        plans = [replace(plan, fold=fold) for fold in every]
        runs = [one.run(images) for one in plans]
        own = [fold % folds.n for fold in asked if fold // folds.n == repeat]
        trained = [carry_out(plans[i], runs[i], images) for i in own]
        complete = [find_run(run.folder) for run in runs]
        done = [record for record in complete if record is not None]
        if len(done) == folds.n:
            records.append(_join(joined, images, every, done, plan.overwrite))
        else:
            records += trained
    return records


def _join(
    plan: RunPlan,
    images: ImageDataset,
    folds: Sequence[Fold],
    own: Sequence[RunRecord],
    overwrite: bool,
) -> RunRecord:
    dealt = folds[0].folds
    runs = [
        FoldRun(record, rows_of(images, fold), read_predictions(Path(record.path)))
        for fold, record in zip(folds, own, strict=True)
    ]
    origin = np.repeat(dealt.splits, [len(images.splits[split]) for split in dealt.splits])
    with claim_missing([plan], overwrite) as [record]:
        return record or save_joined(
            plan, pooled(images, dealt), origin, runs, dealt, folds[0].repeat,
            network=own[0].network, training=own[0].training,
        )  # fmt: skip
