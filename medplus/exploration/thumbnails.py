"""Images, small, many to a picture: a page holds thousands without thousands of files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LARGE, SMALL = 56, 28
"""Pixels of a thumbnail's side: of few images, and of many."""
FEW = 5_000
COLUMNS = 32
BUDGET = 15_000_000
"""Bytes that all sheets together may take."""
_LOSSLESS = 2_000
_QUALITIES = (80, 50, 20, 5)


@dataclass(frozen=True)
class Sheets:
    """Thumbnails in the order of the rows, `COLUMNS` × `COLUMNS` to a sheet.

    Attributes
    ----------
    side : int
        Of a thumbnail, in pixels.
    sheets : tuple of bytes
        WebP.
    """

    side: int
    sheets: tuple[bytes, ...]


def make_sheets(
    image: Callable[[int], np.ndarray], n: int, size: int, budget: int = BUDGET
) -> Sheets:
    """Return sheets of thumbnails; images are made smaller, never larger.

    Parameters
    ----------
    image : callable
        Returns an image by its row, uint8, shape (size, size) or (size, size, 3).
    n : int
        How many there are.
    size : int
        Of the images, in pixels.
    budget : int
        Bytes; quality goes down until the sheets fit.

    Examples
    --------
    >>> sheets = make_sheets(lambda row: np.full((28, 28), row, np.uint8), 3, 28)
    >>> sheets.side, len(sheets.sheets)
    (28, 1)
    """
    from PIL import Image

    side = min(size, LARGE if n <= FEW else SMALL)
    per_sheet = COLUMNS * COLUMNS
    drawn = []
    for begin in range(0, n, per_sheet):
        rows = range(begin, min(begin + per_sheet, n))
        tiles = [_small(image(row), side) for row in rows]
        lines = -(-len(rows) // COLUMNS)
        sheet = np.zeros((lines * side, COLUMNS * side, *tiles[0].shape[2:]), np.uint8)
        for place, tile in enumerate(tiles):
            y, x = divmod(place, COLUMNS)
            sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = tile
        drawn.append(Image.fromarray(sheet))
    ways: list[dict[str, object]] = [{"quality": quality} for quality in _QUALITIES]
    if n <= _LOSSLESS:
        ways.insert(0, {"lossless": True})
    for way in ways:
        encoded = tuple(_webp(sheet, way) for sheet in drawn)
        if sum(map(len, encoded)) <= budget:
            break
    return Sheets(side, encoded)


def _small(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    if pixels.shape[0] == side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


def _webp(sheet: object, way: dict[str, object]) -> bytes:
    content = io.BytesIO()
    sheet.save(content, "webp", **way)  # type: ignore[attr-defined]
    return content.getvalue()
