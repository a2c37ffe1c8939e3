"""DermaMNIST: a pigmented lesion under the dermatoscope, sometimes behind hairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step, tint
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.035, shade=0.03, grain=0.015, stain=0.02)


class Lesion(NamedTuple):
    """The dermatoscopist's criteria."""

    size: float
    """Mean radius, in sides of the image."""
    irregularity: float
    """Relative amplitude of the border's outline."""
    blur: float
    """Width of the border, in sides of the image."""
    asymmetry: float
    """Contrast between the lesion's regions."""
    red: float
    """Colour."""
    green: float
    blue: float
    opacity: float
    network: float
    """Contrast of the pigment network: seen from 64 px on."""
    scales: float
    """Contrast of white scales and milia: seen from 64 px on."""
    veil: float
    """Share of a blue-white veil, or of a white centre."""
    vessels: float
    """Contrast of fine vessels."""
    stipple: float
    """Contrast of dots of pigment or keratin: seen from 128 px on."""


_BY_CLASS = (
    # actinic keratosis
    Lesion(0.27, 0.22, 0.12, 0.25, 0.76, 0.42, 0.40, 0.60, 0.02, 0.55, 0.05, 0.20, 0.90),
    # basal cell carcinoma
    Lesion(0.24, 0.18, 0.08, 0.25, 0.78, 0.50, 0.50, 0.65, 0.02, 0.15, 0.25, 0.60, 0.10),
    # benign keratosis
    Lesion(0.29, 0.14, 0.03, 0.25, 0.58, 0.42, 0.32, 0.75, 0.12, 0.45, 0.05, 0.02, 0.60),
    # dermatofibroma
    Lesion(0.20, 0.06, 0.10, 0.05, 0.66, 0.46, 0.40, 0.65, 0.22, 0.05, 0.60, 0.05, 0.20),
    # melanoma
    Lesion(0.31, 0.28, 0.04, 0.65, 0.32, 0.22, 0.22, 0.92, 0.30, 0.08, 0.35, 0.05, 0.90),
    # naevus
    Lesion(0.22, 0.08, 0.06, 0.12, 0.48, 0.32, 0.24, 0.80, 0.40, 0.02, 0.02, 0.02, 0.30),
    # vascular lesion
    Lesion(0.19, 0.10, 0.05, 0.20, 0.60, 0.14, 0.24, 0.90, 0.00, 0.02, 0.10, 0.05, 0.00),
)
_JITTER = Lesion(0.05, 0.06, 0.02, 0.12, 0.06, 0.035, 0.03, 0.09, 0.10, 0.12, 0.10, 0.12, 0.2)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a lesion of the class on skin. Returns (3, n, n)."""
    lesion = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    tone = about(rng, 0.0, 0.03)
    colours = (about(rng, 0.86, 0.02) + tone, about(rng, 0.64, 0.03) + tone, 0.58 + tone)
    planes = np.stack([canvas.full(value) for value in colours])
    planes *= 1.0 + np.float32(0.035) * canvas.noise(rng, 6, 48, slope=0.5)
    loose = 0.02 + 0.04 * difficulty
    cx, cy = about(rng, 0.5, loose), about(rng, 0.5, loose)
    radius = canvas.radius(
        cx, cy, lesion.size, lesion.size * about(rng, 0.85, 0.2), about(rng, 0, 3)
    )
    radius += np.float32(lesion.irregularity) * canvas.noise(rng, 4, 32, slope=0.9)
    body = canvas.inside(radius, lesion.size, softness=max(lesion.blur, 0.015))
    _add_pigment(canvas, rng, planes, lesion, body)
    _add_structures(canvas, rng, planes, lesion, (body, radius))
    _add_hairs(canvas, rng, planes)
    corner = canvas.radius(0.5, 0.5, 0.72, 0.72)
    planes *= 1.0 - np.float32(about(rng, 0.25, 0.2)) * np.clip(corner - 0.55, 0.0, None)
    return acquire(canvas, rng, planes, _DEVICE, difficulty)


def _add_pigment(
    canvas: Canvas, rng: np.random.Generator, planes: Plane, lesion: Lesion, body: Plane
) -> None:
    """Tint the body, regions of an asymmetric lesion differently."""
    regions = np.float32(0.45 * lesion.asymmetry) * canvas.noise(rng, 3, 6)
    alpha = np.clip(np.float32(lesion.opacity) + regions, 0.1, 1.0) * body
    tint(planes, (lesion.red, lesion.green, lesion.blue), alpha)
    dark = np.clip(regions - 0.05, 0.0, 0.6) * body
    tint(planes, (0.16, 0.10, 0.10), dark)
    # A net of lines: the zero crossings of noise whose cells are the net's holes.
    holes = np.abs(canvas.noise(rng, 20, 20))
    net = np.clip(1.0 - holes * np.float32(2.5), 0.0, 1.0)
    tint(planes, (0.22, 0.13, 0.10), np.float32(0.75 * max(lesion.network, 0.0)) * net * body)


def _add_structures(
    canvas: Canvas,
    rng: np.random.Generator,
    planes: Plane,
    lesion: Lesion,
    shape: tuple[Plane, Plane],
) -> None:
    """Add veil, scales and vessels."""
    body, radius = shape
    centre = np.exp(-((radius / np.float32(0.6)) ** 2)) * (
        0.7 + np.float32(0.3) * canvas.noise(rng, 4, 8)
    )
    tint(planes, (0.80, 0.76, 0.80), np.clip(np.float32(lesion.veil) * centre, 0.0, 0.9))
    flakes = soft_step(canvas.noise(rng, 28, 56, slope=0.3) - 0.7, 1.0)
    tint(planes, (0.95, 0.88, 0.78), np.float32(max(lesion.scales, 0.0)) * flakes * body)
    lines = np.clip(1.0 - np.abs(canvas.noise(rng, 10, 40, slope=0.6)) * 7.0, 0.0, 1.0)
    planes *= 1.0 + np.float32(0.18 * lesion.stipple) * body * canvas.noise(rng, FINEST, FINEST)
    near = np.clip(1.6 - radius, 0.0, 1.0)
    tint(planes, (0.70, 0.16, 0.20), np.float32(max(lesion.vessels, 0.0)) * lines * near)


def _add_hairs(canvas: Canvas, rng: np.random.Generator, planes: Plane) -> None:
    """Add hairs to a quarter of the images, whatever the class."""
    most, steps = 9, 110
    hairy = rng.random() < 0.25
    start, angle = rng.uniform(-0.1, 1.1, (2, most)), rng.normal(about(rng, 0, 3), 0.5, most)
    t = np.linspace(-0.5, 0.5, steps)[:, None]
    bend = angle + rng.normal(0.0, 0.6, most) * t
    x, y = start[0] + t * np.cos(bend), start[1] + t * np.sin(bend)
    if hairy:
        count = int(rng.integers(2, most + 1))
        hairs = canvas.strokes(x[:, :count].ravel(), y[:, :count].ravel(), 0.0042, 1.0 / steps)
        tint(planes, (0.14, 0.09, 0.07), np.float32(0.8) * hairs)
