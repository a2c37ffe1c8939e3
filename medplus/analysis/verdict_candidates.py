"""What a verdict chooses among: ways to go, each with the scores of its seeds together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.paired import share_right
from medplus.errors import MedplusError
from medplus.metrics import check
from medplus.metrics.intervals import acc_interval, student_half
from medplus.run.ledger import read_predictions
from medplus.spec import NONE, PIXELS
from medplus.vocabulary import Task


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to go, with the scores of its seeds taken together.

    Attributes
    ----------
    label : str
        Who is compared, as people read it.
    backbone, size, protocol, weights, fit, feature, lora
        What it is; `fit` and `feature` are None for raw pixels, `lora`, the rank of low-rank
        updates, where there are none.
    task : Task
        MedMNIST's task type; over datasets, the first one's.
    val_acc, test_acc : float
        Fractions; means over seeds of the runs that are best on val.
    test_acc_ci95 : tuple of two floats
        Over test images, or their patients: the mean over seeds of their records' intervals, as in
        all tables; over datasets, Student's.
    val_low : float
        The lower end of the interval of `val_acc`, over val images or their patients: the mean over
        seeds; over datasets, of the mean of independent scores [1]_.
    device_seconds : float
        Of one seed, search and extraction included; NaN where nothing was measured.
    n_seeds, n_val : int
        Seeds, and val images (over datasets, of all).
    val_auc, test_auc : float
        As `val_acc`; NaN where it is not defined.
    fixed_acc : float
        Test ACC by the paper's own k, or learning rate and weight decay; NaN where it was not
        tried, or nothing was chosen.
    runs : tuple of str
        The folders of its runs, one for each seed; none over datasets.
    hits : ndarray, shape (n_test,)
        Share of seeds that have each test image right; over datasets, the ACC of each.
    groups : ndarray, shape (n_test,), or None
        What each test image belongs to, such as a patient.

    References
    ----------
    .. [1] Zou & Donner, "Construction of confidence limits about effect measures: a general
       approach", Statistics in Medicine 27(10), 2008.
    """

    label: str
    backbone: str
    size: int
    protocol: str
    weights: str
    fit: str | None
    feature: str | None
    lora: int | None
    task: Task
    val_acc: float
    test_acc: float
    test_acc_ci95: tuple[float, float]
    val_low: float
    device_seconds: float
    n_seeds: int
    n_val: int
    val_auc: float
    test_auc: float
    fixed_acc: float
    runs: tuple[str, ...]
    hits: npt.NDArray[np.float64] = field(repr=False)
    groups: npt.NDArray[Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.label} at {self.size} px ({PROTOCOL_LABELS[self.protocol]})"

    @property
    def n_units(self) -> int:
        """Number of test images, or of their groups: of what is drawn independently."""
        return len(self.hits) if self.groups is None else len(np.unique(self.groups))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        names = ("backbone", "size", "protocol", "weights", "fit", "feature", "lora", "test_acc")
        seconds = None if math.isnan(self.device_seconds) else self.device_seconds
        return {
            **{name: getattr(self, name) for name in names},
            "test_acc_ci95": list(self.test_acc_ci95),
            "val_acc": self.val_acc,
            "device_seconds": seconds,
            "n_seeds": self.n_seeds,
            "runs": list(self.runs),
        }


def candidates_of(runs: pd.DataFrame) -> list[Candidate]:
    """Return the candidates of a dataset: its cells, as far as their predictions can be read.

    Random networks are no answer while trained ones are there.

    Parameters
    ----------
    runs : pandas.DataFrame
        What was best on val in each cell and for each seed; what has no val score takes no part.
    """
    found = []
    scored = runs[runs["val_acc"].notna()]
    for _, seeds in scored.groupby(["protocol", "backbone", "size"], sort=True):
        one = seeds.sort_values("created").iloc[-1]
        try:
            saved = [read_predictions(Path(run)) for run in seeds["run"]]
            cases = [check(each["test_true"], each["test_score"], one["task"]) for each in saved]
            hits = np.mean([share_right(each) for each in cases], axis=0)
            n_val = len(saved[0]["val_true"])
            val_low = float(np.mean([_val_low(each, one["task"]) for each in saved]))
            groups = saved[0].get("test_group")
        except (MedplusError, KeyError, ValueError):
            continue
        found.append(_candidate(one, seeds, hits, groups, n_val, val_low))
    sizes = [len(one.hits) for one in found]
    found = [one for one in found if len(one.hits) == max(set(sizes), key=sizes.count)]
    random = [one for one in found if one.weights == NONE and one.backbone != PIXELS]
    if any(one not in random and one.backbone != PIXELS for one in found):
        found = [one for one in found if one not in random]
    return found


