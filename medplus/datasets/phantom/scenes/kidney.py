"""TissueMNIST: a kidney cell under the fluorescence microscope, grey on black."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import Canvas, Plane
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.10, shade=0.06, grain=0.03)


class Nucleus(NamedTuple):
    """What tells kidney cells apart in three stains' maximum projection."""

    radius: float
    """Mean radius of the central nucleus, in sides of the image."""
    stretch: float
    """Length over width."""
    brightness: float
    cytoplasm: float
    """Brightness of the stain around the nucleus."""
    tubule: float
    """How far neighbours line up on a ring around a dark lumen."""
    crowding: float
    """Number of neighbours."""
    clumps: float
    """Contrast of the chromatin's texture: seen from 64 px on."""
    brush: float
    """Contrast of the fine border of the cytoplasm: seen from 128 px on."""


_BY_CLASS = (
    Nucleus(0.155, 1.10, 0.72, 0.24, 0.9, 6.0, 0.15, 0.05),  # collecting duct
    Nucleus(0.135, 1.12, 0.62, 0.42, 0.8, 8.0, 0.30, 0.20),  # distal tubule
    Nucleus(0.115, 1.85, 0.80, 0.12, 0.1, 11.0, 0.25, 0.05),  # glomerular endothelium
    Nucleus(0.095, 2.60, 0.68, 0.10, 0.4, 4.0, 0.10, 0.05),  # interstitial endothelium
    Nucleus(0.105, 1.05, 0.95, 0.04, 0.0, 3.0, 0.55, 0.00),  # leukocyte
    Nucleus(0.150, 1.35, 0.55, 0.14, 0.1, 9.0, 0.35, 0.10),  # podocyte
    Nucleus(0.145, 1.05, 0.50, 0.34, 0.7, 4.0, 0.20, 0.60),  # proximal tubule
    Nucleus(0.130, 1.20, 0.66, 0.52, 1.0, 6.0, 0.15, 0.35),  # thick ascending limb
)
_JITTER = Nucleus(0.016, 0.20, 0.11, 0.07, 0.18, 1.6, 0.10, 0.10)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a nucleus of the class in the middle, with its neighbours. Returns (n, n)."""
    cell = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    angle = about(rng, 0.0, np.pi)
    loose = 0.015 + 0.04 * difficulty
    cx, cy = about(rng, 0.5, loose), about(rng, 0.5, loose)
    image = _surroundings(canvas, rng, cell, (cx, cy))
    long, wide = cell.radius * cell.stretch**0.5, cell.radius / cell.stretch**0.5
    radius = canvas.radius(cx, cy, long, wide, angle) + 0.12 * canvas.noise(rng, 5, 10)
    nucleus = canvas.inside(radius, wide, softness=0.05)
    clumps = canvas.noise(rng, 20, 40, slope=0.0)
    light = np.float32(cell.brightness) * (1.0 + np.float32(cell.clumps * 0.6) * clumps)
    image += (light - image) * nucleus
    return acquire(canvas, rng, np.clip(image, 0.03, 1.0), _DEVICE, difficulty)


def _surroundings(
    canvas: Canvas, rng: np.random.Generator, cell: Nucleus, centre: tuple[float, float]
) -> Plane:
    """Return the cytoplasm and the neighbouring nuclei, on the tubule's ring or scattered."""
    cx, cy = centre
    heading, ring = about(rng, 0.0, np.pi), about(rng, 0.36, 0.08)
    hub = np.array([cx + ring * np.cos(heading), cy + ring * np.sin(heading)])
    slots = 14
    turn = heading + np.pi + (np.arange(slots) // 2 + 1) * np.where(np.arange(slots) % 2, -0.8, 0.8)
    on_ring = hub + ring * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    scattered = np.array([cx, cy]) + rng.normal(0.0, 0.36, (slots, 2))
    tubule = float(np.clip(cell.tubule, 0.0, 1.0))
    place = tubule * on_ring + (1.0 - tubule) * scattered + rng.normal(0.0, 0.03, (slots, 2))
    near = np.hypot(*(place - np.array([cx, cy])).T)
    shown = (np.arange(slots) < cell.crowding) & (near > 1.4 * cell.radius)
    size = rng.uniform(0.5, 0.8, (2, slots)) * cell.radius
    light = rng.uniform(0.45, 0.9, slots) * cell.brightness * shown
    image = canvas.stretched_spots(place[:, 0], place[:, 1], size[0], size[1], light)
    around = canvas.radius(float(hub[0]), float(hub[1]), ring, ring)
    wall = np.exp(-(((around - 1.0) / np.float32(0.42)) ** 2))
    diffuse = canvas.spots(cx, cy, 0.28)
    stain = np.float32(tubule) * wall + np.float32(1.0 - tubule) * diffuse
    texture = 1.0 + np.float32(0.25) * canvas.noise(rng, 8, 32)
    border = 1.0 + np.float32(cell.brush) * canvas.noise(rng, 40, 80, slope=0.0)
    around_it: Plane = np.float32(cell.cytoplasm) * stain * texture * border
    around_it += np.minimum(image, 0.9)
    return around_it
