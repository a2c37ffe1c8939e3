"""Corrupting batches: each image with random numbers of its own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.corruptions import blur, digital, noise, overlays
from medplus.corruptions.named import Corruption
from medplus.corruptions.table import FAMILIES

Image = NDArray[np.uint8]

_METHODS: Mapping[str, Callable[..., Image]] = {
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "gaussian_noise": noise.gaussian_noise,
    "speckle_noise": noise.speckle_noise,
    "impulse_noise": noise.impulse_noise,
    "shot_noise": noise.shot_noise,
    "defocus_blur": blur.defocus_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "gaussian_blur": blur.gaussian_blur,
    "brightness_up": digital.brightness,
    "brightness_down": digital.brightness,
    "contrast_up": digital.contrast,
    "contrast_down": digital.contrast,
    "saturate": digital.saturate,
    "stain_deposit": overlays.stain_deposit,
    "bubble": overlays.bubble,
    "black_corner": overlays.black_corner,
    "characters": overlays.characters,
    "gamma_corr_up": digital.gamma,
    "gamma_corr_down": digital.gamma,
}
_IN_COLOUR = (*FAMILIES["noise"], "characters")
"""What differs between the channels of a grey image, which is made grey again."""


def corrupt(images: Image, corruption: Corruption, positions: ArrayLike) -> Image:
    """Return a batch of images made worse.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side) or (n, side, side, C)
        C is 1 or 3; values are not changed.
    corruption : Corruption
        Settled.
    positions : array-like of int, shape (n,)
        The images' places in their split: with corruption and severity they seed what is random.

    Returns
    -------
    ndarray of uint8
        Of the same shape.

    Examples
    --------
    >>> grey = np.full((2, 28, 28), 100, dtype=np.uint8)
    >>> darker = corrupt(grey, Corruption("brightness_down", 5, "breastmnist"), [0, 1])
    >>> int(darker[0, 0, 0])
    30
    """
    from PIL import Image as Pillow

    batch = images if images.ndim == 4 else images[..., None]
    recoloured = batch.shape[-1] == 1 and corruption.name in _IN_COLOUR
    out = np.empty_like(batch)
    for row, (image, position) in enumerate(zip(batch, np.asarray(positions), strict=True)):
        seed = [int(position), zlib.crc32(corruption.name.encode()), corruption.severity]
        done = _METHODS[corruption.name](
            np.repeat(image, 3, axis=2) if recoloured else np.ascontiguousarray(image),
            np.random.default_rng(seed),
            *corruption.parameters,
        )
        out[row] = digital.from_pillow(Pillow.fromarray(done).convert("L")) if recoloured else done
    return out.reshape(images.shape)


class CorruptedImages:
    """Images that are corrupted as they are read: an array, as far as it is read by slices.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side) or (n, side, side, 3)
        Possibly memory-mapped.
    corruption : Corruption
        Settled.
    positions : ndarray of int, shape (n,)
    """

    def __init__(self, images: Image, corruption: Corruption, positions: NDArray[Any]) -> None:
        self._images, self._corruption, self._positions = images, corruption, positions
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice) -> Image:
        return corrupt(np.asarray(self._images[rows]), self._corruption, self._positions[rows])
