"""Sheets of thumbnails."""

import io

import numpy as np
from PIL import Image

from medplus.exploration.thumbnails import COLUMNS, make_sheets


def tile(sheets, row):
    per = COLUMNS * COLUMNS
    sheet = np.asarray(Image.open(io.BytesIO(sheets.sheets[row // per])).convert("RGB"))
    y, x = divmod(row % per, COLUMNS)
    s = sheets.side
    return sheet[y * s : (y + 1) * s, x * s : (x + 1) * s]


def test_few_images_are_kept_pixel_for_pixel_over_several_sheets():
    images = np.random.default_rng(0).integers(0, 256, (1100, 5, 5), dtype=np.uint8)
    sheets = make_sheets(images.__getitem__, 1100, 5)
    assert (sheets.side, len(sheets.sheets)) == (5, 2)
    for row in (0, 33, 1023, 1024, 1099):
        np.testing.assert_array_equal(tile(sheets, row)[..., 0], images[row])


def test_large_images_are_averaged_down():
    image = np.zeros((112, 112, 3), np.uint8)
    image[::2, :, 0] = 200
    sheets = make_sheets(lambda row: image, 2, 112)
    assert sheets.side == 56
    assert np.all(tile(sheets, 1) == [100, 0, 0])


def test_the_budget_is_kept_by_noise():
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 3), dtype=np.uint8)
    budget = 100_000
    assert len(make_sheets(images.__getitem__, 300, 28).sheets[0]) > budget
    assert len(make_sheets(images.__getitem__, 300, 28, budget).sheets[0]) <= budget
