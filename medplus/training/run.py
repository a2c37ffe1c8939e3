"""Carrying a planned fine-tuning out: lock, training, record, and nothing half-written."""

from __future__ import annotations

from contextlib import suppress

from medplus import atomic
from medplus.backbones.build import Backbone
from medplus.cost import CostMeter
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.pipeline import as_tensor
from medplus.errors import writing
from medplus.run.ledger import adopt_run, find_run, finish_run, hold_run
from medplus.run.plan import RunPlan
from medplus.run.record import NetworkFacts, RunRecord
from medplus.run.scoring import EVALUATED, Samples, score_splits
from medplus.training.folder import STATE_FILE, partial_folder
from medplus.training.launch import launch, make_fabric
from medplus.training.network import embedding_dim, n_trainable
from medplus.training.plan import FinetunePlan
from medplus.training.process import train


def make_run(
    plan: FinetunePlan, run: RunPlan, images: ImageDataset, backbone: Backbone
) -> RunRecord:
    """Train what is planned, or go on with it, and return its record.

    Parameters
    ----------
    backbone : Backbone
        Ready to learn; it is changed.

    Raises
    ------
    MedplusError
        If another process trains the same run, or the run cannot be trained or written.
    KeyboardInterrupt
        If it was interrupted; the state is saved.
    """
    folder = run.folder
    partial = partial_folder(folder)
    facts = NetworkFacts(
        dim=embedding_dim(backbone, as_tensor(images, "train", slice(0, 1))[0]),
        n_parameters=sum(p.numel() for p in backbone.module.parameters()),
        n_trainable=n_trainable(backbone, plan.recipe),
    )
    with writing(f"the run {folder}", "choose another --runs"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    drop = STATE_FILE if plan.keep == "best" else None
    with hold_run(folder):
        if not plan.overwrite and (record := find_run(folder)):
            return record  # another process has finished it in the meantime
        if not plan.resume and partial.exists():
            atomic.remove_folder(partial)
        atomic.remove_leftovers(partial)
        atomic.remove_leftovers_in(partial)
        if record := adopt_run(partial, folder, drop):
            return record
        try:
            fabric = make_fabric(plan.device, plan.devices, plan.precision)
            # Several processes load images and networks of their own.
            loaded = (images, backbone) if plan.devices == 1 else ()
            found = launch(fabric, train, plan, run, facts.dim, *loaded)
        except BaseException:
            with suppress(OSError):
                partial.rmdir()  # if nothing has been saved
            raise
        samples = {split: Samples.of(images.splits[split]) for split in EVALUATED}
        metrics, predictions = score_splits(samples, found.scores, images.task)
        progress = found.progress
        metrics["val"]["loss"] = progress.best_loss
        meter = CostMeter(
            plan.device, plan.devices, progress.seconds, progress.energy_joules, found.peaks
        )
        cost = meter.cost(len(images.splits["train"]) * progress.epoch)
        record = run.record(
            metrics,
            progress.seconds,
            cost,
            epochs_run=progress.epoch,
            best_epoch=progress.best_epoch,
            network=facts,
            training=found.facts,
        )
        finish_run(partial, record, predictions, drop)
    return record
