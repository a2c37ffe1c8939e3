"""PathMNIST: nine tissues of the colon, stained with haematoxylin and eosin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.04, shade=0.02, grain=0.012, stain=0.03)
# Optical densities of the two stains in red, green and blue (Ruifrok & Johnston, 2001, rescaled).
_HAEMATOXYLIN = np.array([1.00, 1.10, 0.48], dtype=np.float32)
_EOSIN = np.array([0.10, 0.95, 0.48], dtype=np.float32)


class Tissue(NamedTuple):
    """A tissue's architecture."""

    eosin: float
    """Density of the pink ground."""
    haze: float
    """Density of diffuse haematoxylin."""
    fibres: float
    """Contrast of parallel fibres."""
    waviness: float
    """Bending of the fibres."""
    pace: float
    """Fibres per image side."""
    vacuoles: float
    """Share of the ground that round empty cells take."""
    glands: float
    """How far nuclei and lumina form glands."""
    nuclei: float
    """Number of nuclei per image."""
    size: float
    """Radius of a nucleus, in sides of the image: seen from 64 px on."""
    spindle: float
    """Length over width of a nucleus."""
    mottle: float
    """Contrast of amorphous clumps."""
    chromatin: float
    """Contrast of the finest texture, of nuclei above all: seen from 128 px on."""


