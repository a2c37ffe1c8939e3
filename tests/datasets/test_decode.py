"""From files of every kind to 8-bit squares."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medplus.datasets.decode import fit, glance, read
from medplus.datasets.intensity import ImageFaultError
from medplus.reading import Reading

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)


def pixels(path, size=12, policy="squash", value_range=None):
    found = glance(path)
    channels = "rgb" if found.colour else "grey"
    reading = Reading(size=size, policy=policy, channels=channels, value_range=value_range)
    return read(path, reading)[0]


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("png", {}),
        ("tif", {}),
        ("bmp", {}),
        ("webp", {"lossless": True}),
        ("jp2", {"irreversible": False}),
    ],
)
@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
def test_lossless_formats_keep_every_pixel(save, ending, options, image):
    found = pixels(save(f"a/x.{ending}", image, **options))
    # WebP knows no grey: there, all three channels are alike.
    expected = image if found.ndim == image.ndim else np.repeat(image[..., None], 3, axis=2)
    np.testing.assert_array_equal(found, expected)


def test_jpeg_is_what_pillow_decodes(save):
    path = save("a/x.JPEG", RGB, quality=90)
    np.testing.assert_array_equal(pixels(path), np.asarray(Image.open(path)))


def test_transparent_parts_become_black(save):
    alpha = np.full((12, 12, 1), 255, np.uint8)
    alpha[:6] = 0
    found = pixels(save("a/x.png", np.concatenate([RGB, alpha], axis=2)))
    assert (found[:6] == 0).all()
    np.testing.assert_array_equal(found[6:], RGB[6:])


def test_grey_with_alpha_stays_grey(save):
    found = pixels(save("a/x.png", Image.merge("LA", [Image.fromarray(GREY)] * 2)))
    np.testing.assert_allclose(found, GREY.astype(float) ** 2 / 255, atol=1)


def test_palette_of_colours_is_rgb_and_of_greys_is_grey(save):
    few = Image.fromarray(RGB).quantize(8)
    np.testing.assert_array_equal(pixels(save("a/x.png", few)), np.asarray(few.convert("RGB")))
    grey = Image.fromarray(GREY).convert("P")
    np.testing.assert_array_equal(pixels(save("a/y.png", grey)), GREY)


def test_black_and_white(save):
    found = pixels(save("a/x.png", Image.fromarray(GREY > 99)))
    np.testing.assert_array_equal(found, np.where(GREY > 99, 255, 0))


def test_cmyk_becomes_rgb(save):
    ink = Image.fromarray(RNG.integers(0, 256, (12, 12, 4), dtype=np.uint8), "CMYK")
    c, m, y, k = np.moveaxis(np.asarray(ink).astype(float), 2, 0)
    expected = np.stack([(255 - x) * (255 - k) / 255 for x in (c, m, y)], axis=2)
    np.testing.assert_allclose(pixels(save("a/x.tif", ink)), expected, atol=1)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_are_scaled_by_their_whole_range(save, ending):
    deep = RNG.integers(0, 65536, (12, 12), dtype=np.uint16)
    found = pixels(save(f"a/x.{ending}", deep))
    np.testing.assert_array_equal(found, np.rint(deep / 257))


def test_value_range_replaces_the_whole_range(save):
    deep = np.linspace(0, 5000, 144).reshape(12, 12).astype(np.uint16)
    found = pixels(save("a/x.tif", deep), value_range=(1000, 4095))
    np.testing.assert_array_equal(
        found, np.rint((np.clip(deep.astype(float), 1000, 4095) - 1000) * 255 / 3095)
    )


def test_floats_lie_between_0_and_1(save):
    values = RNG.random((12, 12), dtype=np.float32)
    np.testing.assert_array_equal(
        pixels(save("a/x.tif", values)), np.rint(values.astype(np.float64) * 255)
    )
    path = save("a/y.tif", values * 40)
    with pytest.raises(ImageFaultError, match=r"not 0 and 1; say value_range: \[low, high\]"):
        pixels(path)
    assert pixels(path, value_range=(0, 40)).max() == np.rint(values.max() * 255)


def test_floats_that_are_not_finite_are_refused(save):
    values = np.full((12, 12), np.nan, np.float32)
    with pytest.raises(ImageFaultError, match="not finite"):
        pixels(save("a/x.tif", values))


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_upright(save, orientation, ending):
    wide = RNG.integers(0, 256, (6, 10), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if ending == "png" else {"tiffinfo": {0x0112: orientation}}
    upright = {
        1: wide, 2: wide[:, ::-1], 3: wide[::-1, ::-1], 4: wide[::-1], 5: wide.T,
        6: np.rot90(wide, -1), 7: wide[::-1, ::-1].T, 8: np.rot90(wide),
    }[orientation]  # fmt: skip
    found = pixels(save(f"a/x.{ending}", wide, **options), 10, "pad")
    rows, columns = upright.shape
    top, left = (10 - rows) // 2, (10 - columns) // 2
    np.testing.assert_array_equal(found[top : top + rows, left : left + columns], upright)


# --- size ----------------------------------------------------------------------------------------


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    found = np.asarray(fit(Image.fromarray(stripes), 8, "squash"))
    assert np.abs(found.astype(int) - 100).max() <= 12  # nearest pixels would be 0 or 200


@pytest.mark.parametrize("shape", [(8, 16), (16, 8)])
def test_policies_differ_in_what_they_do_to_the_longer_side(shape):
    image = np.full(shape, 200, np.uint8)
    ends = (slice(None), slice(None, 4)) if shape[1] > shape[0] else (slice(None, 4), slice(None))
    image[ends] = 40
    squashed, cropped, padded = (
        np.asarray(fit(Image.fromarray(image), 8, policy)) for policy in ("squash", "crop", "pad")
    )
    assert squashed.shape == cropped.shape == padded.shape == (8, 8)
    assert squashed.min() < 50 and (cropped == 200).all()
    wide = padded if shape[1] > shape[0] else padded.T
    assert (wide[:2] == 0).all() and (wide[6:] == 0).all() and (wide[2:6] > 0).all()


# --- what is refused -----------------------------------------------------------------------------


def test_animated_and_multi_page_images_are_refused(save):
    more = [Image.fromarray(GREY.T)]
    for name in ("x.png", "x.tif"):
        path = save(f"a/{name}", GREY, save_all=True, append_images=more)
        with pytest.raises(ImageFaultError, match="holds 2 images"):
            glance(path)


@pytest.mark.parametrize("content", [b"no image", b"II*\0\x28\0\0\0" + bytes(60)])
def test_what_pillow_does_not_open_is_refused_with_what_to_do(content, tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(ImageFaultError, match=r"of no format that medplus reads.*; save it as one"):
        glance(path)


def test_image_bombs_are_refused(save, monkeypatch):
    path = save("a/x.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 144 is less than twice as many
    with pytest.raises(ImageFaultError, match="more than 0 million pixels"):
        glance(path)


def test_content_does_not_depend_on_the_format(save):
    reading = Reading(size=4, channels="grey")
    contents = {read(save(f"a/x.{end}", GREY), reading)[1] for end in ("png", "bmp", "tif")}
    assert len(contents) == 1
    assert read(save("a/y.png", GREY.T), reading)[1] not in contents


def test_of_a_cameras_two_pictures_the_first_is_read(save):
    second = Image.fromarray(255 - RGB)
    path = save("a/x.jpg", RGB, format="MPO", save_all=True, append_images=[second], quality=95)
    plain = save("a/y.jpg", RGB, quality=95)
    np.testing.assert_array_equal(pixels(path), pixels(plain))


def tiff_of(values):
    """Write a baseline TIFF by hand: Pillow has no mode for signed bytes and 32 bits unsigned."""
    formats = {"u": 1, "i": 2}
    entries = [
        (256, 3, values.shape[1]), (257, 3, values.shape[0]), (258, 3, 8 * values.itemsize),
        (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, values.shape[0]),
        (279, 4, values.nbytes), (339, 3, formats[values.dtype.kind]),
    ]  # fmt: skip
    body = values.tobytes()
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
        directory += struct.pack("<HHI", tag, kind, 1) + packed
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + directory + bytes(4)


def test_signed_bytes_and_32_bits_without_a_sign_are_read_as_they_are(tmp_path):
    signed = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    path = tmp_path / "x.tif"
    path.write_bytes(tiff_of(signed))
    np.testing.assert_array_equal(pixels(path, 16), signed.astype(int) + 128)
    large = np.linspace(0, 2**32 - 1, 256).astype(np.uint32).reshape(16, 16)
    path.write_bytes(tiff_of(large))
    expected = np.rint(large / (2**32 - 1) * 255)
    np.testing.assert_array_equal(pixels(path, 16, value_range=(0.0, 2.0**32 - 1)), expected)


def test_a_value_range_for_16_bits_of_colour_is_refused(tmp_path):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
    assert pixels(path, 4).shape == (4, 4, 3)
    with pytest.raises(ImageFaultError, match="16 bits of colour"):
        pixels(path, 4, value_range=(0.0, 4095.0))
