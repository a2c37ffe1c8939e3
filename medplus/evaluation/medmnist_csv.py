"""Predictions as the CSV files of MedMNIST's evaluator.

`medmnist.Evaluator.parse_and_evaluate` reads them: the name tells dataset, size and split, every
line holds the sample's index and its scores, and there is no header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medplus import atomic
from medplus.datasets import catalog
from medplus.errors import UsageError, writing
from medplus.run.record import RunRecord
from medplus.vocabulary import SIZES, Split


def check_exportable(dataset: str, size: int, classes: Sequence[str]) -> None:
    """Refuse data that MedMNIST's evaluator does not know.

    Raises
    ------
    UsageError
        If the dataset is not one of MedMNIST's, or has not one of its four sizes.
    """
    remedy = "leave --csv out; predictions.npz holds the same scores"
    if dataset not in catalog.FLAGS:
        raise UsageError(f"MedMNIST's evaluator knows no dataset '{dataset}'; {remedy}")
    if size not in SIZES:
        raise UsageError(f"MedMNIST's evaluator knows no {dataset} of {size} px; {remedy}")
    known = len(catalog.info(dataset).classes)
    if len(classes) != known:
        raise UsageError(
            f"MedMNIST's {dataset} has {known} classes, these data have {len(classes)}; {remedy}"
        )


def write_csv(
    record: RunRecord, predictions: Mapping[str, np.ndarray], folder: Path
) -> dict[Split, Path]:
    """Write one file per scored split, and return their paths.

    Parameters
    ----------
    record : RunRecord
        Of an evaluation on one of MedMNIST's datasets.
    predictions : mapping of str to ndarray
        What its ``predictions.npz`` holds. For binary tasks the evaluator takes the last of the
        two columns, the score of class 1, against 0.5.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    import pandas as pd

    paths: dict[Split, Path] = {}
    for split in record.metrics:
        path = folder / file_name(record, split)
        table = pd.DataFrame(predictions[f"{split}_score"], predictions[f"{split}_index"])
        # Nine significant digits tell any two float32 apart.
        text = table.to_csv(header=False, float_format="%.9g")
        with writing(path, "free space or name another folder with --csv"):
            folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, text.encode())
        paths[split] = path
    return paths


def file_name(record: RunRecord, split: Split) -> str:
    """Return a file's name: ``{flag}[_{size}]_{split}_[AUC]0.900_[ACC]0.800@{run}.csv``."""
    stem = Path(catalog.info(record.dataset).filename(record.size)).stem
    scores = record.metrics[split]
    area = math.nan if scores["auc"] is None else scores["auc"]
    # The evaluator takes what stands between '@' and the next '.' for the name of the run.
    run = "".join(c if c.isalnum() or c in "_-" else "_" for c in record.run_id)
    return f"{stem}_{split}_[AUC]{area:.3f}_[ACC]{scores['acc']:.3f}@{run}.csv"
