"""One painter for all twelve datasets: a look per dataset, in numbers, and what a class changes.

A scene is a field of tissue with its texture, what every image shows (organs), and the objects that
tell classes apart: by number and size (which 28 px show), by tone, by the roughness of their edge
and by the texture within (which only larger images resolve). None of it is medicine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from medplus.datasets import catalog
from medplus.datasets.phantom.canvas import Canvas, master
from medplus.datasets.phantom.labels import draw_labels, stream
from medplus.vocabulary import MULTI_LABEL, Split

Tone = tuple[float, ...]
Ellipse = tuple[float, float, float, float]
"""Centre (x, y) and radii (x, y), in sides of the image."""


@dataclass(frozen=True)
class Look:
    """What a dataset's images look like; pairs are of the first and of the last class.

    Attributes
    ----------
    ground : Tone
        Of the tissue; one number, or three for colour.
    tones : pair of Tone
        Of the objects.
    radius, number, rough : pair of float
        Of the objects: size, how many, and how much their edge deviates from an ellipse.
    spread : float
        How far from the centre objects lie.
    orbit : float
        How far from it a class has a place of its own.
    texture : (coarse, fine, contrast, wide)
        Of the tissue, as `Canvas.noise` has them.
    organs : tuple of (Ellipse, Tone)
        What every image shows.
    field : Ellipse or None
        Outside of it the image is black.
    grain : float
        Noise at the finest scale.
    wash : float
        How much the tone of the whole image follows the class.
    blur : float
        How much the traits of a class vary from one image to the next, at difficulty 0.5.
    """

    ground: Tone
    tones: tuple[Tone, Tone]
    radius: tuple[float, float]
    number: tuple[float, float] = (1, 1)
    rough: tuple[float, float] = (0.1, 0.1)
    spread: float = 0.06
    orbit: float = 0.0
    texture: tuple[int, int, float, float] = (3, 24, 0.06, 1)
    organs: tuple[tuple[Ellipse, Tone], ...] = ()
    field: Ellipse | None = None
    grain: float = 0.03
    wash: float = 0.15
    blur: float = 0.2


_LUNGS = (((0.3, 0.5, 0.17, 0.34), (0.2,)), ((0.7, 0.5, 0.17, 0.34), (0.2,)),
          ((0.5, 0.5, 0.06, 0.7), (0.8,)), ((0.57, 0.66, 0.15, 0.13), (0.75,)))  # fmt: skip
_BODY = Look((0.45,), ((0.2,), (0.85,)), (0.08, 0.24), (1, 1), (0.05, 0.25), 0.03, 0.2,
             (3, 32, 0.05, 1), (((0.5, 0.79, 0.07, 0.07), (0.95,)),), (0.5, 0.5, 0.47, 0.38),
             blur=0.14)  # fmt: skip
_NIGHT = (0.5, 0.5, 0.47, 0.47)

LOOKS: dict[str, Look] = {
    "bloodmnist": Look((0.92, 0.82, 0.8), ((0.35, 0.15, 0.5), (0.7, 0.3, 0.6)), (0.09, 0.2),
                       (1, 4), (0.05, 0.3), 0.09, texture=(4, 16, 0.05, 1),
                       organs=(((0.5, 0.5, 0.33, 0.33), (0.8, 0.68, 0.82)),
                               ((0.06, 0.2, 0.2, 0.2), (0.9, 0.6, 0.6)),
                               ((0.95, 0.8, 0.2, 0.2), (0.9, 0.6, 0.6))), blur=0.08),
    "breastmnist": Look((0.48,), ((0.08,), (0.2,)), (0.27, 0.17), (1, 1), (0.4, 0.05), 0.12,
                        texture=(3, 24, 0.12, 4), grain=0.1, wash=0.3, blur=0.45),
    "chestmnist": Look((0.6,), ((0.5,), (0.95,)), (0.07, 0.17), (1, 1), (0.1, 0.4), 0.03, 0.28,
                       (2, 32, 0.05, 1), _LUNGS, wash=0, blur=0.2),
    "dermamnist": Look((0.86, 0.66, 0.56), ((0.25, 0.14, 0.1), (0.72, 0.35, 0.3)), (0.12, 0.32),
                       (1, 2), (0.05, 0.4), 0.05, texture=(3, 48, 0.05, 1),
                       wash=0.3, blur=0.1),
    "octmnist": Look((0.08,), ((0.9,), (0.05,)), (0.05, 0.13), (1, 4), (0.1, 0.3), 0.06, 0.2,
                     (3, 48, 0.05, 6), (((0.5, 0.52, 1.2, 0.14), (0.4,)),
                                        ((0.5, 0.64, 1.2, 0.05), (0.85,))),
                     grain=0.07, wash=0.3, blur=0.12),
    "organamnist": _BODY,
    "organcmnist": replace(_BODY, orbit=0.24, field=(0.5, 0.5, 0.4, 0.49),
                           organs=(((0.5, 0.5, 0.05, 0.5), (0.9,)),)),
    "organsmnist": replace(_BODY, orbit=0.18, field=(0.5, 0.5, 0.36, 0.49),
                           organs=(((0.82, 0.5, 0.06, 0.5), (0.9,)),)),
    "pathmnist": Look((0.86, 0.62, 0.76), ((0.35, 0.2, 0.5), (0.75, 0.4, 0.62)), (0.04, 0.09),
                      (3, 9), (0.1, 0.3), 0.35, texture=(3, 48, 0.06, 2), wash=0.35,
                      blur=0.1),
    "pneumoniamnist": Look((0.6,), ((0.35,), (0.62,)), (0.08, 0.16), (1, 4), (0.2, 0.4), 0.26,
                           texture=(2, 32, 0.05, 1), organs=_LUNGS, wash=0.1,
                           blur=0.5),
    "retinamnist": Look((0.72, 0.36, 0.17), ((0.62, 0.25, 0.12), (0.95, 0.85, 0.4)), (0.03, 0.05),
                        (1, 14), (0.1, 0.3), 0.3, texture=(2, 24, 0.05, 1),
                        organs=(((0.74, 0.5, 0.08, 0.09), (0.95, 0.82, 0.5)),), field=_NIGHT,
                        wash=0.6, blur=0.12),
    "tissuemnist": Look((0.14,), ((0.4,), (0.95,)), (0.1, 0.26), (1, 3), (0.1, 0.4), 0.07,
                        texture=(3, 32, 0.04, 1), wash=0.5, blur=0.1),
}  # fmt: skip


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


def render(scenes: Sequence[Scene], sizes: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Render scenes of one dataset, painting each only once per master that the sizes share.

    Parameters
    ----------
    scenes : sequence of Scene
        At least one; all of one dataset.
    sizes : sequence of int
        Pixels per side, at most 256.

    Returns
    -------
    dict of int to ndarray of shape (n_scenes, size, size) or (n_scenes, size, size, 3), uint8
        By size.
    """
    colour = (3,) if catalog.info(scenes[0].flag).channels == 3 else ()
    images = {size: np.empty((len(scenes), size, size, *colour), np.uint8) for size in sizes}
    # The matrices are small: a second thread costs more than it saves, and may round differently.
    with threadpool_limits(limits=1, user_api="blas"):
        for index, scene in enumerate(scenes):
            for canvas in dict.fromkeys(master(size) for size in images):
                planes = _paint(scene, canvas)
                for size, rendered in images.items():
                    if master(size) == canvas:
                        pixels = np.rint(canvas.averaged(planes, size) * 255).clip(0, 255)
                        rendered[index] = pixels.transpose(1, 2, 0).reshape(size, size, *colour)
    return images


