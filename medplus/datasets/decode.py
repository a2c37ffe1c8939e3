"""One image file to one square uint8 array: decode, 8 bits, upright, resize."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from medplus.datasets import dicom
from medplus.datasets.description import Channels, Policy
from medplus.datasets.files import DICOM
from medplus.datasets.intensity import ImageFaultError, scale_to_bytes
from medplus.errors import first_line

RULES = 1
"""Version of the rules below: what changes a pixel raises it, and images are read anew."""

FORMATS = ("BMP", "DIB", "JPEG", "PNG", "TIFF")
_GREY = ("1", "L", "LA", "La", "I", "F")
_WHITE_IS_ZERO = 0
_PHOTOMETRIC_TAG = 262


@dataclass(frozen=True)
class Reading:
    """All that decides how a file becomes pixels; part of a dataset's digest.

    Attributes
    ----------
    value_range : tuple of two floats, or None
        The values that become 0 and 255, where an image has more than 8 bits.
    """

    size: int
    policy: Policy
    channels: Channels
    value_range: tuple[float, float] | None
    rules: int = RULES

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {**asdict(self), "value_range": self.value_range and list(self.value_range)}


@dataclass(frozen=True)
class Glance:
    """What a file's header tells: whether it has colour, its shape, and whether it is DICOM."""

    colour: bool
    shape: tuple[int, int]
    dicom: bool


def glance(path: Path) -> Glance:
    """Return what a file's header tells, and refuse what is animated, too large or no image.

    Raises
    ------
    ImageFaultError
    """
    if path.suffix.lower() == DICOM:
        colour, shape = dicom.glance(path)
        return Glance(colour, shape, dicom=True)
    with _open(path) as image:
        return Glance(_has_colour(image), (image.height, image.width), dicom=False)


def read(path: Path, reading: Reading, grey: bool) -> tuple[npt.NDArray[np.uint8], str]:
    """Return an image, shape (size, size) or (size, size, 3), and a digest of its content.

    The content is that of the file's own pixels, before they are resized.

    Raises
    ------
    ImageFaultError
    """
    if path.suffix.lower() == DICOM:
        image = Image.fromarray(dicom.read(path, reading.value_range))
    else:
        image = _upright(path, reading.value_range)
    digest = hashlib.blake2b(f"{image.mode}{image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    fitted = fit(image.convert("L" if grey else "RGB"), reading.size, reading.policy)
    return np.asarray(fitted), digest.hexdigest()


def fit(image: Image.Image, size: int, policy: Policy) -> Image.Image:
    """Bring an image to size × size pixels, bicubic and antialiased.

    ``squash`` changes the aspect ratio, ``crop`` keeps the central square, ``pad`` adds black.
    """
    width, height = image.size
    if policy == "squash" or width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
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


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Twice the limit is an error to Pillow, and beyond it a mere warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            image = Image.open(path, formats=FORMATS)
            frames = getattr(image, "n_frames", 1)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageFaultError(f"it has more than {limit:.0f} million pixels") from None
    except UnidentifiedImageError:
        raise ImageFaultError(_why_unidentified(path)) from None
    except Exception as error:  # decoders fail in many ways on damaged files
        raise ImageFaultError(first_line(error)) from None
    if frames > 1:
        image.close()
        raise ImageFaultError(f"it holds {frames} images (animated or multi-page)")
    return image


def _why_unidentified(path: Path) -> str:
    """Return what is wrong with a file that Pillow does not open: some TIFFs are only unusual."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # which is how Pillow tells of tags cut short
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            if tags.next:
                return "it holds several images (multi-page)"
            bits = tags[TiffImagePlugin.BITSPERSAMPLE]
            return (
                f"its pixels of {' + '.join(map(str, bits))} bits cannot be read; save it as grey "
                "or RGB with 8 or 16 bits"
            )
    except Exception:  # no TIFF, or a damaged one
        return "it is no PNG, JPEG, TIFF or BMP image, or damaged"


def _has_colour(image: Image.Image) -> bool:
    if image.mode.startswith("I;16") or image.mode in _GREY:
        return False
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0], np.uint8)
        return bool((palette.reshape(-1, 3) != palette.reshape(-1, 3)[:, :1]).any())
    return True


def _upright(path: Path, value_range: tuple[float, float] | None) -> Image.Image:
    """Return a file's image in 8 bits, grey or RGB, turned as its EXIF says."""
    with _open(path) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
                upright = ImageOps.exif_transpose(image)
                if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
                    tags = getattr(image, "tag_v2", {})
                    inverted = tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
                    return _from_deep(upright, value_range, inverted)
                return _without_alpha(upright)
        except ImageFaultError:
            raise
        except Exception as error:  # decoders fail in many ways on damaged files
            raise ImageFaultError(first_line(error)) from None


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
    image: Image.Image, value_range: tuple[float, float] | None, inverted: bool
) -> Image.Image:
    """Scale 16-bit, 32-bit and float pixels to 8 bits, the same way for every image.

    Without a `value_range`, 16 bits by their whole range (0 to 65535), and floats by 0 to 1.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageFaultError("it has pixels that are not finite")
    default = (0.0, 1.0) if values.dtype.kind == "f" else (0.0, 65535.0)
    low, high = value_range or default
    if value_range is None and (values.min() < low or values.max() > high):
        raise ImageFaultError(
            f"its values lie between {values.min():g} and {values.max():g}, not {low:g} and "
            f"{high:g}; say value_range: [low, high] in dataset.yaml"
        )
    pixels = scale_to_bytes(values, low, high)
    return Image.fromarray(255 - pixels if inverted else pixels)
