"""Runs on corrupted images: their mean errors, and those relative to AlexNet's.

The paper's measures [1]_: of a corruption c, the balanced error BE_c is the mean over severities of
1 − balanced accuracy. Relative to AlexNet, whose errors are in the denominators,

    bE_c = BE_c / BE_c(AlexNet),    rbE_c = (BE_c − BE) / (BE_c(AlexNet) − BE(AlexNet)),

where BE is the error on clean images; mbE and mrbE are their means over corruptions.

References
----------
.. [1] Di Salvo, Doerrich & Ledig, "MedMNIST-C: Comprehensive benchmark and improved classifier
   robustness by simulating realistic image corruptions", arXiv:2406.17536, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medplus.analysis.holm import holm
from medplus.run.robustness import CleanScores, Point, Robustness

ALEXNET = "alexnet"
Z95 = 1.959963984540054
_LEVEL = 0.05
Scores = TypeVar("Scores", bound=CleanScores)


@dataclass(frozen=True)
class Case:
    """A run and what is known of it on corrupted images.

    Attributes
    ----------
    dataset, protocol, backbone : str
        The backbone as it is called among those that it is compared with.
    size : int
    seed : int or None
    run : str
        Its folder.
    found : Robustness
        With one point at least.
    """

    dataset: str
    protocol: str
    backbone: str
    size: int
    seed: int | None
    run: str
    found: Robustness

    @property
    def corruptions(self) -> list[str]:
        """Their names, in the order of the points."""
        return list(dict.fromkeys(point.corruption for point in self.found.points))

    def of(self, corruption: str) -> list[Point]:
        """Return the points of a corruption by severity."""
        points = [point for point in self.found.points if point.corruption == corruption]
        return sorted(points, key=lambda point: point.severity)

    def error(self, corruption: str) -> float:
        """Return the mean balanced error over the severities of a corruption."""
        return float(np.mean([point.balanced_error for point in self.of(corruption)]))


@dataclass(frozen=True)
class Means:
    """A case's means over severities and then corruptions; fractions.

    Attributes
    ----------
    clean, corrupted : float
        Balanced error.
    clean_ci95, corrupted_ci95 : tuple of float
        The latter as if all points erred together, which is the widest.
    clean_ece, corrupted_ece : float
    relative, relative_loss : float or None
        mbE and mrbE: None without an AlexNet, or where it loses nothing.
    """

    clean: float
    clean_ci95: tuple[float, float]
    corrupted: float
    corrupted_ci95: tuple[float, float]
    clean_ece: float
    corrupted_ece: float
    relative: float | None
    relative_loss: float | None


def means(case: Case, others: Sequence[Case]) -> Means:
    """Return the means of a case, relative to the AlexNet among others that was tested alike."""

    def over(values: Sequence[Sequence[float]]) -> float:
        return float(np.mean([np.mean(of_one) for of_one in values]))

    rows = [case.of(name) for name in case.corruptions]
    low, high = (
        over([[p.balanced_error_ci95[end] for p in row] for row in rows]) for end in (0, 1)
    )
    clean = case.found.clean
    alexnet = alexnet_of(case, others)
    relative = loss = None
    if alexnet is not None:
        errors = [(case.error(name), alexnet.error(name)) for name in case.corruptions]
        base = alexnet.found.clean.balanced_error
        if all(theirs > 0 for _, theirs in errors):
            relative = float(np.mean([ours / theirs for ours, theirs in errors]))
        if all(theirs > base for _, theirs in errors):
            loss = float(
                np.mean([(our - clean.balanced_error) / (their - base) for our, their in errors])
            )
    return Means(
        clean.balanced_error,
        clean.balanced_error_ci95,
        over([[p.balanced_error for p in row] for row in rows]),
        (low, high),
        clean.ece,
        over([[p.ece for p in row] for row in rows]),
        relative,
        loss,
    )


def alexnet_of(case: Case, others: Sequence[Case]) -> Case | None:
    """Return the AlexNet of the same data, protocol, corruptions and severities, or None."""
    keys = {point.key for point in case.found.points}
    for one in sorted(others, key=lambda one: one.seed != case.seed):
        same = (one.found.dataset_digest, one.protocol, one.size) == (
            case.found.dataset_digest, case.protocol, case.size,
        )  # fmt: skip
        if one.backbone == ALEXNET and same and {p.key for p in one.found.points} == keys:
            return one
    return None


def over_seeds(found: Sequence[Robustness]) -> Robustness:
    """Return the mean of runs that differ in their seed alone, of the points that all of them have.

    Standard errors and ends of intervals are means as well: seeds share the test images, so that
    more of them make what these say no surer.
    """
    shared = set.intersection(*({point.key for point in one.points} for one in found))
    first = found[0]
    rows = [sorted(one.of(shared).points, key=lambda point: point.key) for one in found]
    return first.model_copy(
        update={
            "clean": _mean([one.clean for one in found]),
            "points": [_mean(points) for points in zip(*rows, strict=True)],
        }
    )


def _mean(scores: Sequence[Scores]) -> Scores:
    """Return the mean of every fraction; the rest is the first one's."""
    values = {
        name: [getattr(one, name) for one in scores]
        for name, value in scores[0]
        if isinstance(value, float | tuple)
    }
    means = {name: np.mean(own, axis=0).tolist() for name, own in values.items() if None not in own}
    return type(scores[0]).model_validate({**scores[0].model_dump(), **means})


def first_broken(found: Robustness) -> Point | None:
    """Return what breaks a run first, or None where no loss is more than chance.

    Of the points whose loss is above zero at the 5 % level, one-sided, by Holm's correction for
    their number, those of the lowest severity, and of these the one that costs most.
    """
    from scipy.special import ndtr

    points = found.points
    p_values = [
        float(ndtr(-point.cost / point.cost_se)) if point.cost_se > 0 else 1.0 for point in points
    ]
    lost = [point for point, p in zip(points, holm(p_values), strict=True) if p <= _LEVEL]
    return min(lost, key=lambda point: (point.severity, -point.cost), default=None)


def worst(found: Robustness) -> Point:
    """Return the point that costs most."""
    return max(found.points, key=lambda point: point.cost)


def of_point(point: Point) -> str:
    """Say what a point costs: ``pixelate at severity 3 costs 12.0 points …``."""
    half = Z95 * point.cost_se
    low, high = 100 * (point.cost - half), 100 * (point.cost + half)
    bounds = f"{low:.1f} to {high:.1f}".replace("-", "−")
    return (
        f"{in_words(point.corruption)} at severity {point.severity} costs {100 * point.cost:.1f} "
        f"points of balanced accuracy (95 % interval {bounds})"
    )


def in_words(corruption: str) -> str:
    """Return a corruption's name as people read it."""
    return corruption.replace("_corr", "").replace("_", " ").replace("jpeg", "JPEG")


def breaks_it(found: Robustness) -> str:
    """Say in one sentence what breaks a run first, and what costs it most."""
    first, most = first_broken(found), worst(found)
    if most.cost <= 0:
        return "nothing that was tried costs it any balanced accuracy."
    if first is None:
        return f"no loss is more than chance explains; the largest: {of_point(most)}."
    more = "first and most"
    if most is not first:
        more = (
            f"first; {in_words(most.corruption)} at severity {most.severity} costs most, "
            f"{100 * most.cost:.1f} points"
        )
    return f"{of_point(first)} and breaks it {more}."