def _paint(scene: Scene, canvas: Canvas) -> NDArray[np.float32]:
    """Return the planes of a scene, float32 (channels, n, n)."""
    look, hardness = LOOKS[scene.flag], scene.difficulty
    rng = stream("scene", scene.seed, scene.flag, scene.split, scene.index)
    planes = np.empty((len(look.ground), canvas.n, canvas.n), np.float32)
    planes[:] = np.array(look.ground, np.float32)[:, None, None]
    coarse, fine, contrast, wide = look.texture
    planes += canvas.noise(rng, coarse, fine, 0.7, wide) * np.float32(contrast)
    for (cx, cy, rx, ry), tone in look.organs:
        dx, dy, scale = rng.normal(0, 0.01 + 0.03 * hardness, 3)
        inside = canvas.ellipse(cx + dx, cy + dy, rx * (1 + scale), ry * (1 + scale))
        _blend(planes, tone, inside * np.float32(0.9))
    for traits in _traits(scene, look, rng):
        planes *= np.float32(1 + look.wash * (min(max(traits[2], 0), 1) - 0.5))
        _add_objects(planes, canvas, rng, look, traits)
    planes *= np.float32(np.exp(rng.normal(0, 0.03 + 0.12 * hardness)))
    planes *= 1 + canvas.noise(rng, 2, 2) * np.float32(0.02 + 0.08 * hardness)
    strength = look.grain * (0.5 + hardness)
    planes += canvas.noise(rng, 28, 128, slope=0) * np.float32(strength)
    if look.field is not None:
        planes *= canvas.ellipse(*look.field)
    return planes


