"""Augmentation on the device, against numpy and scipy image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.config import FINETUNE_RECIPES, FinetuneRecipe
from medplus.training import augment as module
from medplus.training.augment import Augment, Changes, affine, mirror, shade, warp

MODERN = FinetuneRecipe(**FINETUNE_RECIPES["modern"])
ALL_FLIPS = list(itertools.product([False, True], repeat=3))
EVERYTHING = {
    "flip": "dihedral",
    "rotate": 30,
    "translate": 0.2,
    "scale": 0.3,
    "brightness": 0.5,
    "contrast": 0.5,
}


def draw(n=4, channels=3, side=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, side, side, generator=generator)


def augment(dataset="breastmnist", **options):
    return Augment(FinetuneRecipe(**options), dataset)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def changes(n=1, **given):
    """No change, but for what is given; one value stands for all images."""
    nothing = {
        "flips": torch.zeros(n, 3, dtype=torch.bool),
        "angle": torch.zeros(n),
        "zoom": torch.ones(n),
        "shift": torch.zeros(n, 2),
        "gain": torch.ones(n),
        "offset": torch.zeros(n),
    }
    for name, value in given.items():
        kind = nothing[name].dtype
        nothing[name] = torch.as_tensor(value, dtype=kind).expand_as(nothing[name])
    return Changes(**nothing)


def flipped(image: np.ndarray, flips) -> np.ndarray:
    """The reference: one image (channels, side, side) through numpy."""
    diagonal, leftright, updown = flips
    image = image.swapaxes(1, 2) if diagonal else image
    image = image[:, :, ::-1] if leftright else image
    return image[:, ::-1] if updown else image


def warped(image: np.ndarray, change: Changes, i: int) -> np.ndarray:
    """The reference: scipy's bilinear interpolation in pixels, zero outside, flips by numpy."""
    image = flipped(image, change.flips[i].tolist())
    side = image.shape[-1]
    centre = (side - 1) / 2
    rows, columns = np.mgrid[:side, :side]
    right, down = (float(share) * side for share in change.shift[i])
    x, y = columns - right - centre, rows - down - centre
    # Counter-clockwise as it is seen, where y points down; so back is clockwise.
    back = (x + 1j * -y) / float(change.zoom[i]) * np.exp(-1j * float(change.angle[i]))
    places = np.stack([centre - back.imag, centre + back.real])
    return np.stack(
        [
            scipy.ndimage.map_coordinates(plane, places, order=1, mode="grid-constant")
            for plane in image.astype(np.float64)
        ]
    )


