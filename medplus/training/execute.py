"""Carrying a planned fine-tuning out: lock, training, record, and nothing half-written."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from medplus import atomic
from medplus.backbones.build import Backbone
from medplus.backbones.finetuned import NetworkDescription
from medplus.cost import describe_cost
from medplus.datasets.dataset import ImageDataset
from medplus.errors import RunError
from medplus.runs.ledger import adopt_run, find_run, finish_run, hold_run
from medplus.runs.record import RunRecord, environment
from medplus.runs.scoring import EVALUATED, score_splits
from medplus.training.folder import STATE_FILE, partial_folder
from medplus.training.job import Job, Outcome, run_job
from medplus.training.launch import launch, make_fabric
from medplus.training.network import embedding_dim
from medplus.training.plan import FinetunePlan, Settings, settled


def execute(
    plan: FinetunePlan, images: ImageDataset, backbone: Backbone, settings: Settings
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
    folder = plan.folder
    job = _job(plan, images, backbone, settings)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the run {folder} cannot be written: {error.strerror}; choose another --runs"
        ) from error
    drop = STATE_FILE if settings.keep == "best" else None
    with hold_run(folder):
        if not settings.overwrite and (record := find_run(folder)):
            return record  # another process has finished it in the meantime
        if not settings.resume and job.folder.exists():
            atomic.remove_folder(job.folder)
        atomic.remove_leftovers(job.folder)
        atomic.remove_leftovers_in(job.folder)
        if record := adopt_run(job.folder, folder, drop):
            return record
        n_parameters = sum(p.numel() for p in backbone.module.parameters())
        try:
            outcome = _run(job, images, backbone, settings)
        except BaseException:
            with suppress(OSError):
                job.folder.rmdir()  # if nothing has been saved
            raise
        truth = {split: images.splits[split].labels for split in EVALUATED}
        index = {split: np.arange(len(labels)) for split, labels in truth.items()}
        metrics, predictions = score_splits(
            truth, outcome.scores, index, images.task, settings.bootstrap
        )
        metrics["val"]["loss"] = outcome.progress.best_loss
        network = {
            "backbone": backbone.tag,
            "weights_sha256": backbone.weights_sha256,
            "dataset_digest": images.digest,
            "fit": backbone.preprocess.fit,
            "feature": backbone.feature,
            "dim": job.dim,
            "n_parameters": n_parameters,
            "precision": plan.precision,
        }
        record = _record(plan, images, backbone, settings, outcome, metrics, network)
        finish_run(job.folder, record, predictions, drop)
    return record


def _job(plan: FinetunePlan, images: ImageDataset, backbone: Backbone, settings: Settings) -> Job:
    first = torch.from_numpy(np.array(images.splits["train"].images[0]))
    dim = embedding_dim(backbone, first)
    name, tag = backbone.architecture
    description = NetworkDescription(
        run_id=plan.run_id,
        backbone=name,
        tag=tag,
        weights_sha256=backbone.weights_sha256,
        preprocess=vars(backbone.preprocess).copy(),
        feature=backbone.feature,
        dim=dim,
        dataset=images.name,
        size=images.size,
        task=images.task,
        classes=images.classes,
        epoch=0,
        val_loss=0.0,
        precision=plan.precision,
    )
    return Job(
        plan, dim, partial_folder(plan.folder), description, settings.compiled, settings.resume,
        settings.watch,
    )  # fmt: skip


def _run(job: Job, images: ImageDataset, backbone: Backbone, settings: Settings) -> Outcome:
    trackers = []
    if settings.track is not None:
        from medplus.training.tracking import open_tracker

        job.folder.mkdir(parents=True, exist_ok=True)
        experiment = f"{images.name}-{images.size}"
        trackers = [
            open_tracker(settings.track, job.folder, job.plan.run_id, experiment, job.plan.config)
        ]
    fabric = make_fabric(settings.device, settings.devices, job.plan.precision, trackers)
    if settings.devices > 1:
        return launch(fabric, run_job, job)  # the processes load their own images and networks
    return launch(fabric, run_job, job, images, backbone)


def _record(
    plan: FinetunePlan,
    images: ImageDataset,
    backbone: Backbone,
    settings: Settings,
    outcome: Outcome,
    metrics: dict[Any, dict[str, Any]],
    network: dict[str, Any],
) -> RunRecord:
    progress = outcome.progress
    images_seen = len(images.splits["train"]) * progress.epoch
    return RunRecord(
        run_id=plan.run_id,
        path=str(plan.folder),
        protocol="finetune",
        dataset=images.name,
        size=images.size,
        backbone=backbone.name,
        task=images.task,
        n_classes=images.n_classes,
        data_source=images.source,
        licence=images.licence,
        citation=images.citation,
        weights=backbone.weights,
        seed=plan.seed,
        lr=plan.recipe.lr,
        weight_decay=plan.recipe.weight_decay,
        epochs_run=progress.epoch,
        best_epoch=progress.best_epoch,
        metrics=metrics,
        seconds=progress.seconds,
        cost=describe_cost(
            settings.device,
            settings.devices,
            progress.seconds,
            progress.energy_joules,
            outcome.peaks,
            images_seen,
        ),
        config=plan.config,
        network=network,
        training=outcome.training,
        environment=environment(),
        spec=settled(plan.source.spec, images, backbone),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
