"""DICOM files, those that ship with pydicom and some made here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from medplus.datasets import dicom  # noqa: E402
from medplus.datasets.decode import glance, read  # noqa: E402
from medplus.datasets.intensity import ImageFaultError  # noqa: E402
from medplus.datasets.sources import load_dataset  # noqa: E402
from medplus.errors import DatasetError  # noqa: E402
from medplus.reading import Reading  # noqa: E402

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def make(tmp_path):
    """Return a function that writes the CT of pydicom with other pixels and attributes."""

    def write(values: np.ndarray, **attributes: object) -> Path:
        dataset = pydicom.dcmread(FILES / "CT_small.dcm")
        for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
            if name in dataset:
                delattr(dataset, name)
        dataset.Rows, dataset.Columns = values.shape[:2]
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelData = values.tobytes()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        path = tmp_path / "x.dcm"
        dataset.save_as(path)
        return path

    return write


VALUES = np.arange(-32, 32, dtype=np.int16).reshape(8, 8) * 50


def test_without_a_window_the_smallest_value_is_black_and_the_largest_white(make):
    expected = np.rint((VALUES - VALUES.min()) / np.ptp(VALUES) * 255)
    np.testing.assert_array_equal(dicom.read(make(VALUES), None), expected)


def test_window_is_of_rescaled_values(make):
    path = make(VALUES, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    found = dicom.read(path, None)
    hounsfield = VALUES * 2.0 - 100
    # PS3.3 C.11.2.1.2.1, the linear function
    expected = np.clip(((hounsfield - 39.5) / 399 + 0.5) * 255, 0, 255)
    np.testing.assert_allclose(found, expected, atol=0.51)
    assert found.min() == 0 and found.max() == 255


def test_value_range_wins_over_the_window(make):
    path = make(VALUES, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=0, WindowWidth=9)
    expected = np.clip((VALUES * 2.0 - 100 + 1000) / 2000 * 255, 0, 255)
    np.testing.assert_allclose(dicom.read(path, (-1000, 1000)), expected, atol=0.51)


def test_monochrome1_is_inverted(make):
    plain = dicom.read(make(VALUES), None)
    inverted = dicom.read(make(VALUES, PhotometricInterpretation="MONOCHROME1"), None)
    np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm"])
def test_grey_files_of_pydicom(name):
    assert not glance(FILES / name).colour
    found = dicom.read(FILES / name, None)
    raw = pydicom.dcmread(FILES / name).pixel_array
    assert found.dtype == np.uint8 and found.shape == raw.shape
    order = np.argsort(raw, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()  # darker stays darker
    assert len(np.unique(found)) > 50


def test_ybr_becomes_rgb():
    """The same picture, stored as YBR and as RGB."""
    ybr = dicom.read(FILES / "SC_ybr_full_422_uncompressed.dcm", None)
    assert glance(FILES / "SC_ybr_full_422_uncompressed.dcm").colour
    assert ybr.shape == (100, 100, 3)
    rows = [5, 15, 25, 45, 55, 75, 85, 95]
    rgb = dicom.read(FILES / "SC_rgb_rle.dcm", None)
    np.testing.assert_allclose(ybr[rows, 50].astype(int), rgb[rows, 50].astype(int), atol=6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SC_rgb_rle_2frame.dcm", "holds 2 frames"),
        ("test-SR.dcm", "without an image"),
        ("rtplan.dcm", "without an image"),
    ],
)
def test_what_is_no_single_image_is_refused(name, reason):
    with pytest.raises(ImageFaultError, match=reason):
        glance(FILES / name)


def test_truncated_and_other_files_are_refused(tmp_path, make):
    with pytest.raises(ImageFaultError):
        read(FILES / "MR_truncated.dcm", Reading(size=8, channels="grey"))
    path = make(VALUES)
    path.write_bytes(b"no image")
    with pytest.raises(ImageFaultError, match="no DICOM file"):
        glance(path)


def folder_of(tmp_path: Path, names: list[str]) -> Path:
    for label in ("a", "b"):
        for i, name in enumerate(names):
            path = tmp_path / "data" / label / f"{i}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((FILES / name).read_bytes())
    return tmp_path / "data"


def test_series_of_several_shapes_is_resized_and_says_so(tmp_path, caplog):
    root = folder_of(tmp_path, ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm"])
    (root / "dataset.yaml").write_text("group_column: none")
    data = load_dataset(str(root), 32)
    assert data.channels == 1 and data.splits["train"].images.shape[1:] == (32, 32)
    assert "images of 2 shapes (64 × 64 to 128 × 128 px) are brought to 32 px" in caplog.text


def test_grey_and_colour_do_not_mix(tmp_path):
    root = folder_of(tmp_path, ["CT_small.dcm", "MR_small.dcm", "SC_rgb_rle.dcm"])
    with pytest.raises(DatasetError, match=r"2 of 6 DICOM files .* colour, the others are grey"):
        load_dataset(str(root), 32)
    (root / "dataset.yaml").write_text("channels: grey")
    assert load_dataset(str(root), 32).channels == 1


def test_without_pydicom_the_message_says_what_to_install(tmp_path, monkeypatch):
    root = folder_of(tmp_path, ["CT_small.dcm"] * 3)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DatasetError, match=r"6 DICOM files.* pip install pydicom"):
        load_dataset(str(root), 32)


def test_every_file_of_pydicom_is_read_or_refused():
    read_well = 0
    for path in sorted(FILES.glob("*.dcm")):
        try:
            found = glance(path)
            channels = "rgb" if found.colour else "grey"
            image, _ = read(path, Reading(size=16, policy="pad", channels=channels))
        except ImageFaultError as error:
            assert "\n" not in str(error)
        else:
            read_well += 1
            assert image.shape == ((16, 16, 3) if found.colour else (16, 16))
    assert read_well >= 30


def test_padding_counts_neither_as_black_nor_as_white(make):
    values = VALUES.copy()
    values[:2] = -20000
    found = dicom.read(make(values, PixelPaddingValue=-20000), None)
    inside = values[2:]
    expected = np.rint((inside - inside.min()) / np.ptp(inside) * 255)
    np.testing.assert_array_equal(found[2:], expected)
    assert (found[:2] == 0).all()


def test_what_an_enhanced_file_says_of_its_frame_counts(make):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    transform, window, group = Dataset(), Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = 2, -100
    window.WindowCenter, window.WindowWidth = 40, 400
    group.PixelValueTransformationSequence = Sequence([transform])
    group.FrameVOILUTSequence = Sequence([window])
    enhanced = dicom.read(make(VALUES, SharedFunctionalGroupsSequence=Sequence([group])), None)
    plain = make(VALUES, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(enhanced, dicom.read(plain, None))


def test_files_without_an_ending_are_read_and_patients_kept_together(make, tmp_path):
    rng = np.random.default_rng(0)
    for patient in range(8):
        for scan in range(3):
            values = rng.integers(-99, 99, (8, 8)).astype(np.int16)
            made = make(values, PatientID=f"P{patient}")
            target = tmp_path / f"scans/{'ab'[patient % 2]}/IM-{patient}-{scan}"
            target.parent.mkdir(parents=True, exist_ok=True)
            made.rename(target)
    data = load_dataset(str(tmp_path / "scans"), 8)
    assert sum(len(split) for split in data.splits.values()) == 24
    assert "8 groups by 'PatientID'" in data.card.groups
    where = [{name.split("-")[1] for name in split.names} for split in data.splits.values()]
    assert not (where[0] & where[1] or where[0] & where[2] or where[1] & where[2])
