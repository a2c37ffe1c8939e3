"""A contact sheet: what the phantoms of several datasets look like, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medplus.datasets import catalog
from medplus.datasets.phantom.labels import least_per_split
from medplus.datasets.phantom.painter import Scene, render, scenes
from medplus.vocabulary import MULTI_LABEL

_LABEL_WIDTH = 190
_HEADING = 26
_GAP = 2
_LETTERS = 27
_INK, _QUIET, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def contact_sheet(
    flags: Sequence[str],
    *,
    size: int = 64,
    per_class: int = 8,
    seed: int = 0,
    difficulty: float = 0.5,
    tile: int = 64,
) -> Image.Image:
    """Draw examples of each class of each dataset, one labelled row per class.

    Parameters
    ----------
    flags : sequence of str
        Datasets, from top to bottom.
    size : int, default=64
        Size at which the scenes are rendered.
    per_class : int, default=8
        Examples per row.
    seed, difficulty
        As for `write_phantom`.
    tile : int, default=64
        Pixels per side of an example on the sheet; smaller images are enlarged without smoothing.

    Returns
    -------
    PIL.Image.Image
        An RGB image; save it with ``.save("sheet.png")``.
    """
    blocks = [_block(flag, size, per_class, seed, difficulty, tile) for flag in flags]
    tops = np.cumsum([0, *(block.height for block in blocks)]).tolist()
    sheet = Image.new("RGB", (blocks[0].width, tops[-1]), _PAPER)
    for block, top in zip(blocks, tops[:-1], strict=True):
        sheet.paste(block, (0, top))
    return sheet


def _block(
    flag: str, size: int, per_class: int, seed: int, difficulty: float, tile: int
) -> Image.Image:
    """Draw one dataset: a heading, then a row per class."""
    classes, pitch = catalog.info(flag).classes, tile + _GAP
    shape = (_LABEL_WIDTH + per_class * pitch, _HEADING + len(classes) * pitch)
    block = Image.new("RGB", shape, _PAPER)
    draw = ImageDraw.Draw(block)
    heading = f"{flag} (phantom, {size} px, difficulty {difficulty:g})"
    draw.text((4, 6), heading, fill=_INK, font=ImageFont.load_default(size=14))
    resample = Image.Resampling.NEAREST if tile >= size else Image.Resampling.BOX
    for label, name in enumerate(classes):
        top = _HEADING + label * pitch
        text = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        font = ImageFont.load_default(size=12)
        draw.text((4, top + tile // 2 - 8), text, fill=_QUIET, font=font)
        images = render(_examples(flag, label, per_class, seed, difficulty), size)
        for column, image in enumerate(images):
            shown = Image.fromarray(image).convert("RGB").resize((tile, tile), resample)
            block.paste(shown, (_LABEL_WIDTH + column * pitch, top))
    return block


def _examples(flag: str, label: int, count: int, seed: int, difficulty: float) -> list[Scene]:
    """Return training scenes of a class: the phantom's own where it has enough early on.

    ChestMNIST's rows show one finding alone, which is what a reader wants to compare.
    """
    if catalog.info(flag).task == MULTI_LABEL:
        alone = tuple(int(column == label) for column in range(len(catalog.info(flag).classes)))
        start = 10_000 * (label + 1)
        return [
            Scene(flag, "train", start + turn, alone, seed, difficulty) for turn in range(count)
        ]
    reach = least_per_split(flag)
    while True:
        found = [
            scene
            for scene in scenes(flag, "train", reach, seed=seed, difficulty=difficulty)
            if scene.labels[0] == label
        ]
        if len(found) >= count:
            return found[:count]
        reach *= 2