def _traits(scene: Scene, look: Look, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return what the scene's labels show, each as five numbers about 0 to 1.

    Classes in an order, and two, lie on a line; others are told apart by a combination of traits,
    which golden steps spread evenly. They are size, number, tone, edge and place.
    """
    info = catalog.info(scene.flag)
    n_classes, several = len(info.classes), info.task == MULTI_LABEL
    shown = [i for i, on in enumerate(scene.labels) if on] if several else list(scene.labels)
    steps = np.array([0.6180, 0.4142, 0.7549, 0.5698, 1 / n_classes])
    noise = rng.normal(0, 0.04 + 2 * look.blur * scene.difficulty, (n_classes, 5))
    if info.task in ("ordinal-regression", "binary-class"):
        return [np.full(5, label / (n_classes - 1)) + noise[label] for label in shown]
    noise[:, 4] /= n_classes / 3
    return [(0.3 + label * steps) % 1 + noise[label] for label in shown]


def _add_objects(
    planes: NDArray[np.float32],
    canvas: Canvas,
    rng: np.random.Generator,
    look: Look,
    traits: NDArray[np.float64],
) -> None:
    size, count, shade, edge, place = np.clip(traits, -0.3, 1.3).tolist()
    tone = tuple(_between((a, b), shade) for a, b in zip(*look.tones, strict=True))
    rough = max(_between(look.rough, edge), 0)
    within = canvas.noise(rng, 16 + round(32 * min(max(edge, 0), 1)), 112, 0.3)
    angle = 2 * np.pi * place
    for _ in range(max(round(_between(look.number, count)), 1)):
        (dx, dy), stretch = rng.normal(0, look.spread, 2), np.exp(rng.normal(0, 0.15))
        cx, cy = 0.5 + look.orbit * np.cos(angle) + dx, 0.5 + look.orbit * np.sin(angle) + dy
        radius = max(_between(look.radius, size), 0.02) * np.exp(rng.normal(0, 0.1))
        border = canvas.noise(rng, 4, 16) * np.float32(rough)
        inside = canvas.ellipse(cx, cy, radius * stretch, radius / stretch, border)
        _blend(planes, tone, inside * np.float32(0.9))
        planes += inside * within * np.float32(0.06)


def _between(pair: tuple[float, float], share: float) -> float:
    return pair[0] + (pair[1] - pair[0]) * share


def _blend(planes: NDArray[np.float32], tone: Tone, alpha: NDArray[np.float32]) -> None:
    planes += (np.array(tone, np.float32)[:, None, None] - planes) * alpha
