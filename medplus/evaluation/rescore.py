"""Evaluating a run again: from a saved network or head to a record of its scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medplus.backbones.finetuned import NETWORK_FILE, is_finetuned
from medplus.cost import measure_cost
from medplus.device import resolve_device
from medplus.embeddings.container import to_place
from medplus.errors import UsageError, nearest
from medplus.evaluation.head import prepare_head
from medplus.evaluation.medmnist_csv import check_exportable, write_csv
from medplus.evaluation.network import prepare_network
from medplus.evaluation.prepared import EvaluationOptions, Prepared, match_classes
from medplus.progress import Progress, silent
from medplus.run.ledger import (
    HEAD_FILE,
    RECORD_FILE,
    claim_runs,
    evaluation_folder,
    find_run,
    save_run,
)
from medplus.run.plan import RunPlan
from medplus.run.record import RunRecord
from medplus.run.scoring import EVALUATED, Samples, score_splits
from medplus.training.loss import mean_loss, probabilities
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

log = logging.getLogger(__name__)

ALL = "all"
"""In place of splits: all of them, joined."""

_FILES = (RECORD_FILE, NETWORK_FILE, HEAD_FILE)
_KEPT = (
    "seed",
    "lr",
    "weight_decay",
    "solver",
    "strength",
    "epochs_run",
    "best_epoch",
    "network",
    "training",
)
"""What an evaluation's record has from the run's own: how what is scored was made."""


def evaluate(
    run: str | Path,
    dataset: str | Path | None = None,
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
        A MedMNIST flag, an npz file or a folder of images, with the same task and classes; by
        default what the run was made on.
    size : int, optional
        Of the images in pixels; by default the run's.
    splits : sequence of {"train", "val", "test"}, or "all"
        What to score; ``all`` joins the splits of other data into one test set.
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

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.probe(store, seeds=1, lr=0.01)
    >>> again = medplus.evaluate(run.path)
    >>> again.metrics["test"]["acc"] == run.metrics["test"]["acc"]
    True
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    pooled = list(splits) == [ALL] or splits == ALL
    if pooled and csv is not None:
        raise UsageError(f"--csv is for the official splits; leave it or --split {ALL} out")
    options = EvaluationOptions(
        dataset=None if dataset is None else str(dataset),
        size=size,
        splits=SPLITS if pooled else _check_splits(splits),
        data_root=Path(data_root),
        store_root=to_place(store),
        device=resolve_device(device),
        precision=precision,
        batch_size=batch_size,
        code=code,
        progress=progress,
    )
    folder = folder_of(Path(run))
    prepared = _matched(folder, _prepare(folder, options))
    on = prepared.provenance
    if on.dataset != prepared.record.dataset and not pooled:
        log.warning("%s: %s alone are scored; --split %s scores all of its images as one test set",
                    on.dataset, " and ".join(options.splits), ALL)  # fmt: skip
    elif pooled and on.dataset == prepared.record.dataset:
        raise UsageError(f"--split {ALL} is for other data: {folder} has learned from {on.dataset}")
    if csv is not None:
        check_exportable(on.dataset, on.size, on.classes)
    with measure_cost(options.device) as meter:
        logits = prepared.predict()
    origin = np.repeat(options.splits, [len(logits[split]) for split in options.splits])
    if pooled:
        prepared, logits = _joined(prepared, logits)
    metrics, predictions = _score(prepared, logits)
    if pooled:
        predictions["test_split"] = origin
    n_images = sum(map(len, logits.values()))
    cost = {**meter.cost(n_images), "images": n_images}
    record = _plan(prepared, folder).record(metrics, meter.seconds, cost)
    with claim_runs([Path(record.path)]):
        remedy = "free space, or make the run's folder writable"
        save_run(record, predictions, remedy=remedy)
    if csv is not None:
        write_csv(record, predictions, Path(csv))
    return record


def _matched(folder: Path, prepared: Prepared) -> Prepared:
    """Return it with labels as the run learned them, and refuse data of other classes."""
    on, many = prepared.provenance, prepared.record.task == MULTI_LABEL
    order = np.array(match_classes(folder, prepared.record, (on.dataset, on.task, on.classes)))
    samples = {}
    for split, own in prepared.samples.items():
        labels = own.labels[:, np.argsort(order)] if many else order[own.labels]
        samples[split] = replace(own, labels=labels.astype(own.labels.dtype))
    return replace(prepared, samples=samples)


def _joined(
    prepared: Prepared, logits: Mapping[Split, torch.Tensor]
) -> tuple[Prepared, Mapping[Split, torch.Tensor]]:
    """Return all splits as one test set."""
    on, parts = prepared.provenance, prepared.samples
    if on.baseline_acc:
        sizes = [len(parts[split].labels) for split in SPLITS]
        baseline = float(np.average([on.baseline_acc[split] for split in SPLITS], weights=sizes))
        on = on.model_copy(update={"baseline_acc": {"test": baseline}})
    samples: Mapping[Split, Samples] = {"test": Samples.joined(parts[split] for split in SPLITS)}
    config = {**prepared.config, "splits": ALL}
    joined = replace(prepared, provenance=on, samples=samples, config=config)
    return joined, {"test": torch.cat([logits[split] for split in SPLITS])}


def _check_splits(splits: Sequence[str]) -> tuple[Split, ...]:
    chosen = [splits] if isinstance(splits, str) else list(splits)
    for name in chosen:
        if name not in SPLITS:
            known = f"({', '.join(SPLITS)}; or {ALL}, alone)"
            raise UsageError(f"unknown split '{name}'{nearest(name, SPLITS)} {known}")
    if not chosen:
        raise UsageError("there is no split to score; name some of train, val, test with --split")
    return tuple(split for split in SPLITS if split in chosen)


def folder_of(path: Path) -> Path:
    """Return the folder of a run that is named by it, or by one of its files."""
    return path.parent if path.name in _FILES and path.is_file() else path


def _prepare(folder: Path, options: EvaluationOptions) -> Prepared:
    """Return what a run saved beside the data that it is to be scored on."""
    if is_finetuned(str(folder)):
        return prepare_network(folder, options)
    if options.code is not None:
        raise UsageError(f"--backbone {options.code} is for runs of medplus finetune; leave it out")
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
        return prepare_head(folder, record, options)
    if record.protocol == "knn":
        raise UsageError(
            f"{folder} is a kNN run, which saves nothing that could be scored on other data; "
            "run medplus knn on a store of those data"
        )
    raise no_network(folder, record)


def no_network(folder: Path, record: RunRecord) -> UsageError:
    """Return the error for a fine-tuned run without a network."""
    if record.folds is None:
        return UsageError(f"{folder} has no {NETWORK_FILE}, so there is nothing to score")
    root = folder.parents[4]
    return UsageError(
        f"{folder} joins the runs of {record.folds.n} folds, each with a network of its own; "
        f"name one of those in {root / 'fold0'}, …"
    )


def _plan(prepared: Prepared, run: Path) -> RunPlan:
    """Return the plan of the evaluation: the run's own, on these data and beside them."""
    own, on = prepared.record, prepared.provenance
    kept = {name: getattr(own, name) for name in _KEPT}
    return RunPlan(
        # A file may know less of what its labels mean: not their names, nor that they are ordered.
        on.model_copy(update={"task": own.task, "classes": own.classes}),
        own.protocol,
        own.run_id,
        evaluation_folder(run, on.dataset, on.size, on.dataset_digest),
        {**own.config, "evaluation": {"dataset_digest": on.dataset_digest, **prepared.config}},
        {**kept, "store": prepared.store},
    )


def _score(
    prepared: Prepared, logits: Mapping[Split, torch.Tensor]
) -> tuple[dict[Split, dict[str, Any]], dict[str, np.ndarray]]:
    task, n_classes = prepared.record.task, prepared.record.n_classes
    scores = {s: probabilities(rows, task == MULTI_LABEL).numpy() for s, rows in logits.items()}
    metrics, predictions = score_splits(prepared.samples, scores, task)
    if "val" in logits:  # where the run's own record has a loss too
        labels = prepared.samples["val"].labels
        metrics["val"]["loss"] = mean_loss(logits["val"], labels, n_classes, task == MULTI_LABEL)
    return metrics, predictions
