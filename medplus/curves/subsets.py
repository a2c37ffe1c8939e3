"""Which train rows a point of a curve learns from: nested, and the same for every backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medplus.errors import UsageError


@dataclass(frozen=True)
class Amount:
    """How much of train is labelled: so many images of each class, or a share of each class.

    Attributes
    ----------
    shots : int or None
    fraction : float or None
        Above 0, at most 1; at least one image of each class remains. Of multi-label data it is a
        share of all images.
    """

    shots: int | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        return f"{self.shots}" if self.fraction is None else f"{100 * self.fraction:g} %"

    def of(self, n: int) -> int:
        """Return how many of a class's `n` rows are taken."""
        if self.fraction is None:
            return self.shots or 0
        return max(1, math.floor(self.fraction * n + 0.5))


def draw_subsets(
    classes: np.ndarray, amounts: Sequence[Amount], episodes: int
) -> dict[tuple[int, Amount], np.ndarray]:
    """Draw nested subsets of train rows: within an episode, a smaller amount lies in a larger one.

    Every episode has an order of each class's rows, of which an amount takes the first.

    Parameters
    ----------
    classes : ndarray of int, shape (n_train,)
        The strata: classes, or zeros where rows are to be drawn from all alike.
    amounts : sequence of Amount
    episodes : int
        Episode `e` draws with ``numpy.random.default_rng(e)``, counted from 0.

    Returns
    -------
    dict of (episode, amount) to ndarray of int64, shape (n_rows,)
        Ascending rows.

    Examples
    --------
    >>> rows = draw_subsets(np.array([0, 0, 0, 1, 1]), [Amount(1), Amount(2)], 1)
    >>> len(rows[0, Amount(2)]), set(rows[0, Amount(1)]) < set(rows[0, Amount(2)])
    (4, True)
    """
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    found = {}
    for episode in range(episodes):
        rng = np.random.default_rng(episode)
        orders = [rng.permutation(rows) for rows in members]
        for amount in amounts:
            parts = [order[: amount.of(len(order))] for order in orders]
            found[episode, amount] = np.sort(np.concatenate(parts))
    return found


def check_amounts(amounts: Sequence[Amount], classes: np.ndarray, names: Sequence[str]) -> None:
    """Refuse more images per class than the smallest class has.

    Raises
    ------
    UsageError
        Names the class, and how many images it has.
    """
    counts = np.bincount(classes, minlength=len(names))
    smallest = min(np.flatnonzero(counts).tolist(), key=counts.tolist().__getitem__)
    most = max((amount.shots or 0 for amount in amounts), default=0)
    if most > counts[smallest]:
        raise UsageError(
            f"--shots {most} exceeds the smallest class of train, '{names[smallest]}' with "
            f"{counts[smallest]} images; use at most {counts[smallest]}"
        )
