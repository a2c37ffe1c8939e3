"""What a curve says: means with their intervals, and where backbones cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from medplus.curves.points import Point
from medplus.curves.powerlaw import PowerLaw, extrapolate, inflation
from medplus.metrics.intervals import student_half


@dataclass(frozen=True)
class Series:
    """One backbone's curve over amounts of one kind.

    Attributes
    ----------
    backbone, protocol : str
    kind : {"shots", "fractions"}
    amounts : tuple of str
        As they are shown.
    n : ndarray of int, shape (n_amounts,)
        Train images, ascending.
    accuracies : ndarray of float, shape (n_episodes, n_amounts)
        On test, the mean over seeds; with folds a row for each of them, the mean over episodes too.
    stock : int
        Train images that episodes draw from.
    ratio : float or None
        With folds, test rows to train rows of each; intervals are then over folds.
    """

    backbone: str
    protocol: str
    kind: str
    amounts: tuple[str, ...]
    n: np.ndarray
    accuracies: np.ndarray
    stock: int
    ratio: float | None = None

    @property
    def inflation(self) -> np.ndarray:
        """By how much spread over episodes falls short, shape (n_amounts,); see `inflation`.

        Over folds it is Nadeau's and Bengio's, as in `medplus.run.foldmeans.summarise`.
        """
        count = len(self.accuracies)
        if self.ratio is not None:
            return np.full(len(self.n), np.sqrt(1 + count * self.ratio))
        return inflation(self.n, self.stock, count)

    @property
    def over(self) -> str:
        """What intervals are over."""
        return "episodes" if self.ratio is None else "folds"

    @property
    def mean(self) -> np.ndarray:
        """Mean accuracy over episodes, shape (n_amounts,)."""
        return np.asarray(self.accuracies.mean(0))

    @property
    def half_widths(self) -> np.ndarray:
        """Half of the 95 % interval of the mean over episodes, shape (n_amounts,)."""
        return student_half(self.accuracies, self.inflation)

    @property
    def named(self) -> dict[str, Any]:
        """Backbone, protocol and kind, for JSON."""
        return {"backbone": self.backbone, "protocol": self.protocol, "kind": self.kind}

    @property
    def label(self) -> str:
        """Backbone and protocol in words."""
        return f"{self.backbone} · {self.protocol}"

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a row for every amount, for JSON."""
        low, high = np.quantile(self.accuracies, (0.05, 0.95), axis=0)
        half = self.half_widths
        return [
            {
                **self.named,
                "amount": amount,
                "labels": int(self.n[i]),
                self.over: len(self.accuracies),
                "mean": float(self.mean[i]),
                "ci95": None if np.isnan(half[i]) else
                [max(0.0, float(self.mean[i] - half[i])), min(1.0, float(self.mean[i] + half[i]))],
                "spread90": [float(low[i]), float(high[i])],
            }
            for i, amount in enumerate(self.amounts)
        ]  # fmt: skip


@dataclass(frozen=True)
class Crossing:
    """Two neighbouring amounts between which two curves change places.

    Attributes
    ----------
    first, second : str
        The curve that leads with fewer labels, and the one that leads with more.
    kind : str
    between : (int, int)
        Train images.
    at : float
        Where straight lines over the logarithm of the number of images meet.
    certain : bool
        Whether the paired 95 % intervals of both differences exclude zero.
    """

    first: str
    second: str
    kind: str
    between: tuple[int, int]
    at: float
    certain: bool


def to_series(points: Sequence[Point], stock: int, ratio: float | None = None) -> list[Series]:
    """Gather points as curves, in the order in which they come.

    Parameters
    ----------
    stock, ratio
        As `Series` has them.
    """
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        kind = "shots" if point.amount.fraction is None else "fractions"
        groups.setdefault((point.backbone, point.protocol, kind), []).append(point)
    return [_series(*key, own, stock, ratio) for key, own in groups.items()]


def _series(
    backbone: str, protocol: str, kind: str, points: Sequence[Point], stock: int,
    ratio: float | None,
) -> Series:  # fmt: skip
    sizes: dict[Any, list[int]] = {}
    cells: dict[Any, list[float]] = {}
    for point in points:
        sizes.setdefault(point.amount, []).append(len(point.rows))
        cells.setdefault((point.draw, point.amount), []).append(point.test_acc)
    amounts = {amount: round(float(np.mean(rows))) for amount, rows in sizes.items()}
    ordered = sorted(amounts, key=lambda amount: amounts[amount])
    draws = sorted({point.draw for point in points})
    values = [[np.mean(cells[draw, amount]) for amount in ordered] for draw in draws]
    n, names = np.array([amounts[amount] for amount in ordered]), tuple(map(str, ordered))
    return Series(backbone, protocol, kind, names, n, np.array(values), stock, ratio)


def find_crossings(series: Sequence[Series]) -> list[Crossing]:
    """Find where two curves of one kind cross; episodes are paired, since their rows are equal."""
    found = []
    for one, other in combinations(series, 2):
        if one.kind != other.kind:
            continue
        difference = one.accuracies - other.accuracies
        mean, half = difference.mean(0), student_half(difference, one.inflation)
        for i in np.flatnonzero(mean[:-1] * mean[1:] < 0):
            share = mean[i] / (mean[i] - mean[i + 1])
            x = np.log(one.n[[i, i + 1]])
            leader, follower = (one, other) if mean[i] > 0 else (other, one)
            found.append(
                Crossing(
                    leader.label, follower.label, one.kind,
                    (int(one.n[i]), int(one.n[i + 1])),
                    float(np.exp(x[0] + share * (x[1] - x[0]))),
                    bool((np.abs(mean[i : i + 2]) > half[i : i + 2]).all()),
                )
            )  # fmt: skip
    return found


def fit(series: Series, target: float, n_test: int) -> PowerLaw:
    """Fit a curve's power law."""
    return extrapolate(series.n, series.accuracies, target, n_test, series.inflation)
