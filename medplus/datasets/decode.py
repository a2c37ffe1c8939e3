"""One image file to one square uint8 array: decode, 8 bits, upright, resize."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    Image,
    ImageOps,
    Jpeg2KImagePlugin,  # noqa: F401  # a format that is named is known once its plugin is imported
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from medplus.datasets import dicom
from medplus.datasets.files import is_dicom
from medplus.datasets.intensity import ImageFaultError, faults, scale_to_bytes
from medplus.reading import Policy, Reading

FORMATS = ("BMP", "DIB", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
_UNIDENTIFIED = (
    "it is damaged, of no format that medplus reads, or of unusual pixels or several pages; save "
    "it as one PNG or TIFF, grey or RGB with 8 or 16 bits"
)
_GREY = ("1", "L", "LA", "La", "I", "F")
_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262
_SIGNED = 2
_SAMPLE_FORMAT = 339
_QUANTILES = 101

Span = tuple[float, float] | None
"""The lowest and highest value of an image of more than 8 bits; None for 8."""


@dataclass(frozen=True)
class Glance:
    """What a file's header tells: whether it has colour, its height and width, what it is."""

    colour: bool
    shape: tuple[int, int]
    dicom: bool
    mode: str


@dataclass(frozen=True)
class Look:
    """What was seen of an image when it was read.

    Attributes
    ----------
    content : str
        Digest of the file's own pixels in 8 bits, before they are resized.
    span : tuple of two floats, or None
    blank : bool
        Whether all its pixels are alike.
    """

    content: str
    span: Span
    blank: bool


def glance(path: Path) -> Glance:
    """Return what a file's header tells, and refuse what is animated, too large or no image.

    Raises
    ------
    ImageFaultError
    """
    if is_dicom(path.name):
        colour, shape = dicom.glance(path)
        return Glance(colour, shape, True, "DICOM")
    with _open(path) as image:
        colour = _has_colour(image)
        deep = _is_deep(image) or _has_deep_colour(image)
        mode = f"{'colour' if colour else 'grey'} {'16 bits or more' if deep else '8 bits'}"
        return Glance(colour, (image.height, image.width), False, mode)


