"""DICOM files through pydicom, which is optional: pixels as a viewer would show them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medplus.datasets.intensity import ImageFaultError, scale_to_bytes
from medplus.errors import DatasetError, first_line

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_INVERTED = "MONOCHROME1"
_MOST_PIXELS = 1 << 27
_LONGEST_REASON = 300


def check_installed(root: Path, n_files: int) -> None:
    """Refuse DICOM files where pydicom is not installed.

    Raises
    ------
    DatasetError
    """
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise DatasetError(
            f"{root} holds {n_files:,} DICOM files, which need pydicom: "
            "pip install 'medplus[dicom]'"
        ) from None


def glance(path: Path) -> tuple[bool, tuple[int, int]]:
    """Return whether a file has colour, and its height and width.

    Raises
    ------
    ImageFaultError
        If it is no DICOM image, or has several frames.
    """
    header = _read(path, stop_before_pixels=True)
    if "Rows" not in header or "Columns" not in header:
        raise ImageFaultError("it is a DICOM file without an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values are parsed when they are asked for
            frames = int(header.get("NumberOfFrames") or 1)
            shape = (int(header.Rows), int(header.Columns))
            kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    except Exception as error:
        raise ImageFaultError(f"its header is damaged ({first_line(error)})") from None
    if frames > 1:
        raise ImageFaultError(f"it holds {frames} frames")
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise ImageFaultError(f"it has more than {_MOST_PIXELS / 1e6:.0f} million pixels")
    return kind not in _GREY, shape


def read(path: Path, value_range: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Return a file's pixels, shape (height, width) or (height, width, 3).

    Grey: stored values, through the modality transform (Hounsfield units, for CT), then by
    `value_range`, or else the file's own window (the first), or else its smallest to its largest
    value; MONOCHROME1 is inverted. Colour: RGB, from YBR and palettes too, by the stored bits.

    Raises
    ------
    ImageFaultError
        If the pixels cannot be decoded; says so too where a package for them is missing.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    dataset = _read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of private tags and odd values: pixels are what counts
        try:
            values = pixel_array(dataset)  # YBR becomes RGB
            kind = dataset.get("PhotometricInterpretation", "MONOCHROME2")
            if kind == "PALETTE COLOR":
                values = apply_color_lut(values, dataset)
                return scale_to_bytes(values, 0, np.iinfo(values.dtype).max)
            if kind not in _GREY:
                return scale_to_bytes(values, 0, 2 ** int(dataset.BitsStored) - 1)
            grey = _windowed(apply_modality_lut(values, dataset), dataset, value_range)
        except ImageFaultError:
            raise
        except Exception as error:  # its decoders fail in many ways, and list them on many lines
            raise ImageFaultError(" ".join(str(error).split())[:_LONGEST_REASON]) from None
    return 255 - grey if kind == _INVERTED else grey


def _read(path: Path, **options: Any) -> Dataset:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = read_file_meta_info(path).get("TransferSyntaxUID")
            if syntax == DeflatedExplicitVRLittleEndian:  # pydicom would inflate without limit
                raise ImageFaultError("it is deflated as a whole; save it with plain data elements")
            return dcmread(path, **options)
    except ImageFaultError:
        raise
    except Exception as error:
        reason = first_line(error).removesuffix(" Use force=True to force reading.")
        raise ImageFaultError(f"it is no DICOM file that can be read ({reason})") from None


def _windowed(
    values: npt.NDArray[Any], dataset: Dataset, value_range: tuple[float, float] | None
) -> npt.NDArray[np.uint8]:
    from pydicom.pixels import apply_voi_lut

    if not np.isfinite(values).all():
        raise ImageFaultError("it has pixels that are not finite")
    if value_range is not None:
        return scale_to_bytes(values, *value_range)
    if dataset.get("VOILUTSequence"):
        shown = apply_voi_lut(values.astype(np.int64), dataset)
        table = dataset.VOILUTSequence[0]
        return scale_to_bytes(shown, 0, 2 ** int(table.LUTDescriptor[2]) - 1)
    if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        # What lies far outside the window shows which values the window's ends become.
        ends = np.array([-1e12, 1e12])
        with np.errstate(over="ignore"):
            low, high = apply_voi_lut(ends, dataset)
            return scale_to_bytes(apply_voi_lut(values.astype(np.float64), dataset), low, high)
    low, high = float(values.min()), float(values.max())
    return scale_to_bytes(values, low, high if high > low else low + 1)
