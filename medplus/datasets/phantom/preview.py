"""A contact sheet: what the phantoms of several datasets look like, class by class."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from medplus.datasets import catalog
from medplus.datasets.phantom.painter import Scene, render, scenes
from medplus.vocabulary import MULTI_LABEL

_LABEL_WIDTH = 190
_HEADING = 26
_GAP = 2
_LETTERS = 27
_REACH = 4000
"""Scenes among which examples are looked for: 40 of the rarest class."""
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
    rows = [(flag, label) for flag in flags for label in range(len(catalog.info(flag).classes))]
    pitch, headed = tile + _GAP, set[str]()
    size_of_sheet = (_LABEL_WIDTH + per_class * pitch, len(flags) * _HEADING + len(rows) * pitch)
    sheet = Image.new("RGB", size_of_sheet, _PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    resample = Image.Resampling.NEAREST if tile >= size else Image.Resampling.BOX
    for flag, label in rows:
        if flag not in headed:
            heading = f"{flag} (phantom, {size} px, difficulty {difficulty:g})"
            draw.text((4, top + 6), heading, fill=_INK, font=ImageFont.load_default(size=14))
            headed.add(flag)
            top += _HEADING
        text = textwrap.shorten(catalog.info(flag).classes[label], _LETTERS, placeholder="…")
        font = ImageFont.load_default(size=12)
        draw.text((4, top + tile // 2 - 8), text, fill=_QUIET, font=font)
        images = render(_examples(flag, label, per_class, seed, difficulty), [size])[size]
        for column, image in enumerate(images):
            shown = Image.fromarray(image).convert("RGB").resize((tile, tile), resample)
            sheet.paste(shown, (_LABEL_WIDTH + column * pitch, top))
        top += pitch
    return sheet


def _examples(flag: str, label: int, count: int, seed: int, difficulty: float) -> list[Scene]:
    """Return training scenes of a class: the phantom's own where it has enough early on.

    ChestMNIST's rows show one finding alone, which is what a reader wants to compare.
    """
    info, first = catalog.info(flag), 10_000 * (label + 1)
    if info.task == MULTI_LABEL:
        alone = tuple(int(column == label) for column in range(len(info.classes)))
        places = range(first, first + count)
        return [Scene(flag, "train", place, alone, seed, difficulty) for place in places]
    described = scenes(flag, "train", _REACH, seed=seed, difficulty=difficulty)
    return [scene for scene in described if scene.labels[0] == label][:count]