def read(path: Path, reading: Reading) -> tuple[npt.NDArray[np.uint8], Look]:
    """Return an image, shape (size, size) or (size, size, 3), and what was seen of it.

    The reading is settled. `glance` has to have been content with the file.

    Raises
    ------
    ImageFaultError
    """
    if is_dicom(path.name):
        image, span = Image.fromarray(dicom.read(path, reading.ends)), None
    else:
        image, span = _upright(path, reading.ends)
    digest = hashlib.blake2b(f"{image.mode}{image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    image = image.convert("L" if reading.channels == "grey" else "RGB")
    fitted = np.asarray(fit(image, reading.size, reading.policy))
    return fitted, Look(digest.hexdigest(), span, bool((fitted == fitted.flat[0]).all()))


def refit(pixels: npt.NDArray[np.uint8], reading: Reading) -> npt.NDArray[np.uint8]:
    """Return an image that came as an array as a file of it would be read.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)

    Raises
    ------
    ImageFaultError
        If it is not square, and the reading has no policy.
    """
    colours = () if reading.channels == "grey" else (3,)
    if pixels.shape == (reading.size, reading.size, *colours):
        return pixels
    image = Image.fromarray(pixels).convert("L" if reading.channels == "grey" else "RGB")
    return np.asarray(fit(image, reading.size, reading.policy))


def quantiles(path: Path) -> npt.NDArray[np.float64]:
    """Return 101 quantiles of an image's values; none where it has 8 bits.

    Raises
    ------
    ImageFaultError
    """
    if is_dicom(path.name):
        values = dicom.grey_values(path)
    else:
        with _open(path) as image:
            values = _deep_values(image) if _is_deep(image) else np.empty(0)
    return np.quantile(values, np.linspace(0, 1, _QUANTILES)) if values.size else np.empty(0)


def fit(image: Image.Image, size: int, policy: Policy | None) -> Image.Image:
    """Bring an image to size × size pixels, bicubic and antialiased.

    ``squash`` changes the aspect ratio, ``crop`` keeps the central square, ``pad`` adds black.

    Raises
    ------
    ImageFaultError
        If it is not square, and there is no policy.
    """
    width, height = image.size
    if policy == "squash" or width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if policy is None:
        raise ImageFaultError(
            f"it has {width} × {height} px, and how the dataset's images were made square is not "
            "known; make it square"
        )
    if policy == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    scale = size / max(width, height)
    inner = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = Image.new(image.mode, (size, size))
    resized = image.resize(inner, Image.Resampling.BICUBIC)
    canvas.paste(resized, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return canvas


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image; as a stream, since Pillow maps files and then turns some TIFFs wrongly."""
    with faults():
        file = path.open("rb")
    with file:
        with faults():
            # Twice the limit is an error to Pillow, and beyond it a mere warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                image = Image.open(file, formats=FORMATS)
                # Of a camera's MPO, the first picture is the photograph.
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            except (Image.DecompressionBombWarning, Image.DecompressionBombError):
                limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
                raise ImageFaultError(f"it has more than {limit:.0f} million pixels") from None
            except UnidentifiedImageError:
                raise ImageFaultError(_UNIDENTIFIED) from None
        with image:
            if frames > 1:
                raise ImageFaultError(f"it holds {frames} images (animated or multi-page)")
            yield image


def _has_colour(image: Image.Image) -> bool:
    if image.mode.startswith("I;16") or image.mode in _GREY:
        return False
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0], np.uint8)
        return bool((palette.reshape(-1, 3) != palette.reshape(-1, 3)[:, :1]).any())
    return True


def _is_deep(image: Image.Image) -> bool:
    """Tell whether Pillow gives the pixels as they are, to be brought to 8 bits here."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_int8(image)


def _is_int8(image: Image.Image) -> bool:
    return image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == (_SIGNED,)


def _has_deep_colour(image: Image.Image) -> bool:
    """Tell whether Pillow itself brings 16 bits of colour or alpha to 8, before it is loaded."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) and not _is_deep(image)


def _upright(path: Path, ends: tuple[float, float] | None) -> tuple[Image.Image, Span]:
    """Return a file's image in 8 bits, grey or RGB, turned as its EXIF says; and its span."""
    with _open(path) as image, faults():
        if ends is not None and _has_deep_colour(image):
            raise ImageFaultError(
                "it has 16 bits of colour or of alpha, to which value_range cannot be applied; "
                "save it as grey without alpha, or leave value_range out"
            )
        if _is_deep(image):
            # Loading the pixels closes the file, and with it the tags.
            inverted, signed = _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO, _is_int8(image)
            return _from_deep(_deep_values(image), ends, inverted, signed)
        image.load()
        return _without_alpha(ImageOps.exif_transpose(image)), None


def _tag(image: Image.Image, number: int) -> Any:
    """Return what a TIFF says, or None for other files."""
    return getattr(image, "tag_v2", {}).get(number)


def _deep_values(image: Image.Image) -> npt.NDArray[Any]:
    """Return the values of an image of more than 8 bits, or of signed ones, turned upright."""
    is_int8 = _is_int8(image)
    is_unsigned = hasattr(image, "tag_v2") and _tag(image, _SAMPLE_FORMAT) in (None, (1,))
    image.load()
    values = np.asarray(ImageOps.exif_transpose(image))
    if is_int8:
        return values.view(np.int8)
    if is_unsigned and values.dtype == np.int32:
        return values.view(np.uint32)  # which Pillow has no mode for
    return values


def _without_alpha(image: Image.Image) -> Image.Image:
    """Lay what is transparent on black, and return L or RGB."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
        return flat.convert("RGB" if _has_colour(image) else "L")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _from_deep(
    values: npt.NDArray[Any], ends: tuple[float, float] | None, inverted: bool, signed_byte: bool
) -> tuple[Image.Image, Span]:
    """Scale 16-bit, 32-bit and float values to 8 bits, the same way for every image.

    Without `ends`, 16 bits by their whole range (0 to 65535), and floats by 0 to 1.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageFaultError("it has pixels that are not finite")
    span = (float(values.min()), float(values.max()))
    default = (0.0, 1.0) if values.dtype.kind == "f" else (0.0, 65535.0)
    low, high = ends or ((-128.0, 127.0) if signed_byte else default)
    if ends is None and (span[0] < low or span[1] > high):
        raise ImageFaultError(
            f"its values lie between {span[0]:g} and {span[1]:g}, not {low:g} and "
            f"{high:g}; say value_range: [low, high] in dataset.yaml"
        )
    pixels = scale_to_bytes(values, low, high)
    return Image.fromarray(255 - pixels if inverted else pixels), span
