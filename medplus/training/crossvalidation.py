"""Cross-validation of whole networks: each fold a run of its own, and all of them joined as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medplus.config import FinetuneRecipe
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.provenance import settle
from medplus.errors import UsageError
from medplus.jsonfile import digest_of
from medplus.run.folds import Fold, Folds
from medplus.run.ledger import find_run, read_predictions, tidy_run
from medplus.run.outoffold import FoldRun, save_joined
from medplus.run.plan import RunPlan, claim_missing
from medplus.run.record import RunRecord
from medplus.spec import ExtractSpec
from medplus.training.folds import described, images_of, pooled, rows_of
from medplus.training.plan import FinetunePlan, load_backbone, plan_finetune
from medplus.vocabulary import SPLITS


@dataclass(frozen=True)
class Way:
    """One network on one dataset with one recipe and seed: what is trained, on whichever rows.

    Attributes
    ----------
    spec, images, recipe, seed, devices, recipe_name, runs
        As `plan_finetune` takes them; `spec` as it was asked for.
    new_plan : callable
        Makes a `FinetunePlan` with all that does not determine the result.
    """

    spec: ExtractSpec
    images: ImageDataset
    recipe: FinetuneRecipe
    seed: int
    devices: int
    recipe_name: str
    runs: Path
    new_plan: Callable[..., FinetunePlan]

    def plan(self, fold: Fold | None = None, joined: Fold | None = None) -> RunPlan:
        """Return the plan of a run on the official splits, on a fold, or of all folds joined."""
        images, runs, facts = self.images, self.runs, None
        if fold is not None:
            rows = rows_of(images, fold)
            images, runs = described(images, rows), fold.root(runs)
            digest = digest_of({split: rows[split].tolist() for split in SPLITS})
            facts = {**fold.facts, "rows": digest}
        elif joined is not None:
            runs = joined.folds.root(runs, joined.repeat)
            facts = joined.folds.facts(joined.repeat)
        backbone = load_backbone(self.spec, images)
        precision = self.recipe.precision
        assert precision != "auto"  # it is settled
        spec = settle(self.spec, images, backbone, precision, dtype=None)
        return plan_finetune(
            spec, images, backbone, self.recipe, self.seed, self.devices, self.recipe_name, runs,
            facts,
        )  # fmt: skip

    def run(self, plan: RunPlan, overwrite: bool, fold: Fold | None = None) -> RunRecord:
        """Return the record of a run, which is trained unless it is finished."""
        record = None if overwrite else find_run(plan.folder)
        if record is not None:
            tidy_run(plan.folder)
            return record
        # Fabric takes seconds to import, which a finished run does not need.
        from medplus.training.run import make_run

        images = self.images if fold is None else images_of(self.images, rows_of(self.images, fold))
        whole = self.new_plan(plan, self.recipe, self.spec, fold=fold)
        return make_run(whole, images, load_backbone(self.spec, images))


def cross_validate(
    way: Way, folds: Folds, only: Sequence[int] | None, overwrite: bool
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
        joined = way.plan(joined=every[0])
        found = find_run(joined.folder)
        if found is not None and not overwrite:
            records.append(found)
            continue
        plans = [way.plan(fold) for fold in every]
        own = [fold for fold in asked if fold // folds.n == repeat]
        trained = [way.run(plans[i % folds.n], overwrite, every[i % folds.n]) for i in own]
        complete = [find_run(plan.folder) for plan in plans]
        done = [record for record in complete if record is not None]
        if len(done) == folds.n:
            records.append(_join(way, joined, every, done, overwrite))
        else:
            records += trained
    return records


def _join(
    way: Way, plan: RunPlan, folds: Sequence[Fold], own: Sequence[RunRecord], overwrite: bool
) -> RunRecord:
    dealt = folds[0].folds
    runs = [
        FoldRun(record, rows_of(way.images, fold), read_predictions(Path(record.path)))
        for fold, record in zip(folds, own, strict=True)
    ]
    origin = np.repeat(dealt.splits, [len(way.images.splits[split]) for split in dealt.splits])
    with claim_missing([plan], overwrite) as [record]:
        return record or save_joined(
            plan, pooled(way.images, dealt), origin, runs, dealt, folds[0].repeat,
            network=own[0].network, training=own[0].training,
        )  # fmt: skip
