"""The frontal chest X-ray that ChestMNIST and PneumoniaMNIST share: anatomy, then findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medplus.datasets.phantom.canvas import Canvas, Plane, soft_step
from medplus.datasets.phantom.traits import about


@dataclass(frozen=True)
class Build:
    """A patient's proportions, in sides of the image.

    Attributes
    ----------
    centre : float
        Where the spine stands.
    lung_width, lung_height : float
        Half axes of each lung field.
    lung_y : float
        Height of the lungs' middle.
    lung_gap : float
        Distance of each lung's middle from the spine.
    heart : float
        Half width of the heart.
    domes : tuple of float
        Depth of the diaphragm on the image's left and right.
    air : float
        Darkness of the lungs.
    """

    centre: float
    lung_width: float
    lung_height: float
    lung_y: float
    lung_gap: float
    heart: float
    domes: tuple[float, float]
    air: float


@dataclass
class Chest:
    """A chest being painted.

    Attributes
    ----------
    density : ndarray of shape (n, n)
        What the film shows, 0 air to 1 bone; findings change it in place.
    lungs : ndarray of shape (2, n, n)
        The visible lung fields on the image's left and right, 0 to 1.
    build : Build
        The proportions behind them.
    """

    density: Plane
    lungs: Plane
    build: Build

    def lung_x(self, side: int) -> float:
        """Return the middle of a lung: 0 the image's left, 1 its right."""
        return self.build.centre + (2 * side - 1) * self.build.lung_gap


def draw_build(
    rng: np.random.Generator, difficulty: float, *, heart: float = 0.0, inflation: float = 0.0
) -> Build:
    """Draw a patient; `heart` widens the heart, `inflation` the lungs (sides of the image)."""
    loose = 0.5 + difficulty
    dome = about(rng, 0.80, 0.035 * loose) + 0.5 * inflation
    return Build(
        centre=about(rng, 0.5, 0.03 * loose),
        lung_width=about(rng, 0.165, 0.012 * loose) + 0.2 * inflation,
        lung_height=about(rng, 0.36, 0.025 * loose) + 0.5 * inflation,
        lung_y=about(rng, 0.47, 0.03 * loose),
        lung_gap=about(rng, 0.215, 0.012 * loose),
        heart=max(about(rng, 0.135, 0.018 * loose) + heart - 0.4 * inflation, 0.06),
        domes=(dome - about(rng, 0.02, 0.02), dome),
        air=about(rng, 0.42, 0.06 * loose) + inflation,
    )


def paint_chest(canvas: Canvas, rng: np.random.Generator, build: Build) -> Chest:
    """Paint a chest without findings."""
    bow = np.float32(9.0) * (canvas.x - np.float32(build.centre)) ** 2
    edges = canvas.noise(rng, 4, 8)
    lungs = np.stack([_lung(canvas, build, side, edges) for side in (0, 1)])
    shoulders = canvas.radius(build.centre, 0.85, about(rng, 0.53, 0.05), about(rng, 0.84, 0.05))
    density = np.float32(about(rng, 0.62, 0.05)) * canvas.inside(shoulders, 0.5, softness=0.08)
    density += np.float32(0.04) * canvas.noise(rng, 3, 12)
    both = lungs.sum(axis=0)
    density -= np.float32(build.air) * both
    density += _vessels(canvas, rng, build) * both
    density += _bones(canvas, rng, build, bow)
    heart = _heart(canvas, rng, build)
    density += (np.float32(about(rng, 0.74, 0.04)) - density) * heart * np.float32(0.85)
    return Chest(density, lungs * (1.0 - heart), build)


def _lung(canvas: Canvas, build: Build, side: int, edges: Plane) -> Plane:
    """Return a lung field: an egg whose lower end the diaphragm's dome cuts off."""
    outward = 2 * side - 1
    cx = build.centre + outward * build.lung_gap
    # The apex leans towards the spine.
    lean = np.float32(0.22 * outward) * (canvas.y - np.float32(build.lung_y))
    u = (canvas.x - np.float32(cx) - lean * 0.6) / np.float32(build.lung_width)
    v = (canvas.y - np.float32(build.lung_y)) / np.float32(build.lung_height)
    radius = np.sqrt(u * u + np.where(v > 0, 0.35, 1.0).astype(np.float32) * v * v)
    field = canvas.inside(radius + np.float32(0.03) * edges, build.lung_width, softness=0.025)
    dome = np.float32(build.domes[side]) + np.float32(0.05) * u * u
    return field * soft_step(dome - canvas.y, 0.02)


def _vessels(canvas: Canvas, rng: np.random.Generator, build: Build) -> Plane:
    """Return lung markings: branches that fan out from the hila and thin outwards."""
    count, steps = 16, 22
    side = np.where(np.arange(count) % 2 == 0, -1.0, 1.0)
    heading = rng.uniform(-1.25, 1.35, count)
    bend = rng.normal(0.0, 0.35, count)
    length = rng.uniform(0.10, 0.22, count)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    x = build.centre + side * (0.09 + t * length * np.cos(heading + bend * t))
    y = build.lung_y + t * length * np.sin(heading + bend * t) * 1.3
    width = 0.009 * (1.0 - 0.6 * t) * np.ones_like(x)
    fade = 0.09 * (1.0 - 0.4 * t) * np.ones_like(x)
    markings = canvas.spots(x.ravel(), y.ravel(), width.ravel(), fade.ravel())
    hila = canvas.spots(build.centre + np.array([-0.11, 0.11]), build.lung_y, 0.05, 0.12)
    return np.minimum(markings, 0.16) + hila


def _bones(canvas: Canvas, rng: np.random.Generator, build: Build, bow: Plane) -> Plane:
    """Return ribs, spine and clavicles."""
    pace, start = about(rng, 11.5, 1.2), about(rng, 0.0, 0.5)
    phase = np.float32(2 * np.pi * pace) * (canvas.y + np.float32(0.055) * bow)
    ribs = np.cos(phase + np.float32(2 * np.pi * start))
    ribs = np.float32(0.075) * np.clip(ribs - 0.1, 0.0, None)
    away = np.abs(canvas.x - np.float32(build.centre))
    inside_cage = soft_step(0.40 - away, 0.06) * soft_step(away - 0.07, 0.06)
    bones: Plane = ribs * (
        inside_cage * soft_step(canvas.y - 0.1, 0.1) * soft_step(0.93 - canvas.y, 0.1)
    )
    notches = 1.0 + np.float32(0.22) * np.cos(np.float32(2 * np.pi * 14.0) * canvas.y)
    slope, level = about(rng, 0.30, 0.08), about(rng, 0.15, 0.025)
    bones += notches * np.float32(0.20) * np.exp(-((away / 0.05) ** 2))
    t = np.linspace(0.05, 0.33, 30)
    x = np.concatenate([build.centre - t, build.centre + t])
    y = np.tile(level + 0.06 - slope * t + 0.5 * t * t, 2)
    bones += np.float32(0.17) * canvas.strokes(x, y, 0.013, 0.0097)
    return bones


def _heart(canvas: Canvas, rng: np.random.Generator, build: Build) -> Plane:
    """Return the heart, which lies to the image's right, and the great vessels above it."""
    cx, cy = build.centre + 0.35 * build.heart, build.domes[1] - 0.13
    radius = canvas.radius(cx, cy, build.heart, 0.15, about(rng, 0.45, 0.15))
    heart = canvas.inside(radius, build.heart, softness=0.025)
    trunk = canvas.radius(build.centre + 0.01, 0.42, 0.075, 0.30)
    return np.maximum(heart, canvas.inside(trunk, 0.075, softness=0.03))