def shaded(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return (image - image.mean()) * gain + image.mean() + offset


# --- when nothing is on -----------------------------------------------------------------------


def test_the_papers_recipe_changes_nothing():
    nothing, pixels, generator = Augment(FinetuneRecipe(), "pathmnist"), draw(), seeded(3)
    assert not nothing
    assert nothing(pixels, generator) is pixels
    assert torch.equal(generator.get_state(), seeded(3).get_state())


# --- flips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", ALL_FLIPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_mirrored_images_equal_numpys_exactly(flips, channels):
    pixels = draw(n=3, channels=channels, side=7)
    found = mirror(pixels, torch.tensor([flips] * 3))
    for image, result in zip(pixels, found, strict=True):
        np.testing.assert_array_equal(result.numpy(), flipped(image.numpy(), flips))


def test_each_image_is_flipped_in_its_own_way():
    pixels = draw(n=8)
    found = mirror(pixels, torch.tensor(ALL_FLIPS))
    for image, flips, result in zip(pixels, ALL_FLIPS, found, strict=True):
        np.testing.assert_array_equal(result.numpy(), flipped(image.numpy(), flips))


def symmetries(image: np.ndarray) -> dict[bytes, int]:
    """Number the eight symmetries: four quarter turns, then the same mirrored."""
    turned = [np.rot90(image, k, (1, 2)) for k in range(4)]
    every = [*turned, *(turn[..., ::-1] for turn in turned)]
    return {np.ascontiguousarray(one).tobytes(): i for i, one in enumerate(every)}


def counts(recipe_flip: str, n: int = 4000) -> np.ndarray:
    """How often each symmetry of a square occurs; anything else is an error."""
    image = draw(n=1, side=3)
    known = symmetries(image[0].numpy())
    found = augment(flip=recipe_flip)(image.expand(n, -1, -1, -1), seeded())
    return np.bincount([known[result.numpy().tobytes()] for result in found], minlength=8)


def test_dihedral_flips_are_the_eight_symmetries_equally_often():
    found = counts("dihedral")
    assert scipy.stats.chisquare(found).pvalue > 0.001


def test_horizontal_flips_mirror_half_of_the_images_left_to_right():
    found = counts("horizontal")
    assert found[0] + found[4] == 4000  # as it was, and mirrored without a turn
    assert scipy.stats.binomtest(int(found[4]), 4000).pvalue > 0.001


@pytest.mark.parametrize(
    ("dataset", "flip"),
    [
        ("pathmnist", "dihedral"),
        ("dermamnist", "dihedral"),
        ("bloodmnist", "dihedral"),
        ("tissuemnist", "dihedral"),
        ("chestmnist", "none"),
        ("pneumoniamnist", "none"),
        ("octmnist", "none"),
        ("retinamnist", "none"),
        ("breastmnist", "none"),
        ("organamnist", "none"),
        ("organcmnist", "none"),
        ("organsmnist", "none"),
        ("my_own_data", "none"),
    ],
)
def test_auto_flips_only_where_left_and_up_mean_nothing(dataset, flip):
    found = augment(dataset, flip="auto")
    assert found.flip == flip
    assert bool(found) is (flip != "none")


@pytest.mark.parametrize("flip", ["none", "horizontal", "dihedral"])
@pytest.mark.parametrize("dataset", ["chestmnist", "pathmnist"])
def test_a_flip_that_is_named_is_taken_at_its_word(dataset, flip):
    assert augment(dataset, flip=flip).flip == flip


@pytest.mark.parametrize(
    "options",
    [
        {"flip": "dihedral"},
        {"flip": "horizontal", "contrast": 0.2},
        {"brightness": 0.5, "contrast": 0.5},
    ],
    ids=str,
)
def test_without_rotation_shift_and_zoom_nothing_is_interpolated(monkeypatch, options):
    def refuse(*args, **kwargs):
        raise AssertionError("interpolated")

    monkeypatch.setattr(module.F, "grid_sample", refuse)
    augment(**options)(draw(), seeded())


# --- geometry ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    flips=st.sampled_from(ALL_FLIPS),
    angle=st.floats(-4, 4),
    zoom=st.floats(0.4, 3),
    shift=st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)),
    side=st.integers(1, 13),
    channels=st.sampled_from([1, 3]),
)
def test_warped_image_equals_scipys(flips, angle, zoom, shift, side, channels):
    pixels = draw(n=1, channels=channels, side=side)
    change = changes(flips=flips, angle=angle, zoom=zoom, shift=shift)
    found = warp(pixels, affine(change))
    np.testing.assert_allclose(found[0].numpy(), warped(pixels[0].numpy(), change, 0), atol=1e-4)


@pytest.mark.parametrize("side", [28, 224])
def test_no_change_is_the_same_image(side):
    pixels = draw(n=2, side=side)
    found = warp(pixels, affine(changes(n=2)))
    torch.testing.assert_close(found, pixels, rtol=0, atol=2e-4)


@pytest.mark.parametrize("flips", ALL_FLIPS)
def test_a_warp_that_only_flips_is_the_exact_flip(flips):
    pixels = draw(n=1, side=9)
    change = changes(flips=flips)
    exact = mirror(pixels, change.flips)
    torch.testing.assert_close(warp(pixels, affine(change)), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 2), (-1, 4), (-10, 0), (0, 10)])
