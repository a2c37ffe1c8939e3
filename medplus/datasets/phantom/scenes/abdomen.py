"""OrganAMNIST, OrganCMNIST and OrganSMNIST: an organ cropped from a CT, in three planes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import FINEST, Canvas, Plane, soft_step
from medplus.datasets.phantom.traits import about, draw_traits

_DEVICE = Device(gain=0.06, shade=0.03, grain=0.045)

View = Literal["axial", "coronal", "sagittal"]


class Organ(NamedTuple):
    """An organ and what surrounds it."""

    light: float
    """Radiodensity, 0 air to 1 bone."""
    width: float
    """Half axes, in sides of the image."""
    height: float
    angle: float
    hilum: float
    """Depth of the notch of a bean."""
    lobules: float
    """Relative amplitude of the outline."""
    cortex: float
    """Extra light of the rim."""
    vessels: float
    """Contrast of vessels inside."""
    texture: float
    """Contrast of the tissue's grain: seen from 64 px on."""
    side: float
    """Which way the spine lies: -1 the image's left, 1 its right."""
    fat: float
    """Light of the surroundings."""
    bone: float
    """Light of a neighbouring bone."""
    stipple: float
    """Contrast of the finest texture: seen from 128 px on."""


_BY_CLASS = (
    # bladder
    Organ(0.44, 0.33, 0.27, 0.0, 0.0, 0.03, 0.04, 0.00, 0.01, 0.0, 0.30, 0.40, 0.00),
    # femur-left
    Organ(0.66, 0.26, 0.26, 0.4, 0.0, 0.05, 0.34, 0.00, 0.16, 0.8, 0.34, 0.20, 0.40),
    # femur-right
    Organ(0.66, 0.26, 0.26, -0.4, 0.0, 0.05, 0.34, 0.00, 0.16, -0.8, 0.34, 0.20, 0.40),
    # heart
    Organ(0.66, 0.37, 0.32, 0.5, 0.0, 0.05, -0.06, 0.35, 0.02, 0.2, 0.14, 0.70, 0.20),
    # kidney-left
    Organ(0.66, 0.21, 0.31, 0.3, 0.5, 0.04, 0.10, 0.06, 0.04, 0.8, 0.28, 0.75, 0.80),
    # kidney-right
    Organ(0.66, 0.21, 0.31, -0.3, 0.5, 0.04, 0.10, 0.06, 0.04, -0.8, 0.28, 0.75, 0.80),
    # liver
    Organ(0.58, 0.42, 0.34, -0.4, 0.1, 0.06, 0.00, 0.14, 0.03, -0.6, 0.24, 0.60, 0.50),
    # lung-left
    Organ(0.10, 0.31, 0.40, 0.1, 0.2, 0.03, 0.02, 0.55, 0.05, 0.7, 0.56, 0.80, 0.60),
    # lung-right
    Organ(0.10, 0.35, 0.40, -0.1, 0.1, 0.03, 0.02, 0.55, 0.05, -0.7, 0.56, 0.80, 0.60),
    # pancreas
    Organ(0.54, 0.35, 0.13, -0.35, 0.1, 0.22, 0.02, 0.10, 0.12, 0.1, 0.40, 0.55, 0.90),
    # spleen
    Organ(0.60, 0.20, 0.32, 0.5, 0.4, 0.05, 0.02, 0.05, 0.02, 0.9, 0.22, 0.60, 0.10),
)
_JITTER = Organ(0.05, 0.035, 0.035, 0.25, 0.12, 0.03, 0.05, 0.07, 0.025, 0.35, 0.07, 0.12, 0.15)
# Width and height of a crop, and how plainly it shows which side is which.
_VIEWS: dict[View, tuple[float, float, float]] = {
    "axial": (1.0, 1.0, 1.0),
    "coronal": (0.88, 1.12, 1.0),
    "sagittal": (0.95, 1.05, 0.25),
}


