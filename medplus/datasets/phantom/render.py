"""From a scene's description to its pixels at any size: pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from medplus.datasets import catalog
from medplus.datasets.phantom.canvas import Canvas, master
from medplus.datasets.phantom.labels import draw_labels, scene_stream
from medplus.datasets.phantom.scenes import paint
from medplus.vocabulary import Split


@dataclass(frozen=True)
class Scene:
    """All that an image shows, before it has a size.

    Attributes
    ----------
    flag, split, index
        The dataset, the split and the image's place in it.
    labels : tuple of int
        The class, or ChestMNIST's 14 labels.
    seed : int
        The phantom's seed.
    difficulty : float
        0 (typical cases, little noise) to 1 (borderline cases, much of it).
    """

    flag: str
    split: Split
    index: int
    labels: tuple[int, ...]
    seed: int
    difficulty: float


def scenes(flag: str, split: Split, count: int, *, seed: int, difficulty: float) -> list[Scene]:
    """Describe the first `count` scenes of a split."""
    labels = draw_labels(flag, split, count, seed)
    return [
        Scene(flag, split, index, tuple(row), seed, difficulty)
        for index, row in enumerate(labels.tolist())
    ]


def render(scenes: Sequence[Scene], size: int) -> NDArray[np.uint8]:
    """Render scenes of one dataset at one size.

    Parameters
    ----------
    scenes : sequence of Scene
        At least one; all of one dataset.
    size : int
        Pixels per side, at most 256.

    Returns
    -------
    ndarray of shape (n_scenes, size, size) or (n_scenes, size, size, 3), uint8
    """
    return render_sizes(scenes, [size])[size]


def render_sizes(scenes: Sequence[Scene], sizes: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Render scenes at several sizes, painting each only once per master that the sizes share."""
    colour = (3,) if catalog.info(scenes[0].flag).channels == 3 else ()
    images = {size: np.empty((len(scenes), size, size, *colour), np.uint8) for size in sizes}
    by_master: dict[int, list[int]] = {}
    for size in images:
        by_master.setdefault(master(size).n, []).append(size)
    # The matrices are small: a second thread costs more than it saves, and may round differently.
    with threadpool_limits(limits=1, user_api="blas"):
        for index, scene in enumerate(scenes):
            for shared in by_master.values():
                rendered = _render_one(scene, master(shared[0]), shared)
                for size, image in zip(shared, rendered, strict=True):
                    images[size][index] = image
    return images


def _render_one(scene: Scene, canvas: Canvas, sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    rng = scene_stream(scene.seed, scene.flag, scene.split, scene.index)
    planes = paint(scene.flag, canvas, rng, scene.labels, scene.difficulty)
    rendered = []
    for size in sizes:
        averaged = canvas.averaged(planes, size)
        pixels = np.clip(np.rint(averaged * np.float32(255)), 0, 255).astype(np.uint8)
        rendered.append(pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1))
    return rendered
