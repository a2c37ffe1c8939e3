"""BloodMNIST: one stained blood cell among red cells on a pale slide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step, tint
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.05, shade=0.03, grain=0.02, stain=0.03)
_SLIDE = (0.94, 0.85, 0.74)
_RED_CELL = (0.87, 0.66, 0.62)
_NUCLEUS = (0.42, 0.22, 0.55)


class Cell(NamedTuple):
    """What tells blood cells apart under the microscope."""

    radius: float
    """Radius of the cell, in sides of the image."""
    nucleus: float
    """Radius of the nucleus over that of the cell."""
    lobing: float
    """0 a round nucleus, 1 one drawn out into separate lobes."""
    lobes: float
    """Number of lobes."""
    red: float
    """Colour of the cytoplasm."""
    green: float
    blue: float
    chromatin: float
    """Contrast of the nucleus's texture: seen from 64 px on."""
    granules: float
    """Share of the cell that granules fill."""
    grain: float
    """Radius of a granule, in sides of the image: dust below 0.01."""
    granule_red: float
    """Warmth of the granules: 0 violet, 1 orange."""
    darkness: float
    """How dark the nucleus is stained."""
    stipple: float
    """Contrast of the finest texture of nucleus and cytoplasm: seen from 128 px on."""


_BY_CLASS = (
    # basophil
    Cell(0.30, 0.66, 0.45, 2.4, 0.72, 0.55, 0.76, 0.20, 1.00, 0.014, 0.05, 0.75, 0.10),
    # eosinophil
    Cell(0.31, 0.56, 0.85, 2.0, 0.88, 0.64, 0.63, 0.20, 0.85, 0.013, 0.95, 0.80, 0.60),
    # erythroblast
    Cell(0.22, 0.70, 0.00, 1.0, 0.72, 0.66, 0.74, 0.10, 0.02, 0.008, 0.20, 1.00, 0.00),
    # immature
    Cell(0.34, 0.72, 0.30, 1.3, 0.78, 0.66, 0.78, 0.35, 0.40, 0.007, 0.25, 0.60, 0.90),
    # lymphocyte
    Cell(0.24, 0.86, 0.06, 1.0, 0.70, 0.70, 0.86, 0.22, 0.03, 0.007, 0.20, 0.80, 0.70),
    # monocyte
    Cell(0.35, 0.68, 0.45, 1.6, 0.74, 0.70, 0.80, 0.45, 0.08, 0.006, 0.20, 0.60, 0.10),
    # neutrophil
    Cell(0.31, 0.58, 1.00, 3.6, 0.88, 0.74, 0.76, 0.25, 0.30, 0.005, 0.60, 0.85, 0.10),
    # platelet
    Cell(0.11, 0.45, 0.20, 1.2, 0.76, 0.60, 0.80, 0.30, 0.60, 0.008, 0.10, 0.15, 0.60),
)
_JITTER = Cell(0.035, 0.07, 0.16, 0.35, 0.05, 0.05, 0.05, 0.08, 0.16, 0.002, 0.16, 0.12, 0.15)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a blood smear around one cell of the class. Returns (3, n, n)."""
    cell = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    planes = np.stack([canvas.full(value) for value in _SLIDE])
    loose = 0.02 + 0.05 * difficulty
    cx, cy = about(rng, 0.5, loose), about(rng, 0.5, loose)
    _add_red_cells(canvas, rng, planes, (cx, cy), cell.radius)
    ragged = canvas.noise(rng, 4, 16)
    angle = about(rng, 0.0, np.pi)
    radius = canvas.radius(cx, cy, cell.radius, cell.radius * about(rng, 0.92, 0.08), angle)
    body = canvas.inside(radius + np.float32(0.06) * ragged, cell.radius, softness=0.02)
    tint(planes, (cell.red, cell.green, cell.blue), np.float32(0.92) * body)
    _add_granules(canvas, rng, planes, cell, body)
    _add_nucleus(canvas, rng, planes, cell, (cx, cy, angle))
    stipple = np.float32(0.14 * cell.stipple) * canvas.noise(rng, FINEST, FINEST)
    planes *= 1.0 + stipple * body
    return acquire(canvas, rng, planes, _DEVICE, difficulty)


def _add_red_cells(
    canvas: Canvas,
    rng: np.random.Generator,
    planes: Plane,
    centre: tuple[float, float],
    clearance: float,
) -> None:
    """Add discs with pale middles, pushed out of the white cell's way."""
    size = about(rng, 0.17, 0.02)
    count = int(rng.integers(4, 8))
    position = rng.uniform(-0.08, 1.08, (7, 2))[:count]
    offset = position - np.array(centre)
    distance = np.maximum(np.hypot(*offset.T), 1e-3)
    push = np.maximum(distance, clearance + size * rng.uniform(0.85, 1.15, count))
    position = np.array(centre) + offset * (push / distance)[:, None]
    cover = canvas.full(0.0)
    for x, y in position.tolist():
        radius = canvas.radius(x, y, size, size * about(rng, 0.95, 0.1), about(rng, 0.0, 3.0))
        disc = canvas.inside(radius, size, softness=0.02)
        disc *= 1.0 - np.float32(0.6) * np.exp(-((radius / np.float32(0.45)) ** 2))
        np.maximum(cover, disc, out=cover)
    tint(planes, _RED_CELL, cover)


