"""Corrupted images: deterministic, worse with severity, and what an independent way gives."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from torchvision.transforms import functional

from medplus.corruptions import Corruption
from medplus.corruptions.apply import corrupt
from medplus.corruptions.blur import scaled
from medplus.corruptions.table import TABLE

EACH = [(table, name) for table in ("grey", "colour") for name in TABLE[table]]
DRAWN = ("stain_deposit", "bubble", "black_corner", "characters")
"""Their number is drawn at random up to the severity's, or published in another order."""


def pictures(n, size, channels, seed=0):
    """Return smooth random images, which have something to lose."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(
        rng.normal(size=(n, size, size, channels)), (0, size / 14, size / 14, 0)
    )
    values = 128 + 60 * values / values.std()
    values = values.clip(0, 255).astype(np.uint8)
    return values[..., 0] if channels == 1 else values


def channels_of(table):
    return 1 if table == "grey" else 3


@pytest.mark.parametrize(("table", "name"), EACH)
def test_image_is_corrupted_alike_in_every_batch_and_never_in_place(table, name):
    images = pictures(4, 28, channels_of(table))
    before = images.copy()
    one = Corruption(name, 3, table)
    worse = corrupt(images, one, [5, 9, 2, 7])
    assert worse.shape == images.shape
    assert worse.dtype == np.uint8
    assert np.array_equal(worse[2:3], corrupt(images[2:3], one, [2]))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "bubble"])
def test_what_is_random_differs_by_image_and_severity(name):
    same = np.repeat(pictures(1, 64, 3), 2, axis=0)
    first, second = corrupt(same, Corruption(name, 2, "colour"), [0, 1])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("size", "n"), [(28, 12), (224, 1)])
@pytest.mark.parametrize(("table", "name"), [each for each in EACH if each[1] not in DRAWN])
def test_distance_grows_with_severity(table, name, size, n):
    images = pictures(n, size, channels_of(table))
    distance = [
        np.abs(
            corrupt(images, Corruption(name, level, table), range(n)) - images.astype(int)
        ).mean()
        for level in range(1, 6)
    ]
    assert distance[0] > 0
    # 28 px are few: neither steps of a zoom nor JPEG's blocks grow at each.
    slack = 0.03 * distance[-1] if size == 28 else 1e-9
    slack = max(slack, 0.15) if name in ("pixelate", "zoom_blur", "motion_blur") else slack
    assert (np.diff(distance) > -slack).all()
    assert distance[-1] > distance[0]


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_covers_more_on_average(name):
    images = np.full((24, 56, 56, 3), 120, np.uint8)
    covered = [
        (corrupt(images, Corruption(name, level, "colour"), range(24)) != 120).mean()
        for level in (1, 5)
    ]
    assert 0 < covered[0] < covered[1] < 0.5


# --- against something independent ------------------------------------------------------------


def test_gaussian_blur_is_torchvisions():
    image = pictures(1, 224, 3)
    blurred = corrupt(image, Corruption("gaussian_blur", 5, "chestmnist"), [0])[0]
    theirs = np.asarray(functional.gaussian_blur(Image.fromarray(image[0]), kernel_size=11))
    assert np.abs(blurred.astype(int) - theirs).max() <= 1
    assert (blurred == theirs).mean() > 0.999


def test_gamma_is_torchvisions():
    image = pictures(1, 28, 3)
    bent = corrupt(image, Corruption("gamma_corr_up", 5, "chestmnist"), [0])[0]
    assert np.array_equal(bent, np.asarray(functional.adjust_gamma(Image.fromarray(image[0]), 1.6)))


def test_defocus_is_a_mean_over_a_disk():
    image = pictures(1, 224, 1)
    blurred = corrupt(image, Corruption("defocus_blur", 2, "bloodmnist"), [0])[0]
    y, x = np.mgrid[-3:4, -3:4]
    disk = (x**2 + y**2 <= 9).astype(float)  # σ = 0.1 leaves its edge as it is
    theirs = ndimage.correlate(image[0].astype(float), disk / disk.sum(), mode="mirror")
    assert np.abs(blurred - np.floor(theirs)).max() <= 1


def test_motion_blur_is_a_walk_along_a_line():
    image = pictures(1, 224, 1)
    blurred = corrupt(image, Corruption("motion_blur", 1, "breastmnist"), [4])[0]
    # The angle is whichever of many explains it; every other pixel must then agree.
    best = min(
        np.abs(walked(image[0], np.deg2rad(angle), radius=5, sigma=5) - blurred).mean()
        for angle in np.arange(-45, 45.1, 0.5)
    )
    assert best < 0.05


def walked(image, angle, radius, sigma):
    total, weight = np.zeros(image.shape), 0.0
    padded = np.pad(image.astype(float), 12, mode="edge")
    for step in range(2 * radius + 1):
        down, right = (int(np.ceil(step * f(angle) - 0.5)) for f in (np.sin, np.cos))
        share = np.exp(-(step**2) / (2 * sigma**2))
        total += share * padded[12 + down :, 12 + right :][:224, :224]
        weight += share
    return np.rint(total / weight)


@pytest.mark.parametrize(
    ("channels", "share"), [(3, 1.0), (1, np.sqrt(0.299**2 + 0.587**2 + 0.114**2))]
)
def test_noise_has_its_spread_and_less_where_three_channels_are_made_grey(channels, share):
    images = np.full((8, 64, 64, 3)[: 4 if channels == 3 else 3], 128, np.uint8)
    table = "dermamnist" if channels == 3 else "chestmnist"
    for name, spread in (("gaussian_noise", 0.08 * 255), ("speckle_noise", 0.15 * 128)):
        noise = corrupt(images, Corruption(name, 2, table), range(8)) - images.astype(float)
        assert noise.std() == pytest.approx(share * spread, rel=0.03)
        assert abs(noise.mean()) < 1


def test_impulse_noise_hits_its_share_of_values():
    images = np.full((8, 64, 64, 3), 100, np.uint8)
    worse = corrupt(images, Corruption("impulse_noise", 5, "dermamnist"), range(8))
    assert (worse == 255).mean() == pytest.approx(0.085, abs=0.005)
    assert (worse == 0).mean() == pytest.approx(0.085, abs=0.005)
    assert set(np.unique(worse)) == {0, 100, 255}


def test_shot_noise_counts_photons():
    images = np.full((8, 64, 64, 3), 128, np.uint8)
    worse = corrupt(images, Corruption("shot_noise", 5, "dermamnist"), range(8)) / 255
    steps = np.unique(np.round(worse * 5, 1))
    assert np.allclose(steps, np.round(steps), atol=0.11)
    assert worse.mean() == pytest.approx(0.5, abs=0.02)


def test_pixelate_averages_blocks():
    image = pictures(1, 224, 1)
    worse = corrupt(image, Corruption("pixelate", 5, "dermamnist"), [0])[0]
    blocks = image[0].reshape(56, 4, 56, 4).mean(axis=(1, 3))
    assert np.abs(worse[::4, ::4] - blocks).max() <= 1
    assert np.array_equal(worse, np.kron(worse[::4, ::4], np.ones((4, 4), np.uint8)))


def test_saturation_is_added_as_colorsys_has_it():
    image = pictures(1, 12, 3)
    worse = corrupt(image, Corruption("saturate", 4, "pathmnist"), [0])[0]
    for row, column in np.ndindex(12, 12):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[0, row, column] / 255))
        theirs = colorsys.hsv_to_rgb(hue, min(saturation + 0.2, 1), value)
        assert np.abs(np.array(theirs) * 255 - worse[row, column]).max() <= 1


def test_kernel_is_scaled_as_an_image_read_between_its_pixels():
    rng = np.random.default_rng(0)
    kernel, image = rng.random((7, 7)), rng.random((30, 30))
    small = scaled(kernel, 0.3)
    assert small.sum() == pytest.approx(kernel.sum())
    y, x = 14, 15
    reach = len(small) // 2
    ours = (small * image[y - reach : y + reach + 1, x - reach : x + reach + 1]).sum()
    theirs = sum(
        kernel[i + 3, j + 3]
        * ndimage.map_coordinates(image, [[y + 0.3 * i], [x + 0.3 * j]], order=1)
        for i in range(-3, 4)
        for j in range(-3, 4)
    )
    assert ours == pytest.approx(theirs[0])
    assert scaled(kernel, 1) is kernel
    assert scaled(np.eye(7), 2.5).sum() == pytest.approx(7)


def test_images_of_all_one_grey_stay_what_they_are_under_blur():
    flat = np.full((1, 40, 40), 77, np.uint8)
    for name in ("gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"):
        worse = corrupt(flat, Corruption(name, 5, "grey"), [0])
        assert np.abs(worse.astype(int) - flat).max() <= (name == "zoom_blur"), name
