"""Blur: lengths are of images of 224 px, and shrink with the images.

A kernel for 224 px is laid over a smaller image with its distances scaled, each weight shared out
between the pixels it falls between. So the same scene is blurred alike at every size, and far less
of it is seen at 28 px.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medplus.corruptions.noise import Image, as_image

SIZE = 224
"""The images that lengths are of."""
_SMALL_DISK = 8

Kernel = NDArray[np.float64]


def gaussian_blur(image: Image, rng: np.random.Generator, taps: float) -> Image:
    """Blur as torchvision does: `taps` of a normal density, σ = 0.15 taps + 0.35."""
    distance = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-0.5 * (distance / (0.15 * taps + 0.35)) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    return np.rint(_filtered(image, kernel, "reflect")).clip(0, 255).astype(np.uint8)


def defocus_blur(image: Image, rng: np.random.Generator, radius: float, alias: float) -> Image:
    """Average over a disk, whose edge is smoothed with σ = `alias`."""
    reach = _SMALL_DISK if radius <= _SMALL_DISK else int(radius)
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    half = 1 if radius <= _SMALL_DISK else 2
    edge = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * alias**2))
    kernel = _separable(disk / disk.sum(), edge / edge.sum())
    return as_image(_filtered(image, kernel, "reflect") / 255)


def motion_blur(image: Image, rng: np.random.Generator, radius: float, sigma: float) -> Image:
    """Smear in one direction, drawn from −45° to 45°, as ImageMagick's ``-motion-blur`` does.

    The weights fall off on one side only, as one half of a normal density.
    """
    angle = np.deg2rad(rng.uniform(-45, 45))
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    reach = len(steps)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    down, right = np.sin(angle), np.cos(angle)
    at = [np.ceil(steps * part - 0.5).astype(int) + reach for part in (down, right)]
    np.add.at(kernel, (at[0], at[1]), weights / weights.sum())
    return np.rint(_filtered(image, kernel, "edge")).clip(0, 255).astype(np.uint8)


def zoom_blur(image: Image, rng: np.random.Generator, stop: float, step: float) -> Image:
    """Average the image with itself, enlarged by 1, 1 + `step`, … below `stop`."""
    values = (image / 255).astype(np.float32)
    factors = np.arange(1, stop, step)
    total = values + sum(_enlarged(values, float(factor)) for factor in factors)
    return as_image(total / (len(factors) + 1))


def _enlarged(values: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    from scipy.ndimage import zoom

    side = values.shape[0]
    inner = int(np.ceil(side / factor))
    top = (side - inner) // 2
    cut = values[top : top + inner, top : top + inner]
    larger: NDArray[np.float32] = zoom(cut, (factor, factor, 1), order=1)
    trim = (larger.shape[0] - side) // 2
    return larger[trim : trim + side, trim : trim + side]


def _separable(values: Kernel, weights: Kernel) -> Kernel:
    from scipy.ndimage import correlate1d

    rows = correlate1d(values, weights, axis=0, mode="mirror")
    return np.asarray(correlate1d(rows, weights, axis=1, mode="mirror"))


def _filtered(image: Image, kernel: Kernel, border: str) -> NDArray[np.float64]:
    """Correlate every channel with a kernel for 224 px, scaled to the image."""
    from scipy.signal import oaconvolve

    kernel = _trimmed(scaled(kernel, image.shape[0] / SIZE))
    reach = kernel.shape[0] // 2
    padded = image.astype(np.float64)
    while reach > (done := (padded.shape[0] - image.shape[0]) // 2):  # a border wider than it is
        wide = min(reach - done, padded.shape[0] - 1)
        padded = np.pad(padded, ((wide, wide), (wide, wide), (0, 0)), mode=border)  # type: ignore[call-overload]
    flipped = kernel[::-1, ::-1, None]
    return np.asarray(oaconvolve(padded, flipped, mode="valid", axes=(0, 1)))


def scaled(kernel: Kernel, scale: float) -> Kernel:
    """Return a kernel with its distances multiplied by `scale`, and the same total weight.

    Parameters
    ----------
    kernel : ndarray of shape (2 r + 1, 2 r + 1), float64
        Its middle is the pixel itself. A gap that a larger scale leaves is filled linearly.
    scale : float

    Returns
    -------
    ndarray of shape (2 s + 1, 2 s + 1), float64
    """
    if scale == 1:
        return kernel
    reach = (kernel.shape[0] - 1) // 2
    weights = kernel
    if (finer := int(np.ceil(scale))) > 1:  # weights between those there are
        from scipy.ndimage import zoom

        weights = zoom(kernel, (2 * reach * finer + 1) / kernel.shape[0], order=1)
        weights = weights * (kernel.sum() / weights.sum())
        scale, reach = scale / finer, reach * finer
    wide = int(np.ceil(reach * scale))
    place = np.arange(-reach, reach + 1) * scale + wide
    spread = np.maximum(0, 1 - np.abs(np.arange(2 * wide + 1)[:, None] - place))
    return np.asarray(spread @ weights @ spread.T)


def _trimmed(kernel: Kernel) -> Kernel:
    """Return a kernel without the outer rings that weigh nothing."""
    while len(kernel) > 1 and not (kernel[[0, -1]].any() or kernel[:, [0, -1]].any()):
        kernel = kernel[1:-1, 1:-1]
    return kernel