def test_a_shift_by_whole_pixels_moves_them_and_fills_with_the_mean_colour(right, down):
    pixels = draw(n=1, side=10)
    found = warp(pixels, affine(changes(shift=(right / 10, down / 10))))
    expected = scipy.ndimage.shift(pixels.numpy(), (0, 0, down, right), order=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_autocast_does_not_blunt_the_points():
    pixels = draw(n=4, side=64)
    everything = augment(**EVERYTHING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = everything(pixels, seeded())
    assert torch.equal(found, everything(pixels, seeded()))


# --- brightness and contrast ------------------------------------------------------------------


@settings(max_examples=30)
@given(gain=st.floats(0.1, 2), offset=st.floats(-1, 1), channels=st.sampled_from([1, 3]))
def test_shaded_image_equals_the_formula(gain, offset, channels):
    pixels = draw(n=2, channels=channels) + 1
    change = changes(n=2, gain=gain, offset=offset)
    found = shade(pixels, change.gain, change.offset)
    for image, result in zip(pixels.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(result, shaded(image, gain, offset), atol=1e-5)


def test_what_comes_in_from_outside_has_the_mean_colour_whatever_the_brightness():
    pixels = torch.full((8, 3, 20, 20), 2.0)
    found = augment(rotate=45, scale=0.9, brightness=1, contrast=0.9)(pixels, seeded(4))
    zoom = augment(scale=0.9).draw(8, seeded(4)).zoom
    small = zoom < 0.6
    assert small.any()
    assert (found[small][:, :, 0, 0] == 0).all()


# --- chance -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    rotate=st.floats(0, 180),
    translate=st.floats(0, 1),
    scale=st.floats(0, 0.99),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
def test_changes_fill_their_ranges_and_keep_to_them(
    rotate, translate, scale, brightness, contrast, seed
):
    some = augment(
        rotate=rotate, translate=translate, scale=scale, brightness=brightness, contrast=contrast
    )
    change = some.draw(2000, seeded(seed))
    assert not change.flips.any()
    for values, centre, reach in [
        (change.angle, 0, np.radians(rotate)),
        (change.shift[:, 0], 0, translate),
        (change.shift[:, 1], 0, translate),
        (change.zoom, 1, scale),
        (change.offset, 0, brightness),
        (change.gain, 1, contrast),
    ]:
        distance = (values - centre).abs()
        assert distance.max() <= reach * (1 + 1e-5) + 1e-6
        assert distance.max() >= reach * 0.98 - 1e-6
        assert (values - centre).mean().abs() <= reach * 0.1 + 1e-6


def test_what_is_drawn_is_independent_between_options():
    change = augment(**EVERYTHING).draw(4000, seeded())
    columns = [change.angle, change.zoom, *change.shift.T, change.gain, change.offset]
    table = np.stack([*columns, *change.flips.T.float()])
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlation).max() < 0.07


def test_one_option_does_not_alter_anothers_chance():
    alone = augment(rotate=30).draw(5, seeded())
    together = augment(**EVERYTHING).draw(5, seeded())
    assert torch.equal(alone.angle, together.angle)


def test_the_generator_decides():
    everything, pixels = augment(**EVERYTHING), draw()
    generator = seeded(1)
    first, second = everything(pixels, generator), everything(pixels, generator)
    assert torch.equal(first, everything(pixels, seeded(1)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, everything(pixels, seeded(2)))


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    augment(**EVERYTHING)(draw(), seeded())
    assert torch.equal(torch.get_rng_state(), before)


# --- the whole --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [MODERN, FinetuneRecipe(**EVERYTHING)], ids=["modern", "everything"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_batch_equals_the_reference_image_by_image(recipe, channels):
    everything = Augment(recipe, "pathmnist")
    pixels = draw(n=9, channels=channels, side=14)
    change = everything.draw(9, seeded(5))
    found = everything(pixels, seeded(5))
    for i, image in enumerate(pixels.numpy()):
        expected = warped(shaded(image, float(change.gain[i]), float(change.offset[i])), change, i)
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [EVERYTHING, {"flip": "dihedral"}, {"brightness": 0.5}, {"rotate": 9, "flip": "horizontal"}],
    ids=str,
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_batch_keeps_its_shape_dtype_and_layout(options, layout, n):
    pixels = draw(n=n).contiguous(memory_format=layout)
    before = pixels.clone()
    found = augment(**options)(pixels, seeded())
    assert found.shape == pixels.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(pixels, before)
    assert n == 0 or found.data_ptr() != pixels.data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize("options", [EVERYTHING, {"flip": "dihedral"}, {"contrast": 0.5}], ids=str)
def test_a_gpu_shows_the_same_images(options):
    some, pixels = augment(**options), draw(n=16, side=64)
    found = some(pixels.cuda(), seeded())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), some(pixels, seeded()), rtol=0, atol=1e-3)


@pytest.mark.gpu
def test_a_gpu_needs_no_algorithm_that_is_not_deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        found = [augment(**EVERYTHING)(draw().cuda(), seeded()) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*found)
