"""BreastMNIST: ultrasound of layered tissue, with or without a lesion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.08, shade=0.06, grain=0.0)
_NO_LESION = 0.23
"""Share of class 1 ('normal, benign') that shows no lesion at all."""


class Lesion(NamedTuple):
    """What radiologists describe: shape, margin, echo and what lies behind."""

    size: float
    """Mean radius, in sides of the image."""
    tallness: float
    """Height over width: benign lesions lie flat."""
    lobes: float
    """Relative amplitude of a lobulated outline."""
    spikes: float
    """Relative amplitude of a spiculated outline: seen from 64 px on."""
    darkness: float
    """Loss of echo inside."""
    shadow: float
    """Loss of echo behind; negative for the enhancement behind a cyst."""
    calcification: float
    """Bright points inside: seen from 128 px on."""
    stipple: float
    """Contrast of the finest echoes of the lesion and the tissue behind: from 128 px on."""


_BY_CLASS = (
    Lesion(0.23, 1.05, 0.16, 0.14, 0.80, 0.85, 1.0, 0.80),
    Lesion(0.12, 0.58, 0.06, 0.02, 0.55, -0.30, 0.1, 0.20),
)
_JITTER = Lesion(0.045, 0.16, 0.05, 0.04, 0.13, 0.22, 0.35, 0.25)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a breast scan; class 0 is malignant, 1 normal or benign. Returns (n, n)."""
    lesion = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    tissue = _layers(canvas, rng, difficulty)
    shows_lesion = rng.random() >= _NO_LESION or label == 0
    with_lesion = _add_lesion(canvas, rng, tissue, lesion)
    image = with_lesion if shows_lesion else tissue
    # Speckle multiplies the echo, and is wider than deep because the beam is.
    speckle = canvas.noise(rng, 22, 88, slope=0.0, stretch=2.0)
    image *= 1.0 + np.float32(0.3 * lesion.stipple) * canvas.noise(rng, FINEST, FINEST)
    image = image * np.exp(np.float32(0.26 + 0.1 * difficulty) * speckle)
    return acquire(canvas, rng, image, _DEVICE, difficulty)


def _layers(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> Plane:
    """Return skin, fat, gland and muscle from top to bottom, dimming with depth."""
    warp = canvas.noise(rng, 3, 6, stretch=2.0)
    tilt = about(rng, 0.0, 0.12)
    depth = canvas.y + np.float32(tilt) * (canvas.x - 0.5) + np.float32(0.035) * warp
    fat_end, gland_end = about(rng, 0.24, 0.1), about(rng, 0.6, 0.14)
    strands = canvas.noise(rng, 4, 32, slope=0.7, stretch=5.0)
    mottle = canvas.noise(rng, 5, 20, stretch=1.6)
    fat, gland, muscle = about(rng, 0.34, 0.06), about(rng, 0.52, 0.06), about(rng, 0.35, 0.06)
    image = fat + (gland - fat) * soft_step(depth - fat_end, 0.06)
    image += (muscle - gland) * soft_step(depth - gland_end, 0.12)
    image *= 1.0 + np.float32(0.28) * strands + np.float32(0.12 + 0.14 * difficulty) * mottle
    image += np.float32(0.4) * np.exp(-(((depth - 0.03) / 0.035) ** 2))
    fascia = np.exp(-(((depth - np.float32(gland_end)) / 0.014) ** 2))
    image += np.float32(about(rng, 0.15, 0.1)) * fascia
    image *= np.exp(-np.float32(about(rng, 0.75, 0.30)) * canvas.y)
    return image


def _add_lesion(canvas: Canvas, rng: np.random.Generator, tissue: Plane, lesion: Lesion) -> Plane:
    cx, cy = about(rng, 0.5, 0.14), about(rng, 0.40, 0.09)
    width = lesion.size / max(lesion.tallness, 0.35) ** 0.5
    height = lesion.size * max(lesion.tallness, 0.35) ** 0.5
    radius = canvas.radius(cx, cy, width, height, about(rng, 0.0, 0.35))
    angle = np.arctan2(canvas.y - np.float32(cy), canvas.x - np.float32(cx))
    outline = np.float32(lesion.lobes) * canvas.noise(rng, 6, 12)
    # The product of two frequencies makes spokes of unequal length and distance.
    spokes = np.cos(int(rng.integers(7, 11)) * angle + about(rng, 0.0, 3.0))
    spokes *= 0.6 + np.cos(int(rng.integers(3, 6)) * angle + about(rng, 0.0, 3.0))
    outline += np.float32(lesion.spikes) * spokes
    inside = canvas.inside(radius + outline, lesion.size, softness=0.03)
    behind = soft_step((canvas.y - np.float32(cy)) * np.ones_like(canvas.x), 0.12)
    column = np.exp(-(((canvas.x - np.float32(cx)) / np.float32(0.9 * width)) ** 4))
    image = tissue * (1.0 - np.float32(lesion.shadow) * behind * column)
    echo = tissue * np.float32(1.0 - min(lesion.darkness, 0.92))
    echo += np.float32(0.02) * (1.0 + canvas.noise(rng, 12, 24))
    image += (echo - image) * inside
    count = 10
    points = rng.normal([[cx], [cy]], lesion.size * 0.4, (2, count))
    lit = np.where(np.arange(count) < rng.poisson(6 * max(lesion.calcification, 0)), 0.5, 0.0)
    bright: Plane = image + canvas.spots(points[0], points[1], 0.0055, lit)
    return bright
