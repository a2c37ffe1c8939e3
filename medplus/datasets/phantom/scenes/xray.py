"""ChestMNIST and PneumoniaMNIST: a chest X-ray with the findings that its labels name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medplus.datasets.phantom.acquisition import Device, acquire
from medplus.datasets.phantom.canvas import Canvas, Plane
from medplus.datasets.phantom.scenes.chest import draw_build, paint_chest
from medplus.datasets.phantom.scenes.findings import (
    FINDINGS,
    cardiomegaly,
    consolidation,
    edema,
    emphysema,
    infiltration,
    pneumonia,
)
from medplus.datasets.phantom.traits import about

_DEVICE = Device(gain=0.07, shade=0.06, grain=0.02)


def paint_chest_scene(
    canvas: Canvas, rng: np.random.Generator, labels: Sequence[int], difficulty: float
) -> Plane:
    """Paint a ChestMNIST scene from its 14 labels of 0 or 1. Returns (n, n)."""
    present = dict(zip(FINDINGS, labels, strict=True))
    strength = _strength(rng, difficulty)
    build = draw_build(
        rng,
        difficulty,
        heart=0.06 * strength * present[cardiomegaly],
        inflation=0.055 * strength * present[emphysema],
    )
    chest = paint_chest(canvas, rng, build)
    # A private source per finding: one finding does not move another.
    keys = rng.integers(2**62, size=len(FINDINGS)).tolist()
    for (finding, is_present), key in zip(present.items(), keys, strict=True):
        if is_present:
            finding(canvas, np.random.default_rng(key), chest, strength)
    return acquire(canvas, rng, np.clip(chest.density, 0.02, 1.0), _DEVICE, difficulty)


def paint_pneumonia_scene(
    canvas: Canvas, rng: np.random.Generator, label: int, difficulty: float
) -> Plane:
    """Paint a PneumoniaMNIST scene, class 1 with pneumonia. Returns (n, n)."""
    strength = _strength(rng, difficulty)
    chest = paint_chest(canvas, rng, draw_build(rng, difficulty))
    bacterial = rng.random() < 0.6
    # Crying children breathe out: healthy lungs may be hazy too.
    edema(canvas, rng, chest, about(rng, 0.35, 0.35) * (0.3 + difficulty))
    if label == 1 and bacterial:
        pneumonia(canvas, rng, chest, 0.9 * strength)
        consolidation(canvas, rng, chest, 0.5 * strength)
    elif label == 1:
        edema(canvas, rng, chest, 0.55 * strength)
        infiltration(canvas, rng, chest, 0.9 * strength)
        infiltration(canvas, rng, chest, 0.9 * strength)
    return acquire(canvas, rng, np.clip(chest.density, 0.02, 1.0), _DEVICE, difficulty)


def _strength(rng: np.random.Generator, difficulty: float) -> float:
    """Draw how plainly a case shows: from 1.35 at difficulty 0 down to faint cases at 1."""
    return max(1.35 - 0.75 * difficulty - 0.5 * difficulty * float(rng.random()), 0.1)
