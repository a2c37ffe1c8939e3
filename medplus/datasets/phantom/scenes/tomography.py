"""OCTMNIST: a section through the retina by optical coherence tomography."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.12, shade=0.05, grain=0.0)
_DEPTHS = np.array(
    [-9.0, -0.02, 0.0, 0.12, 0.2, 0.34, 0.42, 0.55, 0.62, 0.84, 0.87, 0.9, 0.93, 1.0]
)
_LIGHT = np.array([0.06, 0.06, 0.75, 0.6, 0.45, 0.5, 0.3, 0.42, 0.26, 0.24, 0.55, 0.35, 0.9, 0.9])
"""Echo by depth within the retina: 0 its surface, 1 the bottom of the pigment epithelium."""


class Macula(NamedTuple):
    """What the four diagnoses do to the layers, in sides of the image."""

    thickness: float
    """Of the retina."""
    pit: float
    """Depth of the fovea."""
    dome: float
    """Height by which a membrane lifts the pigment epithelium."""
    fluid: float
    """Share of dark fluid above the dome."""
    cysts: float
    """Expected number of cysts within the retina."""
    drusen: float
    """Height of the many small bumps of the pigment epithelium: seen from 64 px on."""
    roughness: float
    """Unevenness of the pigment epithelium: seen from 64 px on."""
    stipple: float
    """Contrast of the finest echoes of the retina: seen from 128 px on."""


_BY_CLASS = (
    Macula(0.25, 0.02, 0.13, 0.60, 1.0, 0.006, 0.012, 0.90),  # choroidal neovascularisation
    Macula(0.33, 0.00, 0.01, 0.15, 9.0, 0.003, 0.003, 0.50),  # diabetic macular oedema
    Macula(0.24, 0.05, 0.01, 0.05, 0.0, 0.032, 0.008, 0.50),  # drusen
    Macula(0.24, 0.08, 0.00, 0.00, 0.0, 0.001, 0.001, 0.00),  # normal
)
_JITTER = Macula(0.022, 0.016, 0.022, 0.15, 1.4, 0.007, 0.002, 0.2)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a section of the class. Returns (n, n)."""
    macula = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    loose = 0.5 + difficulty
    fovea = about(rng, 0.5, 0.12 * loose)
    x = canvas.x - np.float32(fovea)
    floor = about(rng, 0.62, 0.10 * loose) + about(rng, 0.0, 0.12 * loose) * x
    floor = floor + np.float32(about(rng, 0.1, 0.3 * loose)) * x * x
    lifted = floor - _elevation(canvas, rng, macula, fovea)
    pit = np.float32(macula.pit) * np.exp(-((x / 0.11) ** 2))
    swelling = np.float32(0.5 * macula.dome) * np.exp(-((x / 0.25) ** 2))
    surface = floor - np.float32(macula.thickness) - swelling + pit
    surface = surface + np.float32(0.004) * canvas.noise(rng, 4, 8)[:1]
    depth = (canvas.y - surface) / np.maximum(lifted - surface, 0.05)
    image = np.interp(depth, _DEPTHS, _LIGHT).astype(np.float32)
    below = canvas.y - lifted
    choroid = np.float32(0.42) * np.exp(-np.clip(below, 0.0, None) / np.float32(0.13))
    choroid *= 1.0 + np.float32(0.35) * canvas.noise(rng, 10, 20, stretch=2.0)
    image += (choroid - image) * soft_step(below - 0.012, 0.012)
    _add_fluid(canvas, rng, image, macula, (fovea, surface, lifted, floor))
    speckle = canvas.noise(rng, 32, 128, slope=0.0, stretch=1.5)
    image *= 1.0 + np.float32(0.3 * macula.stipple) * canvas.noise(rng, FINEST, FINEST)
    image *= np.exp(np.float32(0.20 + 0.22 * difficulty) * speckle)
    return acquire(canvas, rng, image + np.float32(0.01), _DEVICE, difficulty)


def _elevation(canvas: Canvas, rng: np.random.Generator, macula: Macula, fovea: float) -> Plane:
    """Return how far the pigment epithelium is lifted at each column, (1, n)."""
    count = 9
    place = rng.uniform(0.05, 0.95, count)
    width = rng.uniform(0.018, 0.038, count)
    height = rng.uniform(0.5, 1.3, count) * max(macula.drusen, 0.0)
    bumps = (height * np.exp(-(((canvas.x.T - place) / width) ** 2))).sum(axis=1)[None, :]
    off = fovea + about(rng, 0.0, 0.12)
    dome = np.exp(-(((canvas.x - np.float32(off)) / np.float32(about(rng, 0.16, 0.05))) ** 2))
    grain = canvas.noise(rng, 40, 80, slope=0.0)[canvas.n // 2][None, :]
    elevation = bumps + max(macula.dome, 0.0) * dome + max(macula.roughness, 0.0) * grain
    lifted: Plane = elevation.astype(np.float32)
    return lifted


def _add_fluid(
    canvas: Canvas,
    rng: np.random.Generator,
    image: Plane,
    macula: Macula,
    bounds: tuple[float, Plane, Plane, Plane],
) -> None:
    """Darken cysts within the retina, and fluid between it and the pigment epithelium."""
    fovea, surface, lifted, floor = bounds
    most = 14
    place = fovea + rng.normal(0.0, 0.14, most)
    column = np.clip((place * canvas.n).astype(int), 0, canvas.n - 1)
    level = surface[0, column] + rng.uniform(0.25, 0.75, most) * macula.thickness
    size = rng.uniform(0.016, 0.042, (2, most))
    shown = np.clip(macula.cysts - np.arange(most), 0.0, 1.0)
    cysts = canvas.stretched_spots(place, level, size[0], size[1], 1.6 * shown)
    retina = soft_step(canvas.y - surface - 0.02, 0.02) * soft_step(lifted - 0.03 - canvas.y, 0.02)
    alpha = soft_step(cysts - 0.75, 0.5) * retina
    layer = np.float32(max(macula.fluid, 0.0)) * np.exp(
        -(((lifted - 0.045 - canvas.y) / 0.02) ** 2)
    )
    edge = np.exp(-(((canvas.x - np.float32(fovea)) / 0.22) ** 4))
    alpha = np.maximum(alpha, layer * edge)
    image += (np.float32(0.08) - image) * np.minimum(alpha, 0.95)
    # Bruch's membrane stays in place below a dome, and the dome itself is bright.
    mound = soft_step(floor - canvas.y, 0.02) * soft_step(canvas.y - lifted - 0.03, 0.02)
    image += (np.float32(0.48) - image) * np.float32(0.8) * mound
