"""The verdict on a dataset: what to take, what cannot be told from it, what it costs, how sure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.format import interval
from medplus.analysis.holm import holm
from medplus.analysis.learning_curves import curve_sentence
from medplus.analysis.over_folds import fold_sentence
from medplus.analysis.paired import p_values, resampled_means
from medplus.analysis.robustness import verdict_sentence
from medplus.analysis.section import Section
from medplus.analysis.table import Kind, Table
from medplus.analysis.verdict_candidates import Candidate, best_of, candidates_of, over_datasets
from medplus.analysis.verdict_sentences import ALL, POWER, sentences_of
from medplus.naming import duration
from medplus.run.ledger import read_record
from medplus.spec import PIXELS

_LEVEL = 0.05
_RESAMPLES = 2000
_FEWEST_DATASETS = 3


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
    better, worse : tuple of Candidate
        Those whose test ACC is higher, or lower, as far as can be told.
    cheapest : Candidate
        The cheapest of the former and the best.
    n_candidates, n_test : int
    baseline_acc, pixels_acc : float or None
        Test ACC of always saying the class that train has most of; of the best head on pixels.
    smallest_detectable_difference : float or None
        The difference in ACC from a typical other candidate that these test images would have shown
        with 80 % power; None where so few show none, however large.
    sentences : tuple of str
    """

    dataset: str
    best: Candidate
    not_distinguishable: tuple[Candidate, ...]
    better: tuple[Candidate, ...]
    worse: tuple[Candidate, ...]
    cheapest: Candidate
    n_candidates: int
    n_test: int
    baseline_acc: float | None
    pixels_acc: float | None
    smallest_detectable_difference: float | None
    sentences: tuple[str, ...]

    @property
    def shows_nothing(self) -> bool:
        """Whether test images, their groups, or datasets are so few that no p is below 0.05."""
        if self.n_candidates > 1 and self.dataset == ALL:
            return self.n_test < _FEWEST_DATASETS
        return (self.n_candidates - 1) * 2.0 ** (1 - self.best.n_units) > _LEVEL

    @property
    def beats_majority(self) -> bool:
        """Whether the best one can be told from always saying the most frequent class."""
        best = self.best
        reached = best.test_acc if self.dataset == ALL else best.test_acc_ci95[0]
        return self.baseline_acc is None or reached > self.baseline_acc

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {name: value for name, value in vars(self).items() if name != "worse"}
        return told | {
            "best": self.best.to_dict(),
            "beats_majority": self.beats_majority,
            "not_distinguishable": [one.to_dict() for one in self.not_distinguishable],
            "better": [one.to_dict() for one in self.better],
            "cheapest": self.cheapest.to_dict(),
            "sentences": list(self.sentences),
        }


@dataclass(frozen=True)
class Answer(Section):
    """The section that a report begins with.

    Attributes
    ----------
    verdicts : tuple of Verdict
    """

    verdicts: tuple[Verdict, ...] = ()


def verdict(benchmark: Benchmark) -> Answer | None:
    """Return what to take; None for published numbers, and where nothing was scored on val."""
    found = () if benchmark.chosen is None else verdicts_on(benchmark.chosen)
    verdicts = tuple(_with_what_else_is_known(one, benchmark) for one in found)
    if not verdicts:
        return None
    rows = pd.DataFrame([row for one in verdicts for row in _rows(one)])
    caption = "Candidates, chosen on val; ACC in percent, cost of one seed with its search"
    shown = rows.assign(
        backbone=rows["label"],
        ci95=[interval(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)],
        cost=rows["device_seconds"].map(lambda s: "" if math.isnan(s) else duration(s)),
    )
    blocks = [
        block
        for dataset, of_it in shown.groupby("dataset", sort=False)
        for block in Table.of("", f"{caption}: {dataset}", of_it, _SHOWN).blocks
    ]
    kinds: Mapping[str, Kind] = {"fixed_acc": "percent"}
    return Answer(
        name="verdict",
        title="Verdict",
        short="Verdict",
        tables=(Table.of("verdict", "", rows, _COLUMNS, kinds=kinds, blocks=blocks),),
        verdicts=verdicts,
    )


def _with_what_else_is_known(one: Verdict, benchmark: Benchmark) -> Verdict:
    """Add a sentence on folds and one on more labels, where the best one has been asked."""
    if not one.best.runs or not (benchmark.folded or benchmark.curves):
        return one
    record = read_record(Path(one.best.runs[0]))
    told = (ask(benchmark, one.best, record) for ask in (fold_sentence, curve_sentence))
    return replace(one, sentences=(*one.sentences, *(said for said in told if said is not None)))


_SHOWN = "verdict backbone size protocol val_acc test_acc ci95 cost"
_COLUMNS = (
    "dataset verdict backbone size protocol weights fit feature lora val_acc test_acc low "
    "high device_seconds n_seeds fixed_acc"
)


_OF_CANDIDATES = (
    "backbone", "size", "protocol", "weights", "fit", "feature", "lora", "device_seconds",
    "n_seeds",
)  # fmt: skip


