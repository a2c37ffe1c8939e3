"""Evaluating a run again: from a saved network or head to a record of its scores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medplus.backbones.finetuned import NETWORK_FILE, is_finetuned
from medplus.cost import CostMeter, measure_cost
from medplus.device import resolve_device
from medplus.embeddings.store import to_place
from medplus.errors import UsageError, nearest
from medplus.evaluation.head import head_trial
from medplus.evaluation.medmnist_csv import check_exportable, write_csv
from medplus.evaluation.network import network_trial
from medplus.evaluation.trial import Request, Trial, check_labelling
from medplus.progress import Progress, silent
from medplus.runs.ledger import (
    HEAD_FILE,
    RECORD_FILE,
    claim_runs,
    evaluation_folder,
    find_run,
    save_run,
)
from medplus.runs.record import RunRecord, environment
from medplus.runs.scoring import EVALUATED, score_splits
from medplus.training.loss import make_targets, probabilities, sample_losses
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

_FILES = (RECORD_FILE, NETWORK_FILE, HEAD_FILE)


def evaluate(
    run: str | Path,
    dataset: str | None = None,
    size: int | None = None,
    *,
    splits: Sequence[str] = EVALUATED,
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    code: str | None = None,
    csv: str | Path | None = None,
    bootstrap: int | None = None,
    progress: Progress = silent,
) -> RunRecord:
    """Score a run's saved network or head, on its own dataset or on another of the same classes.

    On its own dataset the scores are those that the run recorded. Record and predictions are kept
    in the run's folder under ``evaluations``; evaluating again replaces them.

    Parameters
    ----------
    run : str or Path
        The folder of a run of `medplus.finetune`, finished or under way (``….partial``), or of
        `medplus.probe`.
    dataset : str, optional
        A MedMNIST flag or the path of an npz file, with the same task and classes; by default
        what the run was made on.
    size : int, optional
        Of the images in pixels; by default the run's.
    splits : sequence of {"train", "val", "test"}
        What to score.
    data_root, store : str or Path
        Folder of the datasets, which a network is scored on, and root of the embedding stores,
        which a head is scored on.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    precision : {"auto", "fp32", "bf16", "fp16"}, optional
        Of the network; by default what it was trained at.
    batch_size : int, optional
        Images per forward; automatic by default, and halved when memory runs out.
    code : str, optional
        The Python file that defines the network, where one did: no run names code to be run.
    csv : str or Path, optional
        A folder that also gets the predictions as MedMNIST's evaluator reads them.
    bootstrap : int, optional
        Resamples for the confidence intervals; chosen by cost by default, 0 for none.
    progress : Progress
        Where to report images.

    Returns
    -------
    RunRecord
        Like the run's own, with the data and the metrics of this evaluation.

    Raises
    ------
    MedplusError
        UsageError for a path that is no run, a run that saved nothing to score, or data of other
        classes; DatasetError, StoreError, BackboneError or RunError for damaged or missing files.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    request = Request(
        dataset=dataset,
        size=size,
        splits=_check_splits(splits),
        data_root=Path(data_root),
        store_root=to_place(store),
        device=resolve_device(device),
        precision=precision,
        batch_size=batch_size,
        code=code,
        progress=progress,
    )
    folder = _folder_of(Path(run))
    trial = _open(folder, request)
    check_labelling(folder, trial.learned, trial.found)
    if csv is not None:
        check_exportable(trial.dataset, trial.size, trial.found.classes)
    with measure_cost(request.device) as meter:
        logits = trial.predict()
    metrics, predictions = _score(trial, logits, bootstrap)
    record = _record(trial, folder, request, metrics, meter)
    with claim_runs([Path(record.path)]):
        save_run(
            record,
            predictions,
            overwrite=True,
            remedy="free space, or make the run's folder writable",
        )
    if csv is not None:
        write_csv(record, predictions, Path(csv))
    return record


def _check_splits(splits: Sequence[str]) -> tuple[Split, ...]:
    chosen = [splits] if isinstance(splits, str) else list(splits)
    for name in chosen:
        if name not in SPLITS:
            raise UsageError(f"unknown split '{name}'{nearest(name, SPLITS)} (train, val, test)")
    if not chosen:
        raise UsageError("there is no split to score; name some of train, val, test with --split")
    return tuple(split for split in SPLITS if split in chosen)


def _folder_of(path: Path) -> Path:
    """Return the folder of a run that is named by it, or by one of its files."""
    return path.parent if path.name in _FILES and path.is_file() else path


def _open(folder: Path, request: Request) -> Trial:
    """Return the trial of what a run saved."""
    if is_finetuned(str(folder)):
        return network_trial(folder, request)
    if request.code is not None:
        raise UsageError(f"--backbone {request.code} is for runs of medplus finetune; leave it out")
    record = find_run(folder) if folder.is_dir() else None
    if record is None and folder.suffix == ".partial":
        raise UsageError(f"{folder} has no {NETWORK_FILE} yet; let it train an epoch first")
    if record is None:
        what = "is no run" if folder.exists() else "does not exist"
        raise UsageError(
            f"{folder} {what}; name the folder of a run of medplus finetune or medplus probe, "
            f"which holds {NETWORK_FILE} or {HEAD_FILE}"
        )
    if record.protocol == "probe":
        return head_trial(folder, record, request)
    if record.protocol == "knn":
        raise UsageError(
            f"{folder} is a kNN run, which saves nothing that could be scored on other data; "
            "run medplus knn on a store of those data"
        )
    raise UsageError(f"{folder} has no {NETWORK_FILE}, so there is nothing to score")


def _score(
    trial: Trial, logits: Mapping[Split, torch.Tensor], bootstrap: int | None
) -> tuple[dict[Split, dict[str, Any]], dict[str, np.ndarray]]:
    task, n_classes = trial.learned.task, len(trial.learned.classes)
    multi_label = task == MULTI_LABEL
    scores = {split: probabilities(rows, multi_label).numpy() for split, rows in logits.items()}
    metrics, predictions = score_splits(
        trial.truth, scores, trial.index, task, bootstrap, tuple(logits)
    )
    if "val" in logits:  # where the run's own record has a loss too
        labels = torch.from_numpy(trial.truth["val"].astype(np.int64))
        targets = make_targets(labels, n_classes, multi_label)
        losses = sample_losses(logits["val"], targets, multi_label)
        metrics["val"]["loss"] = float(losses.double().mean())
    return metrics, predictions


def _record(
    trial: Trial,
    folder: Path,
    request: Request,
    metrics: dict[Split, dict[str, Any]],
    meter: CostMeter,
) -> RunRecord:
    n_images = sum(len(trial.truth[split]) for split in request.splits)
    own = trial.record
    return own.model_copy(
        update={
            "path": str(evaluation_folder(folder, trial.dataset, trial.size, trial.digest)),
            "dataset": trial.dataset,
            "size": trial.size,
            "data_source": trial.data_source,
            "licence": trial.licence,
            "citation": trial.citation,
            "metrics": metrics,
            "seconds": meter.seconds,
            "cost": {**meter.cost(n_images), "images": n_images},
            "config": {
                **own.config,
                "evaluation": {"dataset_digest": trial.digest, **trial.config},
            },
            "environment": environment(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **trial.changes,
        }
    )
