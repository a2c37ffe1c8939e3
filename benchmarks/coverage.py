"""How often the 95 % intervals hold the true value: the tables of docs/statistics.md.

Run as `python -m benchmarks.coverage [TRIALS]`; a few minutes for 1,000 trials.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from medplus.analysis.intervals import mean_interval
from medplus.metrics import Interval, Predictions, auc_interval, proportion_interval
from medplus.vocabulary import MULTI_LABEL

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
SIZES = (50, 100, 156, 200)
ACCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
AUCS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SHARES = (0.1, 0.2, 0.3, 0.5)
LOWEST, _NEAR = 0.92, 0.01
_ALIKE = 0.5
"""Correlation within a cluster."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Table:
    """Coverage by row and column, from 0 to 1."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: dict[str, list[float]]


def tables(n_trials: int, seed: int = 0) -> Iterator[Table]:
    """Yield every table of the page."""
    rng = np.random.default_rng(seed)
    yield _accuracy()
    yield _accuracy_in_clusters(n_trials, rng)
    yield _accuracy_of_labels(n_trials, rng)
    yield from _auc(n_trials, rng)
    yield from _auc_in_clusters(n_trials, rng)
    yield _macro_auc(n_trials, rng)
    yield _over_datasets(20 * n_trials, rng)


def coverage(draw: Callable[[], Interval | None], truth: float, n_trials: int) -> float:
    """Return the share of drawn intervals that hold the truth; none at all says nothing wrong.

    What seems to miss the goal is drawn ten times as often: no cell is named by chance.
    """
    for n in (n_trials, 10 * n_trials):
        found = (draw() for _ in range(n))
        held = float(np.mean([one is None or one[0] <= truth <= one[1] for one in found]))
        if held >= LOWEST + _NEAR:
            break
    return held


def binormal(
    positive: NDArray[np.bool_], auc: float, rng: Rng, groups: NDArray[np.int64] | None = None
) -> Predictions:
    """Draw scores of two normal distributions with this AUC; groups share half of the variance."""
    noise = rng.normal(size=positive.shape)
    if groups is not None:
        shared = rng.normal(size=(groups.max() + 1, *positive.shape[1:]))[groups]
        noise = np.sqrt(_ALIKE) * shared + np.sqrt(1 - _ALIKE) * noise
    score = noise + np.sqrt(2) * norm.ppf(auc) * positive
    true = positive.astype(np.int64)
    return Predictions(MULTI_LABEL, 2, true, true, positive, score)


# --- accuracy -------------------------------------------------------------------------------------


def _accuracy() -> Table:
    """Exact: the probability of every number of hits."""
    rows = {}
    for n in SIZES:
        hits = np.arange(n + 1)
        ends = np.array([proportion_interval(np.arange(n)[:, None] < k) for k in hits])
        held = [(ends[:, 0] <= p) & (p <= ends[:, 1]) for p in ACCS]
        rows[str(n)] = [
            float(binom.pmf(hits, n, p)[h].sum()) for p, h in zip(ACCS, held, strict=True)
        ]
    return Table("ACC, by images (exact)", "images", tuple(map(str, ACCS)), rows)


def _accuracy_in_clusters(n_trials: int, rng: Rng) -> Table:
    rows = {}
    for n in SIZES:
        for size in (2, 5, 10):
            groups = np.arange(n - n % size) // size

            def draw(p: float, groups: NDArray[np.int64] = groups) -> Interval:
                spread = 1 / _ALIKE - 1
                of_group = rng.beta(p * spread, (1 - p) * spread, size=groups.max() + 1)
                return proportion_interval(
                    (rng.random(len(groups)) < of_group[groups])[:, None], groups
                )

            name = f"{n} by {size}"
            rows[name] = [coverage(lambda p=p: draw(p), p, n_trials) for p in ACCS]
    return Table("ACC, images in patients", "images by patient", tuple(map(str, ACCS)), rows)


def _accuracy_of_labels(n_trials: int, rng: Rng) -> Table:
    rows = {}
    for n in SIZES:
        for n_labels in (3, 14):

            def draw(p: float, shape: tuple[int, int] = (n, n_labels)) -> Interval:
                shared, own = rng.normal(size=(shape[0], 1)), rng.normal(size=shape)
                wrong = np.sqrt(_ALIKE) * shared + np.sqrt(1 - _ALIKE) * own
                return proportion_interval(wrong < norm.ppf(p))

            name = f"{n}, {n_labels} labels"
            rows[name] = [coverage(lambda p=p: draw(p), p, n_trials) for p in ACCS]
    return Table("ACC of several labels", "images", tuple(map(str, ACCS)), rows)


# --- AUC ------------------------------------------------------------------------------------------


def _auc(n_trials: int, rng: Rng) -> Iterator[Table]:
    for n in SIZES:
        rows = {}
        for share in SHARES:
            positive = (np.arange(n) < round(share * n))[:, None]
            rows[f"{positive.sum()} of {n}"] = [
                coverage(lambda a=auc, p=positive: auc_interval(binormal(p, a, rng)), auc, n_trials)
                for auc in AUCS
            ]
        yield Table(f"AUC, {n} images", "positives", tuple(map(str, AUCS)), rows)


def _auc_in_clusters(n_trials: int, rng: Rng) -> Iterator[Table]:
    for n in SIZES:
        rows = {}
        for size in (2, 5, 10):
            groups = np.arange(n - n % size) // size
            for share in (0.1, 0.3, 0.5):
                n_ill = max(2, round(share * (groups.max() + 1)))
                positive = (groups < n_ill)[:, None]
                name = f"{n_ill} of {groups.max() + 1}, {size} images each"
                if name in rows:
                    continue
                rows[name] = [
                    coverage(
                        lambda a=auc, p=positive, g=groups: auc_interval(binormal(p, a, rng, g), g),
                        auc,
                        n_trials,
                    )
                    for auc in AUCS
                ]
        yield Table(
            f"AUC, {n} images in patients", "positive patients", tuple(map(str, AUCS)), rows
        )


def _macro_auc(n_trials: int, rng: Rng) -> Table:
    rows = {}
    for n in SIZES:
        for n_labels in (3, 14):
            for share in (0.1, 0.3):

                def draw(
                    auc: float, n: int = n, n_labels: int = n_labels, share: float = share
                ) -> Interval | None:
                    positive = rng.random((n, n_labels)) < share
                    # Every label's scores share something in an image, as those of a network do.
                    cases = binormal(positive, auc, rng)
                    shared = np.sqrt(2) * norm.ppf(auc) * positive
                    noise = np.sqrt(_ALIKE) * rng.normal(size=(n, 1))
                    noise = noise + np.sqrt(1 - _ALIKE) * (cases.scores - shared)
                    true = cases.true
                    return auc_interval(
                        Predictions(MULTI_LABEL, 2, true, true, positive, shared + noise)
                    )

                name = f"{n}, {n_labels} labels, {share} positive"
                rows[name] = [coverage(lambda a=auc: draw(a), auc, n_trials) for auc in AUCS]
    return Table("macro AUC", "images", tuple(map(str, AUCS)), rows)


# --- datasets -------------------------------------------------------------------------------------


def _over_datasets(n_trials: int, rng: Rng) -> Table:
    """Scores of datasets that are normal, or skewed as those near 100 % are."""
    counts = tuple(range(3, 13))
    rows = {}
    for name, skewed in (("normal", False), ("skewed (Beta 6, 1.5)", True)):
        truth = 6 / 7.5 if skewed else 0.0
        rows[name] = []
        for n in counts:
            size = (n, n_trials)
            values = rng.beta(6, 1.5, size) if skewed else rng.normal(size=size)
            low, high = mean_interval(values)
            rows[name].append(float(np.mean((low <= truth) & (truth <= high))))
    return Table("mean over datasets", "scores", tuple(map(str, counts)), rows)


# --- the page -------------------------------------------------------------------------------------


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**", ""]
    lines += [f"| {table.corner} | {' | '.join(table.columns)} |"]
    lines += ["|---|" + "---:|" * len(table.columns)]
    for name, values in table.rows.items():
        shown = (f"**{100 * v:.1f}**" if v < LOWEST else f"{100 * v:.1f}" for v in values)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Renew what stands between the marks of the page."""
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    shown = []
    for table in tables(n_trials):
        print(table.title, file=sys.stderr, flush=True)
        shown.append(_markdown(table))
    PAGE.write_text(before + "\n\n".join([BEGIN, *shown, END]) + after)


if __name__ == "__main__":
    main()
