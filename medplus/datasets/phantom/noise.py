"""Octaves of smooth random lattices: the weights and the interpolation behind `Canvas.noise`."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def octaves(coarse: int, fine: int, slope: float) -> tuple[tuple[int, float], ...]:
    """Return (cells per side, amplitude) per octave; the squared amplitudes sum to 1."""
    cells = [coarse]
    while cells[-1] * 2 <= fine:
        cells.append(cells[-1] * 2)
    raw = np.array(cells, dtype=np.float64) ** -slope
    raw /= np.sqrt((raw**2).sum())
    return tuple(zip(cells, raw.tolist(), strict=True))


@cache
def interpolation(n: int, cells: int) -> NDArray[np.float32]:
    """Return the (n, cells + 3) matrix that samples a lattice at `n` pixel centres.

    The kernel is the uniform cubic B-spline: smooth, and of so little energy beyond the lattice's
    own frequency that the samples do not alias. Rows are scaled to unit variance.
    """
    position = (np.arange(n) + 0.5) / n * cells
    cell = np.floor(position).astype(int)
    t = position - cell
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    matrix = np.zeros((n, cells + 3))
    np.put_along_axis(matrix, cell[:, None] + np.arange(4), weights, axis=1)
    matrix /= np.sqrt((matrix**2).sum(axis=1).mean())
    return matrix.astype(np.float32)
