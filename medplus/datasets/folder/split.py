"""The split that medplus makes where none is given: seeded, stratified, groups kept whole."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

Assignment = npt.NDArray[np.int64]


def split(
    flags: npt.NDArray[np.float64],
    groups: Sequence[Hashable] | None,
    fractions: Sequence[float],
    seed: int,
) -> Assignment:
    """Deal samples out to parts so that each part has its share of every class.

    Parameters
    ----------
    flags : ndarray, shape (n_samples, n_classes)
        1 where a sample is of a class or has a label.
    groups : sequence of hashable, optional
        Samples of one group come into one part.
    fractions : sequence of float
        The share of each part; they add up to 1.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        The part of each sample. No part is empty where there are as many groups as parts.
    """
    rng = np.random.default_rng(seed)
    shares = np.asarray(fractions, dtype=np.float64)
    if groups is None and (flags.sum(1) == 1).all():
        return _by_class(flags.argmax(1), shares, rng)
    n = len(flags)
    names = range(n) if groups is None else groups
    number: dict[Hashable, int] = {}
    unit = np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
    counts = np.zeros((len(number), flags.shape[1] + 1))
    np.add.at(counts, unit, np.column_stack([flags, np.ones(n)]))
    return _by_unit(counts, shares, rng)[unit]


def _by_class(classes: npt.NDArray[np.intp], shares: npt.NDArray[np.float64],
              rng: np.random.Generator) -> Assignment:  # fmt: skip
    parts = np.empty(len(classes), np.int64)
    for value in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == value))
        parts[members] = np.repeat(np.arange(len(shares)), _sizes(len(members), shares))
    return parts


def _sizes(n: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Round shares of n to integers that add up, by largest remainder; at least 1 if n suffices."""
    exact = n * shares
    sizes = np.floor(exact).astype(np.int64)
    remainders = np.argsort(sizes - exact, kind="stable")
    sizes[remainders[: n - sizes.sum()]] += 1
    if n >= len(shares):
        for empty in np.flatnonzero(sizes == 0):
            sizes[sizes.argmax()] -= 1
            sizes[empty] = 1
    return sizes


def _by_unit(
    counts: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> Assignment:
    """Deal out groups, those of rare labels and the large ones first, each to where it fits best.

    What fits best lowers the chi-square distance of the parts' label counts from their shares, in
    the manner of iterative stratification (Sechidis et al., 2011).
    """
    totals = np.maximum(counts.sum(0), 1)
    wanted = shares[:, None] * totals
    rarity = (counts > 0).astype(float) @ (1 / totals)
    shuffled = rng.permutation(len(counts))
    order = shuffled[np.lexsort((-counts[shuffled, -1], -rarity[shuffled]))]
    have = np.zeros_like(wanted)
    parts = np.empty(len(counts), np.int64)
    for unit in order:
        c = counts[unit]
        parts[unit] = part = int(((c * (2 * (have - wanted) + c)) / wanted).sum(1).argmin())
        have[part] += c
    for empty in np.flatnonzero(np.bincount(parts, minlength=len(shares)) == 0):
        donors = np.flatnonzero(np.bincount(parts, minlength=len(shares))[parts] > 1)
        if len(donors):
            parts[donors[counts[donors, -1].argmin()]] = empty
    return parts
