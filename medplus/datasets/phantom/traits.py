"""How a scene's traits follow from its class, and how difficulty makes the classes overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Traits = TypeVar("Traits", bound=NamedTuple)

_PULL = 0.7
"""Largest share by which a borderline case takes after another class, at difficulty 1."""


def draw_traits(
    rng: np.random.Generator,
    by_class: Sequence[Traits],
    jitter: Traits,
    label: int,
    difficulty: float,
) -> Traits:
    """Draw one image's traits.

    Each is the class's value, pulled towards that of a random other class, plus a normal
    deviation; pull and deviation grow with difficulty. Traits stay near the range that the
    classes span, and those that no class has below zero stay above it.

    Parameters
    ----------
    rng : Generator
        The scene's source; the number of draws does not depend on any argument's value.
    by_class : sequence of NamedTuple
        Typical traits per class.
    jitter : NamedTuple
        Standard deviation of each trait within a class at difficulty 0.5.
    label : int
        The class.
    difficulty : float
        0 (typical cases only) to 1 (many borderline cases).
    """
    table = np.array(by_class, dtype=np.float64)
    other = (label + 1 + rng.integers(len(table) - 1)) % len(table)
    pull = _PULL * difficulty * rng.random()
    mean = table[label] + pull * (table[other] - table[label])
    deviation = rng.standard_normal(table.shape[1]) * np.array(jitter, dtype=np.float64)
    value = mean + (0.3 + 1.4 * difficulty) * deviation
    low, high = table.min(axis=0), table.max(axis=0)
    margin = 0.25 * (high - low) + 1e-9
    low = np.where(low >= 0, np.maximum(low - margin, 0.0), low - margin)
    return type(jitter)._make(np.clip(value, low, high + margin).tolist())


def about(rng: np.random.Generator, centre: float, spread: float) -> float:
    """Draw a number uniformly within `spread` of `centre`: for traits that no class owns."""
    return centre + spread * (2.0 * float(rng.random()) - 1.0)
