"""Comparing images by their pixels: the same picture, however it was stored again.

Images are brought to one small size, and the band of frequencies is kept that JPEG, resizing and
brightness leave alone. Then candidates come from spectra that flips, turns and small shifts do not
change, and pairs are compared by the normalised cross-correlation [1]_ over the eight ways to lay
a square and over small shifts; neither gain nor offset of brightness changes it.

References
----------
.. [1] Lewis: Fast normalized cross-correlation. Vision Interface, 1995.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medplus.auditing.pool import Pool

if TYPE_CHECKING:
    import torch

SIDE = 32
"""Images that are larger are compared at so many pixels."""
_FINE, _COARSE = 0.7, 2.5
_FREQUENCIES = 10
_BLOCK = 1024
_PAIRS = 256
_FLAT = 1e-3


def bands(pool: Pool) -> np.ndarray:
    """Return every image's middle frequencies, float32, shape (n, side, side); side ≤ `SIDE`."""
    parts = [
        band_pass(pool.pixels(slice(start, start + _BLOCK)))
        for start in range(0, len(pool), _BLOCK)
    ]
    return np.concatenate(parts)


def digests(pool: Pool) -> list[bytes]:
    """Return what identifies each image's pixels."""
    return [hashlib.blake2b(pool.image(row).tobytes()).digest() for row in range(len(pool))]


def band_pass(images: np.ndarray) -> np.ndarray:
    """Return the difference of two Gaussians of grey, small versions of images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size) or (n, size, size, 3)

    Returns
    -------
    ndarray of float32, shape (n, side, side)
    """
    import torch

    grey = images.mean(3, dtype=np.float32) if images.ndim == 4 else images.astype(np.float32)
    if grey.shape[1] > SIDE:
        small = torch.nn.functional.interpolate(
            torch.from_numpy(grey)[:, None], (SIDE, SIDE), mode="area"
        )
        grey = small[:, 0].numpy()
    fine, coarse = (
        ndimage.gaussian_filter(grey, (0, sigma, sigma), mode="nearest")
        for sigma in (_FINE, _COARSE)
    )
    difference: np.ndarray = fine - coarse
    return difference


def spectra(images: np.ndarray) -> np.ndarray:
    """Return unit vectors that are nearly equal for images that are flipped, turned or shifted.

    The magnitude of a Fourier spectrum does not know of shifts; its mean over the eight ways to lay
    a square does not know of flips and turns.

    Parameters
    ----------
    images : ndarray of float32, shape (n, side, side)

    Returns
    -------
    ndarray of float32, shape (n, n_frequencies)
        Centred over the images; rows of length 1, or 0 for flat images.
    """
    n, side, _ = images.shape
    k = min(_FREQUENCIES, side // 2)
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    found = np.empty((n, k * (k + 1) // 2), np.float32)
    upper = np.triu_indices(k)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        spectrum = np.abs(np.fft.fft2(images[part] * window[:, None] * window))
        rising = spectrum[:, :k, :k]
        falling = spectrum[:, -np.arange(k) % side, :k]
        mean = (rising + falling + (rising + falling).transpose(0, 2, 1)) / 4
        found[part] = np.sqrt(mean)[:, upper[0], upper[1]]
    found = _unit(found)
    return _unit(found - found.mean(0))


def compare(
    images: np.ndarray, first: np.ndarray, second: np.ndarray, shift: int | None = None
) -> np.ndarray:
    """Return how alike pairs of images are, however one of them is laid or shifted.

    Parameters
    ----------
    images : ndarray of float32, shape (n, side, side)
    first, second : ndarray of int, shape (n_pairs,)
    shift : int, optional
        Largest shift in pixels either way; by default 2, and less for very small images.

    Returns
    -------
    ndarray of float32, shape (n_pairs,)
        The largest normalised cross-correlation, from −1 to 1; 0 where an image is flat.
    """
    import torch

    side = images.shape[1]
    shift = min(2, side // 14) if shift is None else shift
    inner = side - 2 * shift
    grid = np.arange(side * side).reshape(side, side)
    shown = [grid[i : i + inner, j : j + inner] for i in range(2 * shift + 1)
             for j in range(2 * shift + 1)]  # fmt: skip
    laid = [one[shift : shift + inner, shift : shift + inner] for one in _lain(grid)]
    flat = torch.from_numpy(images.reshape(len(images), -1))
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        a, b = (
            _normalised(flat[torch.from_numpy(rows[part])], places)
            for rows, places in ((first, laid), (second, shown))
        )
        found[part] = torch.bmm(a, b.transpose(1, 2)).amax((1, 2)).numpy()
    return found


def _normalised(images: torch.Tensor, places: list[np.ndarray]) -> torch.Tensor:
    """Return windows of images, centred and of length 1, shape (n, n_windows, n_pixels)."""
    import torch

    index = torch.from_numpy(np.stack([place.ravel() for place in places]))
    windows = images[:, index]
    windows = windows - windows.mean(2, keepdim=True)
    lengths: torch.Tensor = torch.linalg.vector_norm(windows, dim=2, keepdim=True)
    return windows / lengths.clamp_min(_FLAT)


def _lain(grid: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the eight ways to lay a square."""
    for turned in (grid, grid.T):
        for rows in (turned, turned[::-1]):
            yield rows
            yield rows[:, ::-1]


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / np.where(norms == 0, 1, norms)
    return unit
