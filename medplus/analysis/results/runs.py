"""From the records under a runs folder to one row per run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from medplus.analysis.format import percentage
from medplus.analysis.results.cells import AVERAGE, KEYS
from medplus.cost import share_of
from medplus.curves.kept import Curve, list_curves, read_curve
from medplus.embeddings.info import read_info
from medplus.errors import MedplusError, RunError
from medplus.run import ledger
from medplus.run.folds import FOLDED
from medplus.run.record import RunRecord
from medplus.spec import PIXELS

ROWS, ALL_ROWS = "rows", "all"
"""The condition of runs that leave samples out, and what it is where it is not told."""

TUNED: Mapping[str, tuple[str, ...]] = {"knn": ("k",), "probe": ("lr", "weight_decay", "strength")}
"""Per protocol, what a search over the recipe varies."""

ANY = "any"
"""The condition of raw pixels, which have no weights and nothing to compute."""

RUN_COLUMNS = [
    *KEYS, "seed", "acc", "auc", "acc_low", "acc_high", "val_acc", "val_auc", "device_seconds",
    "extraction_seconds", "device", "run", "run_id", "created", "conditions", "digests", "task",
    "licence", "citation", "warnings", "weights", "weights_licence", "baseline_acc",
]  # fmt: skip
"""Columns of a table of runs. Scores are of test (but `val_acc`, `val_auc`), in percent; `seed` is
a nullable integer, as seeds have up to 63 bits and kNN has none; `device_seconds` is the full cost
of the run, its extraction included, which is `extraction_seconds` of it; `conditions` maps names to
values, and runs are alike where all of them are equal; `digests` are those of the images and of the
weights; `warnings` are those of the data card; `baseline_acc` is the test ACC, a fraction, of
always saying the most frequent class of train."""


@dataclass(frozen=True)
class Runs:
    """What a runs folder holds.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns `RUN_COLUMNS`.
    skipped : tuple of (str, str)
        Records that could not be read, and why.
    folded : tuple of RunRecord
        Cross-validated runs, of this folder or below its ``folds…/repeat…``.
    curves : tuple of Curve
        Learning curves, of its ``curves``.
    """

    table: pd.DataFrame
    skipped: tuple[tuple[str, str], ...]
    folded: tuple[RunRecord, ...] = ()
    curves: tuple[Curve, ...] = ()


def read_runs(root: Path) -> Runs:
    """Read every record under a folder; damaged ones are skipped, and told.

    Raises
    ------
    RunError
        If the folder does not exist, or holds no run that can be read.
    """
    if not root.is_dir():
        raise RunError(
            f"there is no folder {root}; name that of your runs, or none for the paper's own "
            "numbers: medplus report --out DIR"
        )
    _extraction_seconds.cache_clear()  # stores may have been extracted again
    records, damaged = ledger.read_runs(root)
    skipped = [(str(folder), reason) for folder, reason in damaged]
    rows, folded = [], []
    for record in records:
        try:
            rows.append(_row(record))
            folded += [record] if record.folds is not None else []
        except RunError as error:
            skipped.append((record.path, str(error)))
        except KeyError as error:
            skipped.append((record.path, f"its record lacks {error}"))
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            skipped.append((record.path, f"its record is damaged ({error})"))
    if not rows:
        repeats = sorted(root.glob(FOLDED))
        if repeats and not skipped:
            raise RunError(
                f"{root} holds runs over folds alone, of which each repeat has a report of its "
                f"own: medplus report {repeats[0]} --out DIR"
            )
        many = f"; {len(skipped)} could not be read, the first: {skipped[0][1]}" if skipped else ""
        raise RunError(
            f"{root} holds no runs{many}; medplus knn, probe and finetune make them, "
            "and medplus report --out DIR, which tells of the paper, needs none"
        )
    table = pd.DataFrame(rows, columns=RUN_COLUMNS)
    # Not by pandas itself, which would make floats of seeds beside missing ones.
    table["seed"] = pd.array([row["seed"] for row in rows], dtype="Int64")
    for repeat in sorted(root.glob(FOLDED)):
        records, damaged = ledger.read_runs(repeat)
        folded += records
        skipped += [(str(folder), reason) for folder, reason in damaged]
    curves: list[Curve] = []
    for path in list_curves(root):
        try:
            curves.append(read_curve(path))
        except RunError as error:
            skipped.append((str(path), str(error)))
    return Runs(table, tuple(sorted(skipped)), tuple(folded), tuple(curves))


def describe(conditions: Mapping[str, str]) -> str:
    """Return conditions as one line."""
    return ", ".join(f"{name} {value}" for name, value in conditions.items())


def _row(record: RunRecord) -> dict[str, Any]:
    if record.dataset == AVERAGE:
        raise RunError(f"a dataset cannot be named '{AVERAGE}' beside the averages; rename it")
    test, val = record.metrics["test"], record.metrics.get("val", {})
    if not 0 <= test["acc"] <= 1:
        raise ValueError(f"a test ACC of {test['acc']}")
    low, high = test.get("acc_ci95") or (None, None)
    store = record.store
    extraction = 0.0 if store is None else _extraction_seconds(store.path, store.key)
    return {
        "dataset": record.dataset,
        "protocol": record.protocol,
        "backbone": record.backbone,
        "size": record.size,
        "seed": record.seed,
        "acc": percentage(test["acc"]),
        "auc": percentage(test.get("auc")),
        "acc_low": percentage(low),
        "acc_high": percentage(high),
        "val_acc": percentage(val.get("acc")),
        "val_auc": percentage(val.get("auc")),
        "device_seconds": _own_seconds(record) + extraction,
        "extraction_seconds": extraction,
        "device": record.cost.get("device", ""),
        "run": record.path,
        "run_id": record.run_id,
        "created": record.created,
        "conditions": _conditions(record),
        "digests": (record.dataset_digest, record.weights_sha256),
        "task": record.task,
        "licence": record.licence,
        "citation": record.citation,
        "warnings": tuple(record.warnings),
        "weights": record.weights,
        "weights_licence": record.weights_licence,
        "baseline_acc": test.get("baseline_acc", float("nan")),
    }


def _conditions(record: RunRecord) -> dict[str, str]:
    network = record.backbone != PIXELS
    conditions = {
        "data": record.data_source,
        # Which weights a network was trained to does not matter here: that is what is compared.
        "weights": ("random" if record.weights == "none" else "trained") if network else ANY,
        "fit": record.spec.fit if network else ANY,
        "precision": record.spec.precision if network else ANY,
    }
    if record.store is not None:
        conditions["dtype"] = record.spec.dtype if network else ANY
        conditions["feature"] = record.spec.feature if network else ANY
    config = dict(record.config)
    if ROWS in config:
        conditions[ROWS] = f"without {config[ROWS][:8]}"
    recipe = config.pop("recipe", {})
    for name in (
        "metric",
        "vote",
        "k",
        "solver",
        "strength",
        "lr",
        "weight_decay",
        "epochs",
        "batch_size",
        "patience",
    ):
        if name in config:
            conditions[name] = config[name]
    if record.protocol == "finetune":
        recipe = {**recipe, "devices": config.get("devices", 1)}
        recipe.pop("precision", None)  # stands above, as it was settled
        conditions.update(recipe)
    return {name: as_text(value) for name, value in conditions.items()}


def as_text(value: Any) -> str:
    """Return the value of a condition as it is compared and shown."""
    return value if isinstance(value, str) else json.dumps(value)


def _own_seconds(record: RunRecord) -> float:
    """Return what a run has cost without its extraction: its share of a common computation."""
    return share_of(record.cost).get("device_seconds", float("nan"))


@lru_cache(maxsize=4096)
def _extraction_seconds(path: str, key: str) -> float:
    """Return the cost of a store; NaN where it is no longer there, or is another one."""
    try:
        info = read_info(Path(path))
    except MedplusError:
        return float("nan")
    cost = info.cost.get("device_seconds", info.cost.get("seconds"))
    return float("nan") if cost is None or info.key != key else float(cost)
