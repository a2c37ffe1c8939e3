"""Images unlike the others: far from all of their class, or odd in their pixels or files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medplus.auditing.facts import Facts
from medplus.auditing.pool import Pool

LIMIT = 5.0
"""Robust standard scores beyond which an image counts as isolated."""
_RARE = 0.02
_BLANK, _FULL = 8, 0.9
_FEW = 8


@dataclass(frozen=True, eq=False)
class Outliers:
    """What was found.

    Attributes
    ----------
    score : ndarray of float, shape (n,)
        Robust standard score of the log distance to the nearest images, within the class.
    reasons : dict of int to str
        Per row that stands out, why.
    """

    score: np.ndarray
    reasons: dict[int, str]

    @property
    def ranking(self) -> list[int]:
        """The rows that stand out, the most isolated first."""
        return sorted(self.reasons, key=lambda row: (-self.score[row], row))


def find_outliers(pool: Pool, distances: Sequence[np.ndarray], facts: Facts | None) -> Outliers:
    """Find images that are isolated, blank, saturated, grey among colour, or of odd size.

    Parameters
    ----------
    pool : Pool
    distances : sequence of ndarray of float, shape (n, k)
        To the nearest other rows, per store. Twins do not make an image less isolated than it is:
        the median over the neighbours counts.
    facts : Facts, optional
        What is rare of these makes an image stand out: a property of more than 2 % is none of
        single images.
    """
    scores = [_isolation(np.median(one, axis=1), pool.strata) for one in distances]
    score = np.mean(scores, axis=0)
    reasons = {int(row): "isolated" for row in np.flatnonzero(score > LIMIT)}
    for reason, odd in _oddities(facts).items():
        if odd.mean() <= _RARE:
            for row in np.flatnonzero(odd):
                told = reasons.get(int(row))
                reasons[int(row)] = f"{told}, {reason}" if told else reason
    return Outliers(score, reasons)


def _isolation(distance: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return robust standard scores of log distances within each class (Iglewicz and Hoaglin)."""
    log = np.log(np.maximum(distance, np.finfo(np.float32).tiny))
    score = np.zeros(len(log))
    everything = np.ones(len(log), bool)
    for value in np.unique(strata):
        own = strata == value
        of = own if own.sum() >= _FEW else everything
        middle = np.median(log[of])
        spread = 1.4826 * np.median(np.abs(log[of] - middle))
        score[own] = (log[own] - middle) / max(spread, 1e-9)
    return score


def _oddities(facts: Facts | None) -> dict[str, np.ndarray]:
    if facts is None:
        return {}
    found = {
        "blank": facts.spread <= _BLANK,
        "saturated": np.maximum(facts.white, facts.dark) >= _FULL,
        "grey among colour": facts.grey,
        "colour among grey": ~facts.grey,
    }
    found["saturated"] &= ~found["blank"]
    if facts.shape is not None:
        aspect = np.log(np.maximum(facts.shape[:, 0], 1) / np.maximum(facts.shape[:, 1], 1))
        area = np.log(np.maximum(facts.shape.prod(1), 1))
        odd = [np.abs(of - np.median(of)) > np.log(2) for of in (aspect, area)]
        found["odd size"] = odd[0] | odd[1]
    return found
