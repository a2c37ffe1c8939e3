"""The verdict on a dataset: what to take, what cannot be told from it, what it costs, how sure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.results.runs import describe
from medplus.analysis.results.select import best_on_val
from medplus.errors import MedplusError
from medplus.metrics import check, resample_counts
from medplus.naming import duration
from medplus.runs.ledger import read_predictions
from medplus.spec import NONE, PIXELS
from medplus.vocabulary import Task

ALL = "all"
"""The dataset of the verdict over all of them."""
_LEVEL = 0.05
_Z = 1.959964
_POWER_Z = 0.841621  # 80 % of a normal curve
_RESAMPLES = 2000
_NAMED = 4
_FEWEST_DATASETS = 3


@dataclass(frozen=True)
class Candidate:
    """One way to go, with the scores of its seeds taken together.

    Attributes
    ----------
    backbone, size, protocol, weights, fit, feature
        What it is; `fit` and `feature` are None for raw pixels.
    val_acc, test_acc : float
        Fractions; means over seeds of the runs that are best on val.
    test_acc_ci95 : tuple of two floats
        Wilson's interval over test images [1]_; over datasets, Student's.
    device_seconds : float
        Of one seed, search and extraction included; NaN where nothing was measured.
    n_seeds, n_val : int
        Seeds, and val images (over datasets, of all).
    val_auc : float
        As `val_acc`; NaN where it is not defined.
    hits : ndarray, shape (n_test,)
        Share of seeds that have each test image right; over datasets, the ACC of each.

    References
    ----------
    .. [1] Brown, Cai & DasGupta: Interval estimation for a binomial proportion. Statistical Science
       16, 101-133 (2001).
    """

    backbone: str
    size: int
    protocol: str
    weights: str
    fit: str | None
    feature: str | None
    val_acc: float
    test_acc: float
    test_acc_ci95: tuple[float, float]
    device_seconds: float
    n_seeds: int
    n_val: int
    val_auc: float
    hits: npt.NDArray[np.float64] = field(repr=False)

    @property
    def what(self) -> tuple[Any, ...]:
        """What tells it from others."""
        return (self.backbone, self.size, self.protocol, self.weights, self.fit, self.feature)

    @property
    def name(self) -> str:
        """What it is, in words."""
        weights = ", random weights" if self.weights == NONE and self.backbone != PIXELS else ""
        fit = f", {self.fit}" if self.fit not in (None, "pad") else ""
        feature = f", {self.feature}" if self.feature not in (None, "prelogits") else ""
        label = PROTOCOL_LABELS[self.protocol]
        return f"{self.backbone} at {self.size} px ({label}{fit}{feature}{weights})"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        names = ("backbone", "size", "protocol", "weights", "fit", "feature", "test_acc")
        seconds = None if math.isnan(self.device_seconds) else self.device_seconds
        return {
            **{name: getattr(self, name) for name in names},
            "test_acc_ci95": list(self.test_acc_ci95),
            "val_acc": self.val_acc,
            "device_seconds": seconds,
            "n_seeds": self.n_seeds,
        }


@dataclass(frozen=True)
class Verdict:
    """What runs on a dataset say to somebody who has to choose.

    Attributes
    ----------
    dataset : str
    best : Candidate
        The best on val; its test scores are those of a choice that test took no part in.
    not_distinguishable : tuple of Candidate
        Those whose test ACC cannot be told from the best one's.
    cheapest : Candidate
        The cheapest of these and the best.
    n_candidates, n_test : int
    baseline_acc, pixels_acc : float or None
        Test ACC of always saying the class that train has most of; of the best head on pixels.
    smallest_detectable_difference : float or None
        The difference in ACC that these test images would have shown with 80 % power.
    sentences : tuple of str
    """

    dataset: str
    best: Candidate
    not_distinguishable: tuple[Candidate, ...]
    cheapest: Candidate
    n_candidates: int
    n_test: int
    baseline_acc: float | None
    pixels_acc: float | None
    smallest_detectable_difference: float | None
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "dataset": self.dataset,
            "best": self.best.to_dict(),
            "not_distinguishable": [one.to_dict() for one in self.not_distinguishable],
            "cheapest": self.cheapest.to_dict(),
            "n_candidates": self.n_candidates,
            "n_test": self.n_test,
            "baseline_acc": self.baseline_acc,
            "pixels_acc": self.pixels_acc,
            "smallest_detectable_difference": self.smallest_detectable_difference,
            "sentences": list(self.sentences),
        }


def verdicts_on(runs: pd.DataFrame) -> list[Verdict]:
    """Return a verdict on every dataset, and one over all where there are several.

    Random networks are no answer while trained ones are there; and nothing is chosen by test.

    Parameters
    ----------
    runs : pandas.DataFrame
        As `medplus.analysis.results.runs.read_runs` returns it. What cannot be read, or has no
        val score, takes no part.
    """
    found: dict[str, list[Candidate]] = {}
    baselines: dict[str, float | None] = {}
    for dataset, rows in runs.groupby("dataset", sort=True):
        # Images of another size are other images; of those under one name, the newest count.
        images = rows["digests"].map(lambda digests: str(digests[0]))
        by_age = rows.assign(images=images).sort_values("created")
        newest = by_age.groupby("size")["images"].transform("last")
        rows_of_newest = by_age[by_age["images"] == newest]
        candidates = _candidates(rows_of_newest)
        if candidates:
            found[str(dataset)] = candidates
            known = rows_of_newest["baseline_acc"].dropna()
            baselines[str(dataset)] = float(known.iloc[-1]) if len(known) else None
    verdicts = [_on_images(name, found[name], baselines[name]) for name in found]
    if len(found) > 1:
        over_all = _over(found, baselines)
        verdicts += [over_all] if over_all is not None else []
    return verdicts


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion, which may be a mean of several.

    Examples
    --------
    >>> low, high = wilson(1.0, 50)
    >>> round(low, 3), round(high, 3)
    (0.929, 1.0)
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * n, n, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def _holm(p_values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    adjusted: list[float] = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    return adjusted


# --- candidates -----------------------------------------------------------------------------------


def _candidates(rows: pd.DataFrame) -> list[Candidate]:
    rows = best_on_val(rows[rows["val_acc"].notna()])
    fixed = rows["conditions"].map(describe)
    found = []
    for _, seeds in rows.groupby(["protocol", "backbone", "size", "weights", fixed], sort=True):
        one = seeds.sort_values("created").iloc[-1]
        try:
            saved = [read_predictions(Path(run)) for run in seeds["run"]]
            hits = np.mean([_hits(each, one["task"]) for each in saved], axis=0)
            n_val = len(saved[0]["val_true"])
        except (MedplusError, KeyError, ValueError):
            continue
        of_network = one["backbone"] != PIXELS
        acc = float(hits.mean())
        found.append(
            Candidate(
                backbone=one["backbone"],
                size=int(one["size"]),
                protocol=one["protocol"],
                weights=one["weights"],
                fit=one["conditions"].get("fit") if of_network else None,
                feature=one["conditions"].get("feature") if of_network else None,
                val_acc=float(seeds["val_acc"].mean()) / 100,
                test_acc=acc,
                test_acc_ci95=wilson(acc, len(hits)),
                device_seconds=float(seeds["device_seconds"].mean()),
                n_seeds=len(seeds),
                n_val=n_val,
                val_auc=float(seeds["val_auc"].mean()) / 100,
                hits=hits,
            )
        )
    sizes = [len(one.hits) for one in found]
    found = [one for one in found if len(one.hits) == max(set(sizes), key=sizes.count)]
    trained = [one for one in found if one.weights != NONE and one.backbone != PIXELS]
    if trained:
        found = [one for one in found if one.weights != NONE or one.backbone == PIXELS]
    return found


def _hits(saved: Mapping[str, npt.NDArray[Any]], task: Task) -> npt.NDArray[np.float64]:
    cases = check(saved["test_true"], saved["test_score"], task)
    right: npt.NDArray[np.float64] = (cases.true == cases.predicted).mean(axis=1)
    return right


def _best(candidates: Sequence[Candidate]) -> Candidate:
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


# --- one dataset ----------------------------------------------------------------------------------


def _on_images(dataset: str, candidates: list[Candidate], baseline: float | None) -> Verdict:
    best = _best(candidates)
    others = [one for one in candidates if one is not best]
    n = len(best.hits)
    gaps = np.array([best.hits - one.hits for one in others]).reshape(-1, n)
    blocks = resample_counts(n, _RESAMPLES, 0)
    resampled = np.concatenate([gaps @ counts.astype(np.float64) for counts in blocks], axis=1) / n
    resampled = np.round(resampled, 12)
    fewer = np.minimum((resampled <= 0).sum(1), (resampled >= 0).sum(1))
    p_values = _holm(np.minimum(1, 2 * (1 + fewer) / (1 + _RESAMPLES)).tolist())
    spread = float(gaps.std(axis=1, ddof=1).min()) if len(gaps) and n > 1 else 0.0
    return _verdict(dataset, best, others, p_values, baseline, n, spread)


# --- several datasets -----------------------------------------------------------------------------


def _over(
    found: Mapping[str, list[Candidate]], baselines: Mapping[str, float | None]
) -> Verdict | None:
    """Return the verdict over datasets, of what was tried on all of them."""
    from scipy import stats

    by_what = [{one.what: one for one in candidates} for candidates in found.values()]
    common = sorted(set.intersection(*map(set, by_what)), key=str)
    if not common:
        return None
    n = len(by_what)
    merged = []
    for what in common:
        each = [one[what] for one in by_what]
        accs = np.array([one.test_acc for one in each])
        half = float(stats.t.ppf(0.975, n - 1) * accs.std(ddof=1) / math.sqrt(n))
        mean = float(accs.mean())
        merged.append(
            replace(
                each[0],
                val_acc=float(np.mean([one.val_acc for one in each])),
                test_acc=mean,
                test_acc_ci95=(max(0.0, mean - half), min(1.0, mean + half)),
                device_seconds=float(np.sum([one.device_seconds for one in each])),
                n_seeds=min(one.n_seeds for one in each),
                n_val=sum(one.n_val for one in each),
                val_auc=float(np.mean([one.val_auc for one in each])),
                hits=accs,
            )
        )
    best = _best(merged)
    others = [one for one in merged if one is not best]
    gaps = np.array([best.hits - one.hits for one in others]).reshape(-1, n)
    spread = float(gaps.std(axis=1, ddof=1).min()) if len(gaps) else 0.0
    p_values = [1.0] * len(others)
    if n >= _FEWEST_DATASETS:
        tests = [stats.ttest_1samp(gap, 0).pvalue if gap.any() else 1.0 for gap in gaps]
        p_values = _holm([1.0 if math.isnan(p) else float(p) for p in tests])
    known = [value for value in baselines.values() if value is not None]
    baseline = float(np.mean(known)) if len(known) == n else None
    return _verdict(ALL, best, others, p_values, baseline, n, spread)


# --- what is said ---------------------------------------------------------------------------------


def _verdict(
    dataset: str, best: Candidate, others: list[Candidate], p_values: Sequence[float],
    baseline: float | None, n: int, spread: float,
) -> Verdict:  # fmt: skip
    alike = [one for one, p in zip(others, p_values, strict=True) if p > _LEVEL]
    alike.sort(key=lambda one: -one.val_acc)
    priced = [one for one in (best, *alike) if not math.isnan(one.device_seconds)]
    cheapest = min(priced, key=lambda one: one.device_seconds, default=best)
    pixels = [one for one in (best, *others) if one.backbone == PIXELS]
    pixels_acc = _best(pixels).test_acc if pixels else None
    smallest = (_Z + _POWER_Z) * spread / math.sqrt(n) if spread else None
    settled = Verdict(
        dataset, best, tuple(alike), cheapest, 1 + len(others), n, baseline, pixels_acc, smallest,
        (),
    )  # fmt: skip
    sentences = [
        *_on_the_best(settled), *_on_the_choice(best, others), *_on_the_others(settled, others),
        *_on_the_cost(settled), *_on_the_power(settled, spread),
    ]  # fmt: skip
    return replace(settled, sentences=tuple(sentences))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _on_the_best(verdict: Verdict) -> list[str]:
    best = verdict.best
    low, high = (_percent(end) for end in best.test_acc_ci95)
    seeds = f", mean of {best.n_seeds} seeds" if best.n_seeds > 1 else ""
    scored = (
        f"Test ACC {_percent(best.test_acc)}, 95 % interval {low} to {high} ({verdict.n_test:,} "
        f"test images{seeds})."
    )
    if verdict.dataset == ALL:
        scored = (
            f"Mean test ACC over {verdict.n_test} datasets {_percent(best.test_acc)} "
            f"({_percent(best.hits.min())} to {_percent(best.hits.max())}{seeds})."
        )
    told = [f"Only {best.name} was tried. {scored}"]
    if verdict.n_candidates > 1:
        told = [
            f"Take {best.name}: of {verdict.n_candidates} candidates it is the best on val (by AUC "
            f"among those within a standard error of the best ACC). {scored}"
        ]
    if verdict.baseline_acc is not None:
        gain = best.test_acc - verdict.baseline_acc
        reached = best.test_acc if verdict.dataset == ALL else best.test_acc_ci95[0]
        if reached <= verdict.baseline_acc:
            told.append(
                f"It cannot be told from always saying the most frequent class "
                f"({_percent(verdict.baseline_acc)}): do not rely on it."
            )
        else:
            told.append(
                f"That is {100 * gain:.1f} points above always saying the most frequent class "
                f"({_percent(verdict.baseline_acc)})."
            )
    if verdict.pixels_acc is not None and best.backbone != PIXELS:
        gain = best.test_acc - verdict.pixels_acc
        where = "above" if gain >= 0 else "below"
        told.append(
            f"The best on raw pixels has {_percent(verdict.pixels_acc)}, so the network is "
            f"{abs(100 * gain):.1f} points {where} it."
        )
    return told


def _on_the_choice(best: Candidate, others: Sequence[Candidate]) -> list[str]:
    """Say where val is too small to choose on."""
    low = wilson(best.val_acc, best.n_val)[0]
    near = [one for one in others if one.val_acc >= low]
    if 2 * len(near) <= len(others):
        return []
    return [
        f"Val has {best.n_val:,} images, too few to choose on: {len(near)} of the {len(others)} "
        f"others have a val ACC within the interval of the best ({_percent(low)} and more)."
    ]


def _on_the_others(verdict: Verdict, others: Sequence[Candidate]) -> list[str]:
    if not others:
        return []
    alike = verdict.not_distinguishable
    over = "test images" if verdict.dataset != ALL else "datasets"
    if not alike:
        return [f"All {len(others)} others are worse on these {over} (p < 0.05 after Holm)."]
    named = ", ".join(f"{one.name} {_percent(one.test_acc)}" for one in alike[:_NAMED])
    more = f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
    return [
        f"{len(alike)} of the {len(others)} others cannot be told from it on these {over}: "
        f"{named}{more}."
    ]


def _on_the_cost(verdict: Verdict) -> list[str]:
    best, cheapest = verdict.best, verdict.cheapest
    if math.isnan(best.device_seconds):
        return []
    if cheapest is best:
        if not verdict.not_distinguishable:
            return []
        return [f"It is also the cheapest of these ({duration(best.device_seconds)})."]
    share = best.device_seconds / max(cheapest.device_seconds, 1e-9)
    return [
        f"The cheapest of these is {cheapest.name}: {duration(cheapest.device_seconds)} against "
        f"{duration(best.device_seconds)}, {share:.1f} times cheaper."
    ]


def _on_the_power(verdict: Verdict, spread: float) -> list[str]:
    smallest = verdict.smallest_detectable_difference
    if smallest is None or not verdict.not_distinguishable:
        return []
    if verdict.dataset == ALL:
        return [
            f"Over {verdict.n_test} datasets a difference of less than {100 * smallest:.1f} points "
            "goes unnoticed in one of five cases or more; more datasets would settle it."
        ]
    needed = math.ceil(((_Z + _POWER_Z) * spread / (smallest / 2)) ** 2)
    return [
        f"With {verdict.n_test:,} test images a difference of less than {100 * smallest:.1f} "
        "points goes unnoticed in one of five cases or more; to see half of it takes "
        f"{needed:,} images."
    ]