def _rows(verdict: Verdict) -> Iterator[dict[str, Any]]:
    said = {id(one): "not told apart" for one in verdict.not_distinguishable}
    said |= {id(one): "better on test" for one in verdict.better}
    said[id(verdict.cheapest)] = "not told apart, cheapest"
    taken = "take this" if verdict.beats_majority else "best on val, not recommended"
    said[id(verdict.best)] = taken if verdict.n_candidates > 1 else "the only one"
    for one in (verdict.best, *verdict.not_distinguishable, *verdict.better, *verdict.worse):
        low, high = one.test_acc_ci95
        percent = {name: getattr(one, name) for name in ("val_acc", "test_acc", "fixed_acc")}
        yield {
            "dataset": verdict.dataset,
            "verdict": said.get(id(one), "worse"),
            "label": one.label,
            **{name: getattr(one, name) for name in _OF_CANDIDATES},
            **{name: 100 * share for name, share in percent.items()},
            "low": 100 * low,
            "high": 100 * high,
        }


def verdicts_on(runs: pd.DataFrame) -> tuple[Verdict, ...]:
    """Return a verdict on every dataset, and one over all where there are several.

    Random networks are no answer while trained ones are there; and nothing is chosen by test.

    Parameters
    ----------
    runs : pandas.DataFrame
        What was best on val in each cell; see `medplus.analysis.results.select`.
    """
    found: dict[str, list[Candidate]] = {}
    baselines: dict[str, float | None] = {}
    for dataset, rows in runs.groupby("dataset", sort=True):
        if candidates := candidates_of(rows):
            found[str(dataset)] = candidates
            known = rows.sort_values("created")["baseline_acc"].dropna()
            baselines[str(dataset)] = float(known.iloc[-1]) if len(known) else None
    verdicts = [_on_images(name, found[name], baselines[name]) for name in found]
    if len(found) > 1 and (common := over_datasets(found)):
        verdicts.append(_over(common, baselines))
    return tuple(verdicts)


def _on_images(dataset: str, candidates: list[Candidate], baseline: float | None) -> Verdict:
    best, others, gaps, spread = _against_best(candidates)
    n = len(best.hits)
    resampled = np.round(resampled_means(gaps, _RESAMPLES, 0, best.groups), 12)
    corrected = holm(p_values(gaps, resampled, best.groups)).tolist()
    if best.groups is not None and len(gaps):
        spread = float(np.median(resampled.std(axis=1))) * math.sqrt(n)
    return _verdict(dataset, best, others, corrected, baseline, n, spread)


def _over(merged: list[Candidate], baselines: Mapping[str, float | None]) -> Verdict:
    """Return the verdict over datasets, of what was tried on all of them."""
    from scipy import stats

    n = len(baselines)
    best, others, gaps, spread = _against_best(merged)
    corrected = [1.0] * len(others)
    if n >= _FEWEST_DATASETS:
        tests = [stats.ttest_1samp(gap, 0).pvalue if gap.any() else 1.0 for gap in gaps]
        corrected = holm([1.0 if math.isnan(p) else float(p) for p in tests]).tolist()
    known = [value for value in baselines.values() if value is not None]
    baseline = float(np.mean(known)) if len(known) == n else None
    return _verdict(ALL, best, others, corrected, baseline, n, spread)


def _against_best(
    candidates: list[Candidate],
) -> tuple[Candidate, list[Candidate], NDArray[np.float64], float]:
    """Return the best, the others, by how much it is better on each image, and how that spreads.

    The spread is that of a typical rival: one that says nearly the same on every image is told
    apart by little.
    """
    best = best_of(candidates)
    others = [one for one in candidates if one is not best]
    n = len(best.hits)
    gaps = np.array([best.hits - one.hits for one in others]).reshape(-1, n)
    spread = float(np.median(gaps.std(axis=1, ddof=1))) if len(gaps) and n > 1 else 0.0
    return best, others, gaps, spread


def _verdict(
    dataset: str, best: Candidate, others: list[Candidate], corrected: Sequence[float],
    baseline: float | None, n: int, spread: float,
) -> Verdict:  # fmt: skip
    by_val = sorted(zip(others, corrected, strict=True), key=lambda pair: -pair[0].val_acc)
    alike = [one for one, p in by_val if p > _LEVEL]
    better = [one for one, p in by_val if p <= _LEVEL and one.test_acc > best.test_acc]
    worse = [one for one, p in by_val if p <= _LEVEL and one.test_acc <= best.test_acc]
    priced = [one for one in (best, *alike) if not math.isnan(one.device_seconds)]
    cheapest = min(priced, key=lambda one: one.device_seconds, default=best)
    pixels = [one for one in (best, *others) if one.backbone == PIXELS]
    pixels_acc = best_of(pixels).test_acc if pixels else None
    smallest = POWER * spread / math.sqrt(n) if spread else None
    settled = Verdict(
        dataset, best, tuple(alike), tuple(better), tuple(worse), cheapest, 1 + len(others), n,
        baseline, pixels_acc, smallest, (),
    )  # fmt: skip
    if settled.shows_nothing:
        settled = replace(settled, smallest_detectable_difference=None)
    broken = verdict_sentence(best.runs)
    more = () if broken is None else (broken,)
    return replace(settled, sentences=(*sentences_of(settled, others), *more))
