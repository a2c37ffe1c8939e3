"""The painters: one file per kind of image, and which dataset each stands in for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from medplus.datasets.phantom.canvas import Canvas, Plane
from medplus.datasets.phantom.scenes import (
    abdomen,
    blood,
    fundus,
    histology,
    kidney,
    skin,
    tomography,
    ultrasound,
    xray,
)

Painter = Callable[[Canvas, np.random.Generator, int, float], Plane]
"""``(canvas, rng, label, difficulty)`` to planes of shape (n, n), or (3, n, n) in colour."""

_PAINTERS: dict[str, Painter] = {
    "bloodmnist": blood.paint,
    "breastmnist": ultrasound.paint,
    "dermamnist": skin.paint,
    "octmnist": tomography.paint,
    "organamnist": partial(abdomen.paint, view="axial"),
    "organcmnist": partial(abdomen.paint, view="coronal"),
    "organsmnist": partial(abdomen.paint, view="sagittal"),
    "pathmnist": histology.paint,
    "pneumoniamnist": xray.paint_pneumonia_scene,
    "retinamnist": fundus.paint,
    "tissuemnist": kidney.paint,
}


def paint(
    flag: str,
    canvas: Canvas,
    rng: np.random.Generator,
    labels: Sequence[int],
    difficulty: float,
) -> Plane:
    """Paint a scene of a dataset from its labels (one class, or the 14 of ChestMNIST)."""
    if flag == "chestmnist":
        return xray.paint_chest_scene(canvas, rng, labels, difficulty)
    return _PAINTERS[flag](canvas, rng, labels[0], difficulty)