def _add_granules(
    canvas: Canvas, rng: np.random.Generator, planes: Plane, cell: Cell, body: Plane
) -> None:
    """Add granules as the peaks of noise whose cells are as large as a granule."""
    cells = int(np.clip(round(0.36 / max(cell.grain, 0.003)), 16, 64))
    peaks = soft_step(canvas.noise(rng, cells, cells, slope=0.0) + np.float32(0.1), 0.7)
    warm = float(np.clip(cell.granule_red, 0.0, 1.0))
    colour = (0.40 + 0.45 * warm, 0.16 + 0.22 * warm, 0.55 - 0.30 * warm)
    share = np.float32(np.clip(cell.granules, 0.0, 1.0) * 0.85)
    tint(planes, colour, share * peaks * body)


def _add_nucleus(
    canvas: Canvas,
    rng: np.random.Generator,
    planes: Plane,
    cell: Cell,
    pose: tuple[float, float, float],
) -> None:
    """Add a nucleus: lobes on an arc, fused when lobing is low, bridged when it is high."""
    cx, cy, angle = pose
    lobing = float(np.clip(cell.lobing, 0.0, 1.0))
    lobes = int(np.clip(round(cell.lobes), 1, 5)) if lobing > 0.12 else 1
    size = cell.radius * cell.nucleus
    # Lobes share the nucleus's area, so that more of them are smaller.
    lobe = size * (1.0 - lobing * (1.0 - 0.82 / lobes**0.5))
    spread = size - 0.75 * lobe
    turn = angle + np.arange(lobes) * (2.0 * np.pi / (lobes + 0.8))
    position = np.stack([cx + spread * np.cos(turn), cy + spread * np.sin(turn)], axis=1)
    field = canvas.full(9.0)
    for x, y in position.tolist():
        ry = lobe * about(rng, 0.95, 0.12)
        np.minimum(field, canvas.radius(x, y, lobe, ry, about(rng, 0.0, 1.5)), out=field)
    if lobes > 1:
        middle = position.mean(axis=0) * 0.5 + np.array([cx, cy]) * 0.5
        bridge = canvas.radius(middle[0], middle[1], 0.5 * size, 0.5 * size)
        np.minimum(field, bridge + np.float32(0.5 * lobing), out=field)
    texture = canvas.noise(rng, 16, 64, slope=0.2)
    field += np.float32(0.06) * canvas.noise(rng, 6, 12)
    cover = canvas.inside(field, lobe, softness=0.018)
    alpha = np.float32(0.45 + 0.5 * min(cell.darkness, 1.1)) - np.float32(cell.chromatin) * (
        0.35 * np.clip(texture, -1.0, 1.5)
    )
    tint(planes, _NUCLEUS, cover * np.clip(alpha, 0.0, 1.0))
