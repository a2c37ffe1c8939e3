"""Runs and their predictions as data frames, for whoever goes on in pandas."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medplus.cost import share_of
from medplus.errors import RunError
from medplus.metrics import check
from medplus.run.ledger import read_predictions, read_record, read_runs
from medplus.run.record import RunRecord
from medplus.vocabulary import MULTI_LABEL, SPLITS

log = logging.getLogger(__name__)

_OF_RUNS = (
    "dataset", "size", "backbone", "weights", "fit", "feature", "precision", "protocol", "seed",
    "k", "metric", "vote", "solver", "strength", "lr", "weight_decay", "lora", "epochs_run",
    "best_epoch", "task",
)  # fmt: skip
_OF_SPECS = ("fit", "feature", "precision")


def runs(root: str | Path = "runs") -> pd.DataFrame:
    """Return the recorded runs under a folder.

    Parameters
    ----------
    root : str or Path

    Returns
    -------
    pandas.DataFrame
        One row per run, flat columns: what the run is (``dataset``, ``size``, ``backbone``,
        ``weights``, ``fit``, ``feature``, ``precision``, ``protocol``, ``seed``, ``k``, ``lr``, …,
        where any run has it), its scores as fractions (``val_acc``, ``test_acc``, ``test_auc``,
        ``test_acc_low``, ``test_acc_high``, …: the ends of 95 % intervals), what it cost
        (``seconds``, ``device_seconds``, of runs computed together its own share), ``created``,
        ``run_id`` and ``path``. Records that cannot be read are left out, with a warning.

    Raises
    ------
    RunError
        If the folder does not exist, or holds no run that can be read.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> runs = medplus.knn(store, k=[1, 5])
    >>> best = medplus.runs("runs").groupby("protocol")["test_acc"].max()
    >>> bool(best["knn"] > 0.5)
    True
    """
    folder = Path(root)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}; name the folder of your runs")
    records, damaged = read_runs(folder)
    for _, reason in damaged:
        log.warning("left out: %s", reason)
    rows = [_row(record) for record in records]
    if not rows:
        raise RunError(f"{folder} holds no runs; medplus knn, probe and finetune make them")
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")
    whole = [name for name in ("seed", "k", "lora", "epochs_run", "best_epoch") if name in table]
    for name in whole:  # not by pandas itself, which would make floats of them
        table[name] = pd.array([row[name] for row in rows], dtype="Int64")
    return table


def predictions(run: str | Path) -> pd.DataFrame:
    """Return what a run predicts of every val and test image.

    Parameters
    ----------
    run : str or Path
        The run's folder.

    Returns
    -------
    pandas.DataFrame
        One row per image: ``split``, ``index`` (its place in the split), ``name`` and ``group``
        where they are known, ``true`` and ``predicted`` (class names; of several labels, a tuple of
        those that are set), and the score of each class as ``p_<class>``.

    Raises
    ------
    RunError
        If the run or its predictions cannot be read.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.knn(store, k=5)
    >>> list(medplus.predictions(run.path))[:4]
    ['split', 'index', 'true', 'predicted']
    """
    folder = Path(run)
    record, saved = read_record(folder), read_predictions(folder)
    parts = [_part(record, saved, split) for split in SPLITS if f"{split}_score" in saved]
    return pd.concat(parts, ignore_index=True)


def _row(record: RunRecord) -> dict[str, Any]:
    row = {name: getattr(record.spec if name in _OF_SPECS else record, name) for name in _OF_RUNS}
    for split, scores in record.metrics.items():
        for name, value in scores.items():
            if isinstance(value, list | tuple) and name.endswith("_ci95"):
                ends = zip(("low", "high"), value, strict=True)
                row |= {f"{split}_{name.removesuffix('_ci95')}_{end}": v for end, v in ends}
            elif isinstance(value, int | float):
                row[f"{split}_{name}"] = value
    row |= share_of(record.cost)
    row["device"] = record.cost.get("device")
    return row | {"created": record.created, "run_id": record.run_id, "path": record.path}


def _part(record: RunRecord, saved: dict[str, np.ndarray], split: str) -> pd.DataFrame:
    names, score = np.array(record.classes, dtype=object), saved[f"{split}_score"]
    cases = check(saved[f"{split}_true"], score, record.task)
    columns: dict[str, Any] = {"split": split, "index": saved[f"{split}_index"]}
    for name in ("name", "group"):
        if f"{split}_{name}" in saved:
            columns[name] = saved[f"{split}_{name}"]
    if record.task == MULTI_LABEL:
        columns["true"] = [tuple(names[row == 1]) for row in cases.true]
        columns["predicted"] = [tuple(names[row == 1]) for row in cases.predicted]
    else:
        columns["true"] = names[cases.true[:, 0]]
        columns["predicted"] = names[cases.predicted[:, 0]]
    return pd.DataFrame(
        columns | {f"p_{name}": score[:, at] for at, name in enumerate(record.classes)}
    )
