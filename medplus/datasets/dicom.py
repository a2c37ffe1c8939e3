"""DICOM files through pydicom, which is optional: pixels as a viewer would show them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medplus.datasets.intensity import ImageFaultError, faults, scale_to_bytes
from medplus.errors import DatasetError, optional
from medplus.naming import counted

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_INVERTED = "MONOCHROME1"
_MOST_PIXELS = 1 << 27
_OF_FRAME = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def check_installed(root: Path, n_files: int) -> None:
    """Refuse DICOM files, if there are any, where pydicom is not installed.

    Raises
    ------
    DatasetError
    """
    if n_files:
        what = f"{root} holds {counted(n_files, 'DICOM file')}; to read them"
        optional("pydicom", what, kind=DatasetError)


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
    with faults("its header is damaged ({})"):  # values are parsed when they are asked for
        frames = int(header.get("NumberOfFrames") or 1)
        shape = (int(header.Rows), int(header.Columns))
        kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if frames > 1:
        raise ImageFaultError(f"it holds {frames} frames")
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise ImageFaultError(f"it has more than {_MOST_PIXELS / 1e6:.0f} million pixels")
    return kind not in _GREY, shape


def patient(path: Path) -> str:
    """Return the patient that a file's header names; empty where it names none."""
    try:
        return str(_read(path, specific_tags=["PatientID"], stop_before_pixels=True).PatientID)
    except (ImageFaultError, AttributeError, ImportError):
        return ""  # what cannot be read is told of when its image is


def read(path: Path, ends: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Return a file's pixels, shape (height, width) or (height, width, 3).

    Grey: stored values, through the modality transform (Hounsfield units, for CT), then by `ends`,
    or else the file's own window (the first), or else its smallest to its largest value, padding
    left aside; MONOCHROME1 is inverted. Colour: RGB, from YBR and palettes too, by the stored bits.

    Raises
    ------
    ImageFaultError
        If the pixels cannot be decoded; says so too where a package for them is missing.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    dataset = _flat(_read(path))
    kind = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    with faults():
        if kind in _GREY:
            values, padding = _grey(dataset)
            grey = _windowed(values, padding, dataset, ends)
            return 255 - grey if kind == _INVERTED else grey
        values = pixel_array(dataset)  # YBR becomes RGB
        if kind == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
            return scale_to_bytes(values, 0, np.iinfo(values.dtype).max)
        return scale_to_bytes(values, 0, 2 ** int(dataset.BitsStored) - 1)


def grey_values(path: Path) -> npt.NDArray[Any]:
    """Return a grey file's values through the modality transform, without padding; else none.

    Raises
    ------
    ImageFaultError
    """
    dataset = _flat(_read(path))
    with faults():
        if dataset.get("PhotometricInterpretation", "MONOCHROME2") not in _GREY:
            return np.empty(0)
        values, padding = _grey(dataset)
        return values[~padding]


def _flat(dataset: Dataset) -> Dataset:
    """Put what an enhanced file says of its one frame where plain files say it."""
    with faults():
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for group in list(dataset.get(groups) or ())[:1]:
                for name in _OF_FRAME:
                    for said in list(group.get(name) or ())[:1]:
                        for element in said:
                            dataset[element.tag] = element
    return dataset


def _grey(dataset: Dataset) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return values through the modality transform, and which of them are mere padding."""
    from pydicom.pixels import apply_modality_lut, pixel_array

    stored: npt.NDArray[Any] = pixel_array(dataset)
    padding = np.zeros(stored.shape, bool)
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if isinstance(value, int):
        ends = sorted((value, limit if isinstance(limit, int) else value))
        padding = (stored >= ends[0]) & (stored <= ends[1])
    return apply_modality_lut(stored, dataset), padding


def _read(path: Path, **options: Any) -> Dataset:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with faults("it is no DICOM file that can be read ({})"):
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:  # pydicom would inflate without limit
            raise ImageFaultError("it is deflated as a whole; save it with plain data elements")
        return dcmread(path, **options)


def _windowed(
    values: npt.NDArray[Any],
    padding: npt.NDArray[np.bool_],
    dataset: Dataset,
    ends: tuple[float, float] | None,
) -> npt.NDArray[np.uint8]:
    from pydicom.pixels import apply_voi_lut

    if not np.isfinite(values).all():
        raise ImageFaultError("it has pixels that are not finite")
    if ends is not None:
        return scale_to_bytes(values, *ends)
    if dataset.get("VOILUTSequence"):
        shown = apply_voi_lut(values.astype(np.int64), dataset)
        table = dataset.VOILUTSequence[0]
        return scale_to_bytes(shown, 0, 2 ** int(table.LUTDescriptor[2]) - 1)
    if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        # What lies far outside the window shows which values the window's ends become.
        far = np.array([-1e12, 1e12])
        with np.errstate(over="ignore"):
            low, high = apply_voi_lut(far, dataset)
            shown = apply_voi_lut(values.astype(np.float64), dataset)
            return scale_to_bytes(shown, low, high)
    seen = values[~padding] if not padding.all() else values
    low, high = float(seen.min()), float(seen.max())
    pixels = scale_to_bytes(values, low, high if high > low else low + 1)
    pixels[padding] = 0
    return pixels
