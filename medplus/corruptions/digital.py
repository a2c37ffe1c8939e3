"""Too few pixels, JPEG, brightness, contrast, gamma, saturation: through Pillow where it has it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageEnhance

from medplus.corruptions.noise import Image, as_image


def pixelate(image: Image, rng: np.random.Generator, factor: float) -> Image:
    """Average over blocks: to `factor` times as many pixels each way, and back."""
    picture = to_pillow(image)
    height, width = image.shape[:2]
    few = (max(int(width * factor), 1), max(int(height * factor), 1))
    coarse = picture.resize(few, Pillow.Resampling.BOX)
    return from_pillow(coarse.resize((width, height), Pillow.Resampling.BOX))


def jpeg_compression(image: Image, rng: np.random.Generator, quality: float) -> Image:
    """Write as JPEG of that `quality` and read again."""
    file = BytesIO()
    to_pillow(image).save(file, "JPEG", quality=int(quality))
    with Pillow.open(file) as read:
        return from_pillow(read)


def brightness(image: Image, rng: np.random.Generator, factor: float) -> Image:
    """Multiply all values."""
    return from_pillow(ImageEnhance.Brightness(to_pillow(image)).enhance(factor))


def contrast(image: Image, rng: np.random.Generator, factor: float) -> Image:
    """Multiply the distance of all values from the image's mean grey."""
    return from_pillow(ImageEnhance.Contrast(to_pillow(image)).enhance(factor))


def gamma(image: Image, rng: np.random.Generator, power: float) -> Image:
    """Raise values, as shares of white, to a power; by torchvision's table of 256 values."""
    table = np.floor((256 - 1e-3) * (np.arange(256) / 255) ** power).astype(np.uint8)
    return table[image]


def saturate(image: Image, rng: np.random.Generator, more: float) -> Image:
    """Add to the saturation, from 0 to 1, of every pixel."""
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] + more, 0, 1)
    return as_image(hsv_to_rgb(hsv))


def to_pillow(image: Image) -> Pillow.Image:
    """Return a picture of an image with one channel or three."""
    return Pillow.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def from_pillow(picture: Pillow.Image) -> Image:
    """Return an image of shape (H, W, C)."""
    values = np.asarray(picture)
    return values[..., None] if values.ndim == 2 else values
