"""From uint8 images to a backbone's input: the paper's chain, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from medplus.errors import UsageError
from medplus.preprocess import Preprocessor, PreprocessSpec, preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NORMALISATIONS = pytest.mark.parametrize(
    "normalisation", [IMAGENET, CLIP, INCEPTION], ids=["imagenet", "clip", "inception"]
)


def draw(n: int, size: int, rgb: bool, seed: int = 0) -> np.ndarray:
    shape = (n, size, size, 3) if rgb else (n, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def torchvision_chain(image: np.ndarray, mean, std, canvas: int = 224) -> torch.Tensor:
    """The reference: PIL to RGB, ToTensor, Normalize, then zero padding, centred."""
    missing = canvas - image.shape[0]
    left = missing // 2
    chain = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
            transforms.Pad((left, left, missing - left, missing - left), fill=0),
        ]
    )
    return chain(Image.fromarray(image).convert("RGB"))


# --- the paper's way --------------------------------------------------------------------------


@NORMALISATIONS
@pytest.mark.parametrize("size", [28, 64, 128, 224])
@pytest.mark.parametrize("rgb", [False, True], ids=["grey", "rgb"])
def test_padded_batch_is_bit_identical_to_torchvision(size, rgb, normalisation):
    images = draw(2, size, rgb)
    expected = torch.stack([torchvision_chain(image, *normalisation) for image in images])
    found = preprocess(torch.from_numpy(images), PreprocessSpec(*normalisation))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@NORMALISATIONS
def test_every_pixel_value_is_bit_identical_to_torchvision(normalisation):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = preprocess(torch.from_numpy(image[None]), PreprocessSpec(*normalisation, canvas=16))
    assert torch.equal(found[0], torchvision_chain(image, *normalisation, canvas=16))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 40), extra=st.integers(0, 15), rgb=st.booleans(), n=st.integers(1, 3))
def test_any_size_is_padded_as_torchvision_pads(size, extra, rgb, n):
    images = draw(n, size, rgb, seed=size)
    spec = PreprocessSpec(*CLIP, canvas=size + extra)
    expected = torch.stack([torchvision_chain(i, *CLIP, canvas=size + extra) for i in images])
    assert torch.equal(preprocess(torch.from_numpy(images), spec), expected)


def test_border_is_the_mean_colour():
    found = preprocess(torch.full((1, 28, 28), 255, dtype=torch.uint8), PreprocessSpec(*IMAGENET))
    inside = found[..., 98:126, 98:126]
    assert (inside > 0).all()
    assert found.count_nonzero() == inside.numel()


@pytest.mark.parametrize("size", [225, 300])
def test_images_larger_than_the_canvas_are_refused(size):
    spec = PreprocessSpec(*IMAGENET)
    images = torch.zeros(1, size, size, dtype=torch.uint8)
    message = f"images of {size} px cannot be padded to 224 px; use --fit resize"
    with pytest.raises(UsageError, match=message):
        spec.check(size)
    with pytest.raises(UsageError, match=message):
        preprocess(images, spec)
    with pytest.raises(UsageError, match=message):
        Preprocessor(spec, torch.float32, channels_last=False)(images)


@pytest.mark.parametrize("fit", ["resize", "native"])
def test_other_fits_take_larger_images(fit):
    PreprocessSpec(*IMAGENET, fit=fit, canvas=224 if fit == "resize" else None).check(512)


# --- beyond the paper -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 300])
@pytest.mark.parametrize("rgb", [False, True], ids=["grey", "rgb"])
def test_resized_batch_equals_torchvisions_bicubic(size, rgb):
    images = draw(2, size, rgb)
    found = preprocess(torch.from_numpy(images), PreprocessSpec(*IMAGENET, fit="resize"))
    planes = torch.from_numpy(images).float()
    planes = planes.permute(0, 3, 1, 2) if rgb else planes[:, None].repeat(1, 3, 1, 1)
    resized = tv.resize(planes, [224, 224], transforms.InterpolationMode.BICUBIC, antialias=True)
    expected = tv.normalize(resized.clamp(0, 255) / 255, *IMAGENET)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@NORMALISATIONS
def test_resizing_does_not_overshoot_the_range_of_pixels(normalisation):
    checkers = (np.indices((28, 28)).sum(0) % 2 * 255).astype(np.uint8)
    spec = PreprocessSpec(*normalisation, fit="resize")
    found = preprocess(torch.from_numpy(checkers[None]), spec)[0]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in normalisation)
    assert (found >= (0 - mean) / std).all()
    assert (found <= (1 - mean) / std).all()
    assert (found == (0 - mean) / std).any()  # bicubic does overshoot here: it was cut off


@pytest.mark.parametrize("size", [28, 224, 300])
def test_native_images_are_normalised_and_nothing_else(size):
    images = draw(2, size, rgb=False)
    spec = PreprocessSpec(*IMAGENET, fit="native", canvas=None)
    expected = torch.stack([torchvision_chain(i, *IMAGENET, canvas=size) for i in images])
    assert torch.equal(preprocess(torch.from_numpy(images), spec), expected)


@pytest.mark.parametrize(("rgb", "channels"), [(False, 1), (True, 3)])
def test_raw_pixels_are_scaled_to_0_to_1_in_their_own_channels(rgb, channels):
    images = draw(2, 28, rgb)
    spec = PreprocessSpec(mean=(), std=(), fit="native", canvas=None, rgb=False)
    found = preprocess(torch.from_numpy(images), spec)
    expected = torch.stack([transforms.ToTensor()(image) for image in images])
    assert found.shape == (2, channels, 28, 28)
    assert torch.equal(found, expected)


# --- many batches -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from([5, 8, 12]), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    fit=st.sampled_from(["pad", "resize", "native"]),
    channels_last=st.booleans(),
)
def test_preprocessor_equals_preprocess_over_any_batches(batches, fit, channels_last):
    spec = PreprocessSpec(*IMAGENET, fit=fit, canvas=None if fit == "native" else 12)
    preprocessor = Preprocessor(spec, torch.float32, channels_last)
    for seed, (n, size, rgb) in enumerate(batches):
        images = torch.from_numpy(draw(n, size, rgb, seed))
        assert torch.equal(preprocessor(images), preprocess(images, spec))


def test_raw_grey_after_raw_rgb_has_one_channel_again():
    spec = PreprocessSpec(mean=(), std=(), canvas=40, rgb=False)
    preprocessor = Preprocessor(spec, torch.float32, channels_last=False)
    for rgb in (True, False, True):
        images = torch.from_numpy(draw(2, 28, rgb))
        assert torch.equal(preprocessor(images), preprocess(images, spec))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [28, 224])
def test_half_precision_is_the_rounded_fp32_result(dtype, size):
    spec = PreprocessSpec(*CLIP)
    images = torch.from_numpy(draw(2, size, rgb=True))
    found = Preprocessor(spec, dtype, channels_last=True)(images)
    assert found.dtype == dtype
    assert torch.equal(found, preprocess(images, spec).to(dtype))


@pytest.mark.parametrize("size", [28, 224])
@pytest.mark.parametrize("channels_last", [True, False])
def test_batch_has_the_memory_format_asked_for(size, channels_last):
    preprocessor = Preprocessor(PreprocessSpec(*CLIP), torch.float32, channels_last)
    for n in (3, 2, 4):
        found = preprocessor(torch.from_numpy(draw(n, size, rgb=False)))
        asked = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=asked)


def test_canvas_is_allocated_once_for_batches_that_do_not_grow():
    preprocessor = Preprocessor(PreprocessSpec(*CLIP), torch.float32, channels_last=True)
    first = preprocessor(torch.from_numpy(draw(4, 28, rgb=False)))
    second = preprocessor(torch.from_numpy(draw(3, 28, rgb=False, seed=1)))
    assert second.data_ptr() == first.data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rgb", [False, True], ids=["grey", "rgb"])
def test_gpu_gives_the_same_bits(rgb):
    images = torch.from_numpy(draw(3, 28, rgb))
    spec = PreprocessSpec(*IMAGENET)
    found = Preprocessor(spec, torch.float32, channels_last=True)(images.pin_memory().cuda())
    assert torch.equal(found.cpu(), preprocess(images, spec))
