"""The 14 findings of ChestMNIST, each a change to a painted chest.

Every finding draws its own place, side and strength; strength falls with difficulty.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medplus.datasets.phantom.canvas import Canvas, Plane, soft_step
from medplus.datasets.phantom.scenes.chest import Chest
from medplus.datasets.phantom.traits import about

Finding = Callable[[Canvas, np.random.Generator, Chest, float], None]
"""``(canvas, rng, chest, strength)``: changes ``chest.density`` in place."""


def _side(rng: np.random.Generator) -> int:
    return int(rng.integers(2))


def _patch(
    canvas: Canvas, rng: np.random.Generator, chest: Chest, size: float
) -> tuple[Plane, Plane]:
    """Return a soft random region of one lung and that lung's field."""
    side = _side(rng)
    build = chest.build
    cx = chest.lung_x(side) + about(rng, 0.0, 0.06)
    cy = build.lung_y + about(rng, 0.08, 0.2)
    radius = canvas.radius(cx, cy, size, size * about(rng, 1.2, 0.3), about(rng, 0.0, 0.6))
    radius += np.float32(0.22) * canvas.noise(rng, 6, 24)
    return canvas.inside(radius, size, softness=size * 0.8), chest.lungs[side]


def atelectasis(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Collapse: a raised, hazy lung base crossed by plate-like bands."""
    side = _side(rng)
    base = chest.build.domes[side]
    raised = soft_step(canvas.y - np.float32(base - about(rng, 0.14, 0.04)), 0.05)
    t = np.linspace(-0.12, 0.12, 30)
    x = chest.lung_x(side) + np.concatenate([t, t])
    tilt = about(rng, 0.0, 0.35)
    y = base - about(rng, 0.17, 0.03) + np.concatenate([tilt * t, tilt * t - 0.07])
    bands = canvas.strokes(x, y, 0.010, 0.0083)
    haze = np.float32(0.26) * raised + np.float32(0.28) * bands
    chest.density += np.float32(strength) * haze * chest.lungs[side]


def effusion(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Fluid: an opaque lung base under a meniscus that climbs the chest wall."""
    side = _side(rng)
    level = chest.build.domes[side] - about(rng, 0.17, 0.08)
    outward = (canvas.x - np.float32(chest.lung_x(side))) * np.float32(2 * side - 1)
    surface = np.float32(level) - np.float32(3.5) * np.clip(outward + 0.05, 0.0, None) ** 2
    fluid = soft_step(canvas.y - surface, 0.035) * chest.lungs[side]
    chest.density += np.float32(strength * about(rng, 0.40, 0.06)) * fluid


def infiltration(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Ill-defined patchy haze."""
    region, lung = _patch(canvas, rng, chest, about(rng, 0.15, 0.03))
    mottle = np.clip(0.55 + np.float32(0.55) * canvas.noise(rng, 14, 56, slope=0.4), 0.0, None)
    chest.density += np.float32(0.27 * strength) * region * lung * mottle


def _ball(
    canvas: Canvas, rng: np.random.Generator, chest: Chest, size: float, height: float
) -> None:
    side = _side(rng)
    cx = chest.lung_x(side) + about(rng, 0.0, 0.07)
    cy = chest.build.lung_y + about(rng, 0.03, 0.2)
    radius = canvas.radius(cx, cy, size, size * about(rng, 1.0, 0.15))
    radius += np.float32(0.10) * canvas.noise(rng, 8, 16)
    ball = canvas.inside(radius, size, softness=0.3 * size)
    chest.density += np.float32(height) * ball * chest.lungs[side]


def mass(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Mass: a round opacity above 3 cm."""
    _ball(canvas, rng, chest, about(rng, 0.085, 0.02), 0.42 * strength)


def nodule(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """One to three round opacities of a few pixels at 64 px."""
    for turn in range(3):
        size = about(rng, 0.026, 0.007)
        shown = turn == 0 or rng.random() < 0.4
        _ball(canvas, rng, chest, size, 0.45 * strength * shown)


def pneumonia(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Pneumonia: a hazy lobe in which the airways stay dark."""
    region, lung = _patch(canvas, rng, chest, about(rng, 0.16, 0.03))
    airways = np.clip(1.0 - np.float32(0.5) * np.abs(canvas.noise(rng, 10, 40, slope=0.3)), 0, 1)
    chest.density += np.float32(0.36 * strength) * region * lung * airways


def pneumothorax(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Free air: a black rim without vessels outside a thin pleural line."""
    side = _side(rng)
    build = chest.build
    inward = chest.lung_x(side) - (2 * side - 1) * about(rng, 0.05, 0.02)
    shrink = about(rng, 0.86, 0.08)
    height = build.lung_height * (shrink + 0.05)
    radius = canvas.radius(inward, build.lung_y + 0.08, build.lung_width * shrink, height)
    free = (1.0 - canvas.inside(radius, build.lung_width, softness=0.015)) * chest.lungs[side]
    line = np.exp(-(((radius - 1.0) * np.float32(build.lung_width / 0.006)) ** 2))
    dark = chest.density * 0.35 + 0.02
    chest.density += (dark - chest.density) * free * np.float32(min(strength, 1.0))
    chest.density += np.float32(0.22 * strength) * line * chest.lungs[side]


def consolidation(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Consolidation: a dense, even opacity that hides the vessels."""
    region, lung = _patch(canvas, rng, chest, about(rng, 0.13, 0.03))
    alpha = np.float32(min(0.85 * strength, 1.0)) * region * lung
    chest.density += (np.float32(0.62) - chest.density) * alpha


def edema(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Haze around both hila, in the shape of a bat's wings, with fine septal lines."""
    x = chest.build.centre + np.array([-0.15, 0.15])
    wings = canvas.spots(x, chest.build.lung_y + 0.05, about(rng, 0.10, 0.015), 1.0)
    septa = 1.0 + np.float32(0.35) * canvas.noise(rng, 24, 96, slope=0.0, stretch=3.0)
    chest.density += np.float32(0.30 * strength) * wings * septa * chest.lungs.sum(axis=0)


def emphysema(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Dark lungs with bullae; the build is inflated before the chest is painted."""
    bullae = np.clip(canvas.noise(rng, 7, 14), 0.0, None)
    dark = np.float32(0.05 * strength) * (1.0 + bullae)
    chest.density -= dark * chest.lungs.sum(axis=0)


def fibrosis(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Fibrosis: a fine net at the lung bases: seen from 64 px on, clear at 128."""
    mesh = 1.0 - np.abs(canvas.noise(rng, 28, 56, slope=0.0)) * np.float32(1.6)
    bases = soft_step(canvas.y - np.float32(chest.build.lung_y + about(rng, 0.02, 0.05)), 0.25)
    net = np.float32(0.24 * strength) * (np.clip(mesh, -0.4, 1.0) + np.float32(0.25))
    chest.density += net * bases * chest.lungs.sum(axis=0)


def pleural(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Thickened pleura: a bright rind along the outer wall of a lung."""
    side = _side(rng)
    outward = (canvas.x - np.float32(chest.lung_x(side))) * np.float32(2 * side - 1)
    edge = chest.lungs[side] * (1.0 - chest.lungs[side])
    width = np.float32(chest.build.lung_width)
    rind = np.exp(-(((outward / width - 0.80) / 0.16) ** 2)) * chest.lungs[side] + edge
    below = soft_step(canvas.y - np.float32(about(rng, 0.38, 0.1)), 0.1)
    chest.density += np.float32(0.30 * strength) * rind * (outward > 0) * below


def hernia(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Hernia: a gas bubble with a fluid level behind the heart."""
    cx = chest.build.centre + about(rng, 0.04, 0.03)
    cy, size = chest.build.domes[1] - about(rng, 0.09, 0.02), about(rng, 0.09, 0.015)
    sac = canvas.inside(canvas.radius(cx, cy, size * 1.2, size), size, softness=0.015)
    gas = sac * soft_step(np.float32(cy) - canvas.y, 0.012)
    chest.density += np.float32(strength) * (np.float32(0.16) * sac - np.float32(0.48) * gas)


def cardiomegaly(canvas: Canvas, rng: np.random.Generator, chest: Chest, strength: float) -> None:
    """Nothing to add: the build's heart is wide before the chest is painted."""


FINDINGS: tuple[Finding, ...] = (
    atelectasis,
    cardiomegaly,
    effusion,
    infiltration,
    mass,
    nodule,
    pneumonia,
    pneumothorax,
    consolidation,
    edema,
    emphysema,
    fibrosis,
    pleural,
    hernia,
)
"""In the order of ChestMNIST's label columns."""
