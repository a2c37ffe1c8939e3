"""A square of float pixels to paint a scene on, in coordinates that no image size enters.

Scenes are painted on one of two masters (128 px for sizes up to 64, 256 px above) and averaged
down by area, so every size shows the same scene. Nothing on a master is finer than it resolves:
noise stops at its Nyquist octave, edges are one pixel soft, thin strokes fade instead of breaking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.datasets.phantom.noise import interpolation, octaves

Plane = NDArray[np.float32]
"""Grey plane of shape (n, n), or (3, n, n) for colour; float32, 0 black to 1 white."""

FINEST = 112
"""Cells per side of texture that only 128 px and more resolve."""

Numbers = NDArray[np.floating[Any]] | float


@cache
def area_average(n: int, size: int) -> NDArray[np.float32]:
    """Return the (size, n) matrix that averages `n` pixels into `size`, each row summing to 1."""
    edges = np.arange(size + 1) * (n / size)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(n)[None, :]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    matrix: NDArray[np.float32] = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def soft_step(value: NDArray[np.floating[Any]], width: float) -> Plane:
    """Return 0 below ``-width/2``, 1 above ``width/2``, and a line between."""
    out: Plane = np.asarray(value, dtype=np.float32) * np.float32(1.0 / width)
    out += np.float32(0.5)
    return np.clip(out, 0.0, 1.0, out=out)


@dataclass(frozen=True)
class Canvas:
    """A master of `n` × `n` pixels over the unit square.

    Attributes
    ----------
    n : int
        Pixels per side.
    x : ndarray of shape (1, n)
        Pixel centres from left (0) to right (1), float32.
    y : ndarray of shape (n, 1)
        Pixel centres from top (0) to bottom (1), float32.
    """

    n: int
    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @property
    def pixel(self) -> float:
        """Width of a pixel in units of the square's side."""
        return 1.0 / self.n

    def full(self, value: float) -> Plane:
        """Return a plane of one value."""
        return np.full((self.n, self.n), value, dtype=np.float32)

    def noise(
        self,
        rng: np.random.Generator,
        coarse: int,
        fine: int,
        *,
        slope: float = 1.0,
        stretch: float = 1.0,
    ) -> Plane:
        """Return band-limited noise of zero mean and about unit variance.

        Takes one integer from `rng` whatever the master, so that later draws stay the same.

        Parameters
        ----------
        rng : Generator
            The scene's source of randomness.
        coarse, fine : int
            Cells per side of the coarsest and of the finest octave. Octaves finer than the
            master's Nyquist limit are left out: their average over a pixel is nearly zero.
        slope : float, default=1.0
            Amplitude of an octave of m cells is ``m ** -slope``.
        stretch : float, default=1.0
            Features are this many times wider than high.
        """
        private = np.random.Generator(np.random.PCG64(int(rng.integers(2**62))))
        total = self.full(0.0)
        for cells, amplitude in octaves(coarse, fine, slope):
            across = max(2, round(cells / stretch**0.5))
            down = max(2, round(cells * stretch**0.5))
            if max(across, down) > self.n // 2:
                break
            lattice = private.standard_normal((down + 3, across + 3), dtype=np.float32)
            lattice *= np.float32(amplitude)
            total += interpolation(self.n, down) @ lattice @ interpolation(self.n, across).T
        return total

    def radius(self, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Plane:
        """Return the elliptic radius around a centre: 1 on the ellipse's edge."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        u = (dx * cos + dy * sin) * np.float32(1 / rx)
        v = (dy * cos - dx * sin) * np.float32(1 / ry)
        u *= u
        v *= v
        u += v
        return np.sqrt(u, out=u)

    def inside(self, radius: Plane, extent: float, softness: float = 0.0) -> Plane:
        """Return how much of each pixel lies within radius 1.

        Parameters
        ----------
        radius : ndarray of shape (n, n)
            A radius field, possibly roughened.
        extent : float
            Length of radius 1, in sides of the square.
        softness : float, default=0.0
            Width of the edge, in sides of the square; at least one pixel.
        """
        return soft_step(1.0 - radius, max(softness, self.pixel) / max(extent, self.pixel))

    def spots(self, cx: Numbers, cy: Numbers, sigma: Numbers, weight: Numbers = 1.0) -> Plane:
        """Return a sum of Gaussian spots, each of height `weight`.

        Spots narrower than half a pixel are widened to it and dimmed to the same total.
        """
        return self.stretched_spots(cx, cy, sigma, sigma, weight)

    def stretched_spots(
        self, cx: Numbers, cy: Numbers, sx: Numbers, sy: Numbers, weight: Numbers = 1.0
    ) -> Plane:
        """Return a sum of Gaussian spots with their own widths along x and y."""
        given = [np.asarray(v, dtype=np.float32).reshape(-1) for v in (cx, cy, sx, sy, weight)]
        x, y, sigma_x, sigma_y, height = np.broadcast_arrays(*given)
        least = np.float32(0.6 * self.pixel)
        wide_x, wide_y = np.maximum(sigma_x, least), np.maximum(sigma_y, least)
        dimmed = height * (sigma_x / wide_x) * (sigma_y / wide_y)
        down = np.exp(-0.5 * ((self.y - y) / wide_y) ** 2)
        across = np.exp(-0.5 * ((self.x.T - x) / wide_x) ** 2)
        total: Plane = (down * dimmed) @ across.T
        return total

    def strokes(self, cx: Numbers, cy: Numbers, sigma: Numbers, spacing: Numbers) -> Plane:
        """Return lines drawn as dense spots `spacing` apart: height 1 on the line's axis."""
        line = np.asarray(sigma, dtype=np.float32)
        height = np.asarray(spacing, dtype=np.float32) / (line * np.float32(np.sqrt(2 * np.pi)))
        return np.minimum(self.spots(cx, cy, line, height), 1.0)

    def averaged(self, planes: Plane, size: int) -> Plane:
        """Average planes of shape (..., n, n) by area to (..., size, size)."""
        average = area_average(self.n, size)
        averaged: Plane = np.asarray(average @ planes @ average.T, dtype=np.float32)
        return averaged


@cache
def master(size: int) -> Canvas:
    """Return the canvas on which scenes of an image size are painted."""
    n = 128 if size <= 64 else 256
    centres = ((np.arange(n) + 0.5) / n).astype(np.float32)
    return Canvas(n, centres[None, :], centres[:, None])


def tint(planes: Plane, colour: tuple[float, float, float], alpha: Plane) -> None:
    """Blend a colour into (3, n, n) planes in place, by `alpha` of shape (n, n)."""
    for channel, value in enumerate(colour):
        planes[channel] += (np.float32(value) - planes[channel]) * alpha
