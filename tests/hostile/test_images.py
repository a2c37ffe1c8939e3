"""Image files that decode to far more than they are, or to numbers that are none."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medplus.datasets import decode
from medplus.datasets.description import read_description
from medplus.datasets.intensity import ImageFaultError
from medplus.errors import UsageError
from medplus.reading import Reading
from tests.hostile.limits import outcome
from tests.hostile.makers import chunk, png, tiff

READING = Reading(size=16, policy="squash", channels="grey")
DEFLATE, LZW, PLAIN, LZMA = 8, 5, 1, 34925
PIXELS = (b"\x00" + bytes(8)) * 8


def take(path):
    decode.glance(path)
    return decode.read(path, READING)


BOMBS = {
    "60,000 × 60,000.png": png(60_000, 60_000),
    "longest sides.png": png(2**31 - 1, 2**31 - 1),
    "no sides.png": png(0, 0),
    "text of 128 MB.png": png(
        8, 8, PIXELS, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27), 1))
    ),
    "profile of 128 MB.png": png(
        8, 8, PIXELS, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 27), 1))
    ),
    "60,000 × 60,000 deflated.tif": tiff(60_000, 60_000, DEFLATE, zlib.compress(bytes(1 << 20))),
    "9,000 × 9,000 that are not there.tif": tiff(9_000, 9_000, DEFLATE, zlib.compress(b"x")),
    "60,000 × 60,000 plain.tif": tiff(60_000, 60_000, PLAIN, bytes(100)),
    "60,000 × 60,000 LZW.tif": tiff(60_000, 60_000, LZW, bytes(100)),
    "60,000 × 60,000 LZMA.tif": tiff(60_000, 60_000, LZMA, bytes(100)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    assert outcome(lambda: take(path)).startswith("refused: ")


def test_pixels_beyond_the_last_row_are_not_inflated(tmp_path):
    path = tmp_path / "long.png"
    path.write_bytes(png(8, 8, bytes(1 << 27)))
    assert outcome(lambda: take(path)) == "done"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_every_truncation_is_read_or_refused(ending, tmp_path):
    path = tmp_path / f"image.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        try:
            take(path)
        except ImageFaultError:
            continue


def test_postscript_under_another_name_is_not_run(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageFaultError, match="of no format that medplus reads"):
        take(path)


# --- numbers that are none ----------------------------------------------------------------------


def dicom(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **more: object) -> bytes:
    """Return a grey DICOM file of float32 or uint16 pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
    if values.dtype.kind == "f":
        dataset.FloatPixelData = values.tobytes()
    else:
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def with_one(value: float) -> np.ndarray:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    values[3, 4] = value
    return values


@pytest.mark.parametrize(
    "content",
    [
        dicom(with_one(np.nan)),
        dicom(with_one(np.inf)),
        dicom(with_one(0.5)),
        dicom(RAMP, RescaleSlope="1e308", RescaleIntercept="0"),
    ],
    ids=["one NaN", "one infinite", "finite", "infinite by the rescaling"],
)
def test_dicom_pixels_that_are_not_finite_are_refused(content, request, tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(content)
    if request.node.callspec.id == "finite":
        assert len(np.unique(take(path)[0])) > 100
        return
    with pytest.raises(ImageFaultError, match="not finite"):
        take(path)


def test_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom(RAMP, DeflatedExplicitVRLittleEndian))
    assert pydicom.dcmread(path).Rows == 16  # pydicom inflates it whole, whatever its size
    with pytest.raises(ImageFaultError, match="deflated"):
        take(path)


@pytest.mark.parametrize(
    "bounds", ["[-1.0e+308, 1.0e+308]", "[-.inf, .inf]", "[.nan, 1]", "[1, 0]"]
)
def test_value_range_without_bounds_is_refused(bounds, tmp_path):
    (tmp_path / "dataset.yaml").write_text(f"value_range: {bounds}\n")
    with pytest.raises(UsageError, match="value_range"):
        read_description(tmp_path)
