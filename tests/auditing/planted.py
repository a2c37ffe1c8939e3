"""Images with structure, and the faults that are planted among them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 28


def scenes(n, seed=0, side=SIDE):
    """Return smooth random pictures, uint8, shape (n, side, side): no two are alike."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(n, side, side)), (0, 1.5, 1.5), mode="wrap")
    low, high = noise.min((1, 2), keepdims=True), noise.max((1, 2), keepdims=True)
    return (20 + 200 * (noise - low) / (high - low)).astype(np.uint8)


def jpeg(image, rng):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(50, 96)))
    return np.asarray(Image.open(stream))


def resized(image, rng):
    side = image.shape[0]
    other = round(side * rng.uniform(0.8, 1.2))
    small = Image.fromarray(image).resize((other, other), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def shifted(image, rng):
    down, right = rng.integers(0, 5, 2)
    side = image.shape[0]
    return np.pad(image, 2, mode="edge")[down : down + side, right : right + side]


def flipped(image, rng):
    return np.ascontiguousarray((image[::-1], image[:, ::-1], image[::-1, ::-1])[rng.integers(3)])


def brightened(image, rng):
    return np.clip(image * rng.uniform(0.9, 1.1), 0, 255).astype(np.uint8)


FAULTS = {f.__name__: f for f in (jpeg, resized, shifted, flipped, brightened)}


def everything(image, rng):
    """All of them, one after the other."""
    for fault in FAULTS.values():
        image = fault(image, rng)
    return image
