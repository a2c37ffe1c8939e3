"""Noise, independent in each channel, on images of uint8 (H, W, 3).

As MedMNIST-C has it, values are scaled to 0–1, clipped, and cut off rather than rounded. Grey
images are given noise as colour images and made grey again, which lessens it; that is theirs too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def gaussian_noise(image: Image, rng: np.random.Generator, scale: float) -> Image:
    """Add normal noise of the standard deviation `scale`, where white is 1."""
    return as_image(image / 255 + rng.normal(size=image.shape, scale=scale))


def speckle_noise(image: Image, rng: np.random.Generator, scale: float) -> Image:
    """Add normal noise in proportion to brightness."""
    values = image / 255
    return as_image(values + values * rng.normal(size=image.shape, scale=scale))


def shot_noise(image: Image, rng: np.random.Generator, photons: float) -> Image:
    """Count photons, of which white has `photons` on average (Poisson)."""
    return as_image(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image: Image, rng: np.random.Generator, share: float) -> Image:
    """Set a `share` of values to black or white, each with the same chance (salt and pepper)."""
    hit = rng.random(image.shape) <= share
    white = rng.random(image.shape) <= 0.5
    return np.where(hit, np.where(white, 255, 0), image).astype(np.uint8)


def as_image(values: NDArray[np.floating]) -> Image:
    """Return values from 0 to 1 as uint8, cut off as a cast does it but for rounding errors."""
    return np.asarray(np.floor(np.clip(values, 0, 1) * 255 + 1e-6), dtype=np.uint8)
