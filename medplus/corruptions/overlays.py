"""What lies on a picture: bubbles, stains, black corners, characters.

Each is drawn as masks of 224 × 224 pixels, which are brought to the image's size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from medplus.corruptions.blur import SIZE
from medplus.corruptions.noise import Image

_INKS = 24, 24, 24, 24, 32
"""Height and width in pixels of a stain, by the number of stains."""
_EM = 28.0
"""Pillow's font has letters as high as OpenCV's Hershey Duplex at this size per unit of scale."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def bubble(image: Image, rng: np.random.Generator, max_radius: float, most: float) -> Image:
    """Draw 7 to `most` translucent white disks with a rim, of radius 3 to `max_radius`."""
    mask = Pillow.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(7, int(most), endpoint=True))):
        radius = int(rng.integers(3, int(max_radius), endpoint=True))
        x, y = rng.integers(radius, SIZE - radius, size=2, endpoint=True).tolist()
        for reach, alpha in ((radius + 2, 130), (radius, 100)):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=alpha)
    return _laid_over(image, np.asarray(mask) / 255, 255)


def stain_deposit(image: Image, rng: np.random.Generator, most: float) -> Image:
    """Drop 1 to `most` black stains of irregular shape."""
    mask = np.zeros((SIZE, SIZE))
    side = _INKS[min(int(most), len(_INKS)) - 1]
    for _ in range(int(rng.integers(1, int(most), endpoint=True))):
        x, y = rng.integers(10, SIZE - side - 10, size=2, endpoint=True)
        part = mask[y : y + side, x : x + side]
        np.maximum(part, _stain(side, rng), out=part)
    return _laid_over(image, mask, 0)


def _stain(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a disk with a wavy edge: ones where there is ink."""
    steps = np.linspace(-1, 1, side)
    angle = np.arctan2(steps[:, None], steps)
    waves = np.arange(2, 7)
    size, phase = rng.uniform(0, 0.35 / waves), rng.uniform(0, 2 * np.pi, len(waves))
    edge = 0.7 + (size * np.cos(waves * angle[..., None] + phase)).sum(axis=-1)
    return np.asarray(np.hypot(steps[:, None], steps) <= edge, dtype=np.float64)


def black_corner(image: Image, rng: np.random.Generator, factor: float) -> Image:
    """Blacken all that lies outside a disk of `factor` times half the image's side."""
    steps = np.arange(SIZE) - SIZE // 2
    outside = np.hypot(steps[:, None], steps) > int(SIZE // 2 * factor)
    return _laid_over(image, outside.astype(np.float64), 0)


def characters(
    image: Image, rng: np.random.Generator, words: float, letters: float, scale: float
) -> Image:
    """Write 1 to `words` words of 3 to `letters` letters, small and in any colour."""
    for _ in range(int(rng.integers(1, int(words), endpoint=True))):
        n = int(rng.integers(3, int(letters), endpoint=True))
        size = float(rng.integers(14, int(scale * 100), endpoint=True)) / 100
        text = "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), size=n))
        x, y = rng.integers(10, SIZE - 8 * n), rng.integers(10, SIZE - 10, endpoint=True)
        mask = Pillow.new("L", (SIZE, SIZE))
        font = ImageFont.load_default(_EM * size)
        ImageDraw.Draw(mask).text((int(x), int(y)), text, fill=255, font=font, anchor="ls")
        image = _laid_over(image, np.asarray(mask) / 255, rng.integers(0, 256, size=3))
    return image


def _laid_over(image: Image, mask: NDArray[np.float64], colour: int | NDArray[np.int64]) -> Image:
    height, width = image.shape[:2]
    if (height, width) != (SIZE, SIZE):
        opaque = Pillow.fromarray(mask.astype(np.float32))
        mask = np.asarray(opaque.resize((width, height), Pillow.Resampling.BOX), np.float64)
    mixed = image + (colour - image.astype(np.float64)) * mask[..., None]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