def paint(
    canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float, *, view: View
) -> Plane:
    """Paint a crop around the organ in a view. Returns (n, n)."""
    organ = draw_traits(rng, _BY_CLASS, _JITTER, label, difficulty)
    wide, high, sided = _VIEWS[view]
    loose = 0.02 + 0.06 * difficulty
    cx, cy = about(rng, 0.5, loose), about(rng, 0.5, loose)
    width, height = max(organ.width * wide, 0.08), max(organ.height * high, 0.08)
    towards = sided * organ.side
    image = _surroundings(canvas, rng, organ, view, towards)
    radius = canvas.radius(cx, cy, width, height, organ.angle)
    radius += np.float32(organ.lobules) * canvas.noise(rng, 6, 24)
    notch = (cx + 0.95 * width * (1.0 if towards >= 0 else -1.0), cy)
    depth = 1.6 * max(organ.hilum, 0.0)
    radius += np.float32(depth) * canvas.spots(*notch, 0.45 * width)
    body = canvas.inside(radius, width, softness=0.022)
    image += (_inside(canvas, rng, organ, radius) - image) * body
    return acquire(canvas, rng, np.clip(image, 0.03, 1.0), _DEVICE, difficulty)


def _inside(canvas: Canvas, rng: np.random.Generator, organ: Organ, radius: Plane) -> Plane:
    rim = np.exp(-(((radius - 0.88) / np.float32(0.16)) ** 2))
    tree = np.clip(1.0 - np.abs(canvas.noise(rng, 7, 28, slope=0.8)) * 4.0, 0.0, 1.0)
    grain = canvas.noise(rng, 24, 48, slope=0.2)
    stipple = canvas.noise(rng, FINEST, FINEST)
    inside: Plane = np.float32(organ.light) + np.float32(organ.cortex) * rim
    inside += np.float32(0.45 * max(organ.vessels, 0.0)) * tree * (radius < 0.95)
    inside += np.float32(0.6 * max(organ.texture, 0.0)) * grain
    inside += np.float32(0.13 * organ.stipple) * stipple
    return inside


def _surroundings(
    canvas: Canvas, rng: np.random.Generator, organ: Organ, view: View, towards: float
) -> Plane:
    """Return fat, bowel and muscle, the body's wall, and the spine."""
    soft = canvas.noise(rng, 4, 16)
    image = np.float32(organ.fat) + np.float32(0.34) * soft_step(soft - 0.35, 0.35)
    image += np.float32(0.03) * canvas.noise(rng, 12, 24)
    gas = soft_step(canvas.noise(rng, 4, 8) - 1.3, 0.3)
    image -= np.float32(0.25) * gas
    _add_wall(canvas, rng, image, towards)
    x, y = 0.5 + 0.46 * towards, about(rng, 0.82, 0.06)
    bone = np.float32(max(organ.bone, 0.0))
    if view == "axial":
        body = canvas.inside(canvas.radius(x, y, 0.15, 0.13), 0.14, softness=0.03)
        spur = canvas.spots(x, y + 0.17, 0.035, 0.9)
        spine = np.maximum(body, np.minimum(spur, 1.0))
    else:
        column = np.exp(-(((canvas.x - np.float32(x)) / np.float32(0.13)) ** 4))
        phase = about(rng, 0.0, 3.0)
        discs = np.sin(np.float32(2 * np.pi * 3.3) * canvas.y + np.float32(phase))
        spine = column * soft_step(discs + 0.75, 0.35)
    image += (bone * np.float32(0.9) + np.float32(0.1) - image) * spine * (bone > 0.1)
    return image


def _add_wall(canvas: Canvas, rng: np.random.Generator, image: Plane, towards: float) -> None:
    """Add the body's wall with its ribs, and the air outside, on the side away from the spine."""
    middle = 0.5 + 0.35 * towards
    radius = canvas.radius(middle, about(rng, 0.55, 0.05), about(rng, 0.78, 0.08), 0.72)
    muscle = np.exp(-(((radius - 0.93) / np.float32(0.05)) ** 2))
    image += (np.float32(0.52) - image) * muscle
    angle = np.arctan2(canvas.y - np.float32(0.55), canvas.x - np.float32(middle))
    ribs = np.clip(np.sin(np.float32(14.0) * angle + np.float32(about(rng, 0.0, 3.0))) - 0.4, 0, 1)
    image += np.float32(0.75) * muscle * ribs
    outside = soft_step(radius - 1.06, 0.05)
    image += (np.float32(0.03) - image) * outside
