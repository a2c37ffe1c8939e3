"""RetinaMNIST: a fundus photograph with more lesions the higher the retinopathy's grade."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import Canvas, Plane, tint
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.04, shade=0.03, grain=0.012, stain=0.015)


class Retinopathy(NamedTuple):
    """Expected number of lesions of each kind, and two signs seen from afar."""

    aneurysms: float
    """Red dots of a pixel: seen from 128 px on."""
    haemorrhages: float
    """Dark red blots."""
    exudates: float
    """Yellow specks in clusters."""
    cotton: float
    """Soft white spots."""
    new_vessels: float
    """Share of a fine tangle by the disc."""
    haze: float
    """Loss of colour of a swollen retina: the coarse sign."""
    tortuosity: float
    """Bending of the vessels."""


_BY_GRADE = (
    Retinopathy(0.0, 0.0, 0.0, 0.0, 0.0, 0.00, 0.10),
    Retinopathy(6.0, 0.3, 0.4, 0.0, 0.0, 0.15, 0.15),
    Retinopathy(14.0, 4.0, 6.0, 0.8, 0.0, 0.34, 0.25),
    Retinopathy(24.0, 12.0, 12.0, 2.5, 0.1, 0.56, 0.40),
    Retinopathy(20.0, 13.0, 14.0, 3.5, 0.9, 0.85, 0.60),
)
_JITTER = Retinopathy(3.0, 1.5, 2.0, 0.5, 0.1, 0.09, 0.10)


def paint(canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float) -> Plane:
    """Paint a fundus of grade `label`. Returns (3, n, n)."""
    # A borderline case may be taken for the next grade, not for any.
    lowest = max(label - 1, 0)
    signs = draw_traits(rng, _BY_GRADE[lowest : label + 2], _JITTER, label - lowest, difficulty)
    side = 1.0 if rng.random() < 0.5 else -1.0
    disc = (0.5 + side * about(rng, 0.26, 0.03), about(rng, 0.5, 0.04))
    macula = (0.5 - side * about(rng, 0.06, 0.03), about(rng, 0.52, 0.03))
    red, green = about(rng, 0.78, 0.03), about(rng, 0.38, 0.03)
    planes = np.stack([canvas.full(v) for v in (red, green, about(rng, 0.16, 0.03))])
    planes *= 1.0 + np.float32(0.05) * canvas.noise(rng, 4, 32)
    tint(planes, (0.45, 0.16, 0.06), np.float32(0.6) * canvas.spots(*macula, 0.075))
    tint(planes, (0.74, 0.64, 0.50), np.float32(0.9 * max(signs.haze, 0.0)) * canvas.full(1.0))
    _add_disc(canvas, rng, planes, disc)
    vessels = _vessels(canvas, rng, disc, side, signs)
    tint(planes, (0.42, 0.08, 0.06), np.float32(0.8) * vessels)
    _add_lesions(canvas, rng, planes, signs, macula)
    field = canvas.radius(0.5, 0.5, about(rng, 0.485, 0.006), about(rng, 0.475, 0.008))
    planes *= canvas.inside(field, 0.48) * (1.0 - np.float32(0.35) * _cubed(np.minimum(field, 1.0)))
    return acquire(canvas, rng, planes, _DEVICE, difficulty)


def _cubed(plane: Plane) -> Plane:
    # A power of 3 by `**` takes ten times as long.
    return plane * plane * plane


def _add_disc(
    canvas: Canvas, rng: np.random.Generator, planes: Plane, disc: tuple[float, float]
) -> None:
    size = about(rng, 0.068, 0.01)
    rim = canvas.radius(*disc, size, size * 1.12)
    tint(planes, (0.95, 0.75, 0.45), np.float32(0.9) * canvas.inside(rim, size, softness=0.025))
    cup = canvas.inside(rim * np.float32(2.2), size * 0.45, softness=0.03)
    tint(planes, (1.0, 0.92, 0.75), np.float32(0.8) * cup)


def _vessels(
    canvas: Canvas,
    rng: np.random.Generator,
    disc: tuple[float, float],
    side: float,
    signs: Retinopathy,
) -> Plane:
    """Return the arcades that leave the disc, their branches, and new vessels."""
    steps, trunks, twigs = 60, 6, 14
    t = np.linspace(0.02, 1.0, steps)[:, None]
    heading = np.array([0.95, 1.35, 2.35, -0.95, -1.35, -2.35]) + rng.normal(0, 0.12, trunks)
    curl = np.array([-1.1, -1.9, 0.3, 1.1, 1.9, -0.3]) + rng.normal(0, 0.2, trunks)
    wave = 0.05 + 0.35 * max(signs.tortuosity, 0.0)
    wiggle = wave * np.sin(t * rng.uniform(10, 18, trunks) + rng.uniform(0, 6, trunks))
    angle = heading + curl * t + wiggle
    step = rng.uniform(0.60, 0.75, trunks) / steps
    x = disc[0] - side * np.cumsum(step * np.cos(angle), axis=0)
    y = disc[1] + np.cumsum(step * np.sin(angle), axis=0)
    trunk_width = 0.0085 * (1.0 - 0.65 * t) * np.ones_like(x)
    vessels = canvas.strokes(x.ravel(), y.ravel(), trunk_width.ravel(), 0.0112)
    start, of = rng.integers(8, 40, twigs), rng.integers(0, trunks, twigs)
    turn = angle[start, of] + rng.choice([-0.9, 0.9], twigs) + rng.normal(0, 0.3, twigs)
    s = np.linspace(0.0, 1.0, 36)[:, None] * rng.uniform(0.12, 0.26, twigs)
    bend = turn + 3.0 * wiggle[:36, :1] * rng.choice([-1, 1], twigs)
    twig_x, twig_y = x[start, of] - side * s * np.cos(bend), y[start, of] + s * np.sin(bend)
    vessels += 0.7 * canvas.strokes(twig_x.ravel(), twig_y.ravel(), 0.0032, 0.0055)
    share = np.float32(np.clip(signs.new_vessels, 0.0, 1.0))
    tangle = np.exp(-((canvas.noise(rng, 12, 24, slope=0.5) / 0.16) ** 2))
    vessels += share * tangle * canvas.spots(disc[0] - side * 0.12, disc[1] - 0.12, 0.10)
    return np.minimum(vessels, 1.0)


def _add_lesions(
    canvas: Canvas,
    rng: np.random.Generator,
    planes: Plane,
    signs: Retinopathy,
    macula: tuple[float, float],
) -> None:
    """Add each kind of lesion: a fixed number of places, of which the first few are shown."""
    kinds = (
        (signs.cotton, 6, 0.020, 0.16, 0.65, (0.98, 0.92, 0.75)),
        (signs.exudates, 40, 0.0095, 0.11, 0.95, (0.98, 0.86, 0.40)),
        (signs.haemorrhages, 24, 0.0180, 0.19, 0.85, (0.34, 0.03, 0.03)),
        (signs.aneurysms, 40, 0.0050, 0.17, 0.80, (0.45, 0.04, 0.04)),
    )
    for expected, most, size, scatter, strength, colour in kinds:
        place = rng.normal(0.0, scatter, (2, most)) + np.array(macula)[:, None]
        scale = rng.uniform(0.6, 1.4, (2, most)) * size
        # A threshold per place, so that a graver case shows the milder one's lesions and more.
        threshold = np.arange(most) + 2.0 * rng.random()
        weight = strength * np.clip(expected * 1.3 + 1.0 - threshold, 0.0, 1.0)
        cover = canvas.stretched_spots(place[0], place[1], scale[0], scale[1], 1.5 * weight)
        tint(planes, colour, np.minimum(cover, strength))