def _val_low(saved: Mapping[str, npt.NDArray[Any]], task: Task) -> float:
    return acc_interval(check(saved["val_true"], saved["val_score"], task), saved.get("val_group"))[
        0
    ]


def _candidate(
    one: pd.Series,
    seeds: pd.DataFrame,
    hits: npt.NDArray[np.float64],
    groups: npt.NDArray[Any] | None,
    n_val: int,
    val_low: float,
) -> Candidate:
    acc = float(hits.mean())
    low, high = seeds[["acc_low", "acc_high"]].mean(skipna=False)
    network = one["network"] != PIXELS
    return Candidate(
        label=label_of(one["backbone"]),
        backbone=one["network"],
        size=int(one["size"]),
        protocol=one["protocol"],
        weights=one["weights"] or NONE,
        fit=one["fit"] if network else None,
        feature=one["feature"] or None if network else None,
        lora=int(one["lora"]) if one["lora"] else None,
        task=one["task"],
        val_acc=float(seeds["val_acc"].mean()) / 100,
        test_acc=acc,
        test_acc_ci95=(float(low) / 100, float(high) / 100),
        val_low=val_low,
        device_seconds=float(seeds["device_seconds"].mean()),
        n_seeds=len(seeds),
        n_val=n_val,
        val_auc=float(seeds["val_auc"].mean()) / 100,
        test_auc=float(seeds["auc"].mean()) / 100,
        fixed_acc=float(seeds["fixed_acc"].mean(skipna=False)) / 100,
        runs=tuple(map(str, seeds["run"])),
        hits=hits,
        groups=groups,
    )


def over_datasets(found: Mapping[str, Sequence[Candidate]]) -> list[Candidate]:
    """Return the candidates that every dataset has, each as its mean over them."""
    by_what = [{one.name: one for one in candidates} for candidates in found.values()]
    common = sorted(set.intersection(*map(set, by_what)))
    merged = []
    for what in common:
        each = [one[what] for one in by_what]
        accs = np.array([one.test_acc for one in each])
        mean, half = float(accs.mean()), float(student_half(accs))
        val_acc = float(np.mean([one.val_acc for one in each]))
        below = math.hypot(*(one.val_acc - one.val_low for one in each)) / len(each)
        merged.append(
            replace(
                each[0],
                val_acc=val_acc,
                val_low=val_acc - below,
                test_acc=mean,
                test_acc_ci95=(max(0.0, mean - half), min(1.0, mean + half)),
                device_seconds=float(np.sum([one.device_seconds for one in each])),
                n_seeds=min(one.n_seeds for one in each),
                n_val=sum(one.n_val for one in each),
                val_auc=float(np.mean([one.val_auc for one in each])),
                test_auc=float(np.mean([one.test_auc for one in each])),
                fixed_acc=float(np.mean([one.fixed_acc for one in each])),
                runs=(),
                hits=accs,
                groups=None,
            )
        )
    return merged


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best on val: of those within a standard error of the best ACC, by AUC.

    ACC takes few values on a small val set, and the highest of many is high by luck; AUC uses the
    order of all images. Of equals it is the cheapest. The rule is that of one standard error [1]_.

    References
    ----------
    .. [1] Hastie, Tibshirani & Friedman: The Elements of Statistical Learning, 2nd ed., 7.10.
    """
    top = max(candidates, key=lambda one: one.val_acc)
    error = math.sqrt(top.val_acc * (1 - top.val_acc) / top.n_val)
    near = [one for one in candidates if one.val_acc >= top.val_acc - error]

    def merit(one: Candidate) -> tuple[float, float, float]:
        auc = -1.0 if math.isnan(one.val_auc) else one.val_auc
        cost = math.inf if math.isnan(one.device_seconds) else one.device_seconds
        return (-auc, -one.val_acc, cost)

    return min(near, key=merit)
