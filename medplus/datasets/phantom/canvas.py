"""A square of float pixels to paint a scene on, in coordinates that no image size enters.

Scenes are painted on one of two masters (128 px for sizes up to 64, 256 px above) and averaged
down by area, so that every size shows the same scene. Nothing is finer than a master resolves:
noise stops at its Nyquist octave, and edges are a pixel soft.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""Shape (n, n), float32, 0 black to 1 white."""


@dataclass(frozen=True)
class Canvas:
    """A master of `n` × `n` pixels over the unit square, from its left upper corner (0, 0)."""

    n: int

    def noise(
        self, rng: np.random.Generator, coarse: int, fine: int, slope: float = 1.0, wide: float = 1
    ) -> Plane:
        """Return band-limited noise of zero mean and about unit variance.

        Takes one integer from `rng` whatever the master, so that later draws stay the same.

        Parameters
        ----------
        coarse, fine : int
            Cells per side of the coarsest octave, and the most of the finest.
        slope : float
            The amplitude of an octave of m cells is ``m ** -slope``.
        wide : float
            Features are this many times wider than high.
        """
        private = np.random.Generator(np.random.PCG64(int(rng.integers(2**62))))
        cells = [coarse * 2**i for i in range(int(np.log2(max(fine / coarse, 1))) + 1)]
        amplitudes = np.array(cells, float) ** -slope
        amplitudes /= np.sqrt((amplitudes**2).sum())
        total = np.zeros((self.n, self.n), np.float32)
        for count, amplitude in zip(cells, amplitudes, strict=True):
            across, down = (max(2, round(count * wide**power)) for power in (-0.5, 0.5))
            if max(across, down) > self.n // 2:
                break
            lattice = private.standard_normal((down + 3, across + 3), dtype=np.float32)
            lattice *= np.float32(amplitude)
            total += _spline(self.n, down) @ lattice @ _spline(self.n, across).T
        return total

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, edge: Plane | float = 0) -> Plane:
        """Return how much of each pixel lies in an ellipse, whose radius of 1 `edge` roughens."""
        centres = (np.arange(self.n, dtype=np.float32) + np.float32(0.5)) / np.float32(self.n)
        u = ((centres[None] - np.float32(cx)) / np.float32(rx)) ** 2
        v = ((centres[:, None] - np.float32(cy)) / np.float32(ry)) ** 2
        steepness = np.float32(self.n * max(min(rx, ry), 1 / self.n))
        within = (1 - np.sqrt(u + v) + edge) * steepness + np.float32(0.5)
        return np.asarray(np.clip(within, 0, 1), np.float32)

    def averaged(self, planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Average planes of shape (..., n, n) by area to (..., size, size)."""
        average = _average(self.n, size)
        return np.asarray(average @ planes @ average.T, np.float32)


def master(size: int) -> Canvas:
    """Return the canvas on which scenes of an image size are painted."""
    return Canvas(128 if size <= 64 else 256)


@cache
def _average(n: int, size: int) -> NDArray[np.float32]:
    """Return the (size, n) matrix that averages `n` pixels into `size`, each row summing to 1."""
    edges, pixel = np.arange(size + 1) * (n / size), np.arange(n)[None]
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    matrix: NDArray[np.float64] = np.clip(overlap, 0, None)
    matrix /= matrix.sum(1, keepdims=True)
    return matrix.astype(np.float32)


@cache
def _spline(n: int, cells: int) -> NDArray[np.float32]:
    """Return the (n, cells + 3) matrix that samples a lattice at `n` pixel centres.

    The kernel is the uniform cubic B-spline, which hardly aliases; rows have unit variance.
    """
    position = (np.arange(n) + 0.5) / n * cells
    cell = np.floor(position).astype(int)
    t = position - cell
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    matrix = np.zeros((n, cells + 3))
    np.put_along_axis(matrix, cell[:, None] + np.arange(4), np.stack(weights, 1), axis=1)
    matrix /= np.sqrt((matrix**2).sum(1).mean())
    return matrix.astype(np.float32)