_BY_CLASS = (
    Tissue(0.50, 0.05, 0.05, 0.3, 6.0, 1.00, 0.00, 5.0, 0.010, 1.5, 0.10, 0.1),  # adipose
    Tissue(0.06, 0.01, 0.00, 0.0, 4.0, 0.00, 0.00, 0.0, 0.010, 1.0, 0.05, 0.0),  # background
    Tissue(0.55, 0.22, 0.15, 0.8, 5.0, 0.10, 0.00, 60.0, 0.009, 1.2, 0.75, 0.5),  # debris
    Tissue(0.35, 0.20, 0.00, 0.3, 4.0, 0.00, 0.00, 260.0, 0.017, 1.0, 0.15, 0.5),  # lymphocytes
    Tissue(0.20, 0.15, 0.45, 1.2, 4.0, 0.10, 0.05, 14.0, 0.012, 1.3, 0.25, 0.2),  # mucus
    Tissue(0.75, 0.06, 0.40, 0.25, 11.0, 0.00, 0.00, 40.0, 0.012, 3.2, 0.10, 0.2),  # muscle
    Tissue(0.45, 0.18, 0.05, 0.4, 5.0, 0.00, 1.00, 130.0, 0.014, 1.2, 0.12, 0.3),  # mucosa
    Tissue(0.62, 0.08, 0.42, 1.0, 7.0, 0.05, 0.00, 65.0, 0.012, 2.2, 0.20, 0.3),  # stroma
    Tissue(0.50, 0.30, 0.08, 0.7, 5.0, 0.03, 0.55, 190.0, 0.021, 1.35, 0.30, 0.8),  # carcinoma
)
_JITTER = Tissue(0.09, 0.05, 0.10, 0.20, 1.2, 0.07, 0.14, 24.0, 0.002, 0.3, 0.10, 0.15)
_MOST_NUCLEI = 320


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a patch of the tissue. Returns (3, n, n)."""
    tissue = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    eosin, blue = _ground(canvas, rng, tissue)
    ring, lumen = _glands(canvas, rng, tissue)
    eosin *= 1.0 - lumen
    blue = blue * (1.0 - lumen) + np.float32(0.42) * ring
    chromatin = canvas.noise(rng, FINEST, FINEST)
    nuclei = _nuclei(canvas, rng, tissue, ring, lumen)
    blue += nuclei * (0.85 + np.float32(0.6 * tissue.chromatin) * chromatin)
    eosin *= 1.0 + np.float32(0.25 * tissue.chromatin) * chromatin
    # The stain's strength differs between laboratories.
    pink, purple = about(rng, 0.75, 0.16), about(rng, 0.80, 0.16)
    density = np.clip(eosin, 0.0, None) * np.float32(pink) * _EOSIN[:, None, None]
    density += np.clip(blue, 0.0, None) * np.float32(purple) * _HAEMATOXYLIN[:, None, None]
    planes = np.float32(0.95) * np.exp(-density)
    if rng.random() < 0.5:
        planes = planes.transpose(0, 2, 1)
    return acquire(canvas, rng, planes, _DEVICE, difficulty)


def _ground(canvas: Canvas, rng: np.random.Generator, tissue: Tissue) -> tuple[Plane, Plane]:
    """Return the densities of eosin and of haematoxylin between the nuclei."""
    bend = canvas.noise(rng, 3, 12)
    tilt = about(rng, 0.0, 0.6)
    across = canvas.y + np.float32(tilt) * canvas.x + np.float32(0.09 * tissue.waviness) * bend
    fibres = np.sin(np.float32(2 * np.pi * tissue.pace) * across)
    strands = canvas.noise(rng, 12, 48, slope=0.3, stretch=4.0)
    clumps = canvas.noise(rng, 7, 56, slope=0.5)
    eosin = 1.0 + np.float32(0.7 * tissue.fibres) * (0.6 * fibres + 0.6 * strands)
    eosin += np.float32(0.6 * tissue.mottle) * clumps
    eosin *= np.float32(tissue.eosin)
    if tissue.vacuoles > 0.15:
        eosin *= 1.0 - _vacuoles(canvas, rng, min(tissue.vacuoles, 1.0))
    mottled = np.clip(1.0 + np.float32(1.5 * tissue.mottle) * clumps[::-1], 0.0, None)
    return eosin, np.float32(tissue.haze) * mottled


def _vacuoles(canvas: Canvas, rng: np.random.Generator, share: float) -> Plane:
    """Return empty fat cells: the inside of a jittered honeycomb with thin walls."""
    private = np.random.default_rng(int(rng.integers(2**62)))
    per_side = int(private.integers(4, 7))
    grid = np.arange(-1, per_side + 1)
    column, row = np.meshgrid(grid, grid)
    x = (column + 0.5 + 0.5 * (row % 2) + private.uniform(-0.17, 0.17, row.shape)) / per_side
    y = (row + 0.5 + private.uniform(-0.17, 0.17, row.shape)) / per_side
    kept = private.random(row.shape) < share
    # The larger of many narrow spots marks the nearest cell; where two are level runs a wall.
    sharp = 4.5 * per_side
    near = canvas.spots(x.ravel(), y.ravel(), 1.0 / sharp, kept.ravel() * 1.0)
    return soft_step(near - 0.10, 0.12) * np.float32(0.96)


def _glands(canvas: Canvas, rng: np.random.Generator, tissue: Tissue) -> tuple[Plane, Plane]:
    """Return the wall and the lumen of glands; tidy rings if mucosa, ragged if carcinoma."""
    order = float(np.clip(tissue.glands, 0.0, 1.0))
    count = 7
    place = rng.uniform(0.0, 1.0, 2) + np.array(
        [
            [0.0, 0.0],
            [0.42, 0.08],
            [0.84, -0.02],
            [0.2, 0.42],
            [0.64, 0.46],
            [0.02, 0.84],
            [0.46, 0.86],
        ]
    )
    place = (place + rng.normal(0.0, 0.03 + 0.08 * (1.0 - order), (count, 2))) % 1.2 - 0.1
    private = np.random.default_rng(int(rng.integers(2**62)))
    if order < 0.15:
        return canvas.full(0.0), canvas.full(0.0)
    field = canvas.full(9.0)
    for x, y in place.tolist():
        size = private.uniform(0.13, 0.18) * (0.75 + 0.25 * order)
        np.minimum(field, canvas.radius(x, y, size, size * private.uniform(0.8, 1.3)), out=field)
    field += np.float32(0.30 * (1.0 - order) + 0.05) * canvas.noise(private, 5, 20)
    ring = np.exp(-(((field - 0.85) / np.float32(0.16)) ** 2)) * np.float32(order)
    lumen = soft_step(0.45 - field, 0.15) * np.float32(0.85 * order)
    return ring, lumen


def _nuclei(
    canvas: Canvas, rng: np.random.Generator, tissue: Tissue, ring: Plane, lumen: Plane
) -> Plane:
    """Return the nuclei's cover, gathered in the glands' walls where there are glands."""
    private = np.random.default_rng(int(rng.integers(2**62)))
    place = private.uniform(0.0, 1.0, (_MOST_NUCLEI, 2))
    scale = private.uniform(0.75, 1.3, _MOST_NUCLEI)
    lot = private.random(_MOST_NUCLEI)
    count = int(np.clip(tissue.nuclei - 15, 0, _MOST_NUCLEI))
    if count == 0:
        return canvas.full(0.0)
    place, scale, lot = place[:count], scale[:count], lot[:count]
    pixel = (place * canvas.n).astype(int)
    order = float(np.clip(tissue.glands, 0.0, 1.0))
    wanted = 1.0 - order + order * (0.12 + 1.2 * ring[pixel[:, 1], pixel[:, 0]])
    shown = (lot < wanted) & (lumen[pixel[:, 1], pixel[:, 0]] < 0.3)
    size = max(tissue.size, 0.006) * scale
    spindle = max(tissue.spindle, 1.0) ** 0.5
    cover = canvas.stretched_spots(
        place[:, 0], place[:, 1], size * spindle * 0.8, size / spindle * 0.8, 1.6 * shown
    )
    return soft_step(cover - 0.75, 0.9)
