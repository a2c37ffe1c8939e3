"""Reading npz files that cannot be trusted."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medplus.datasets import npzfile
from medplus.errors import DatasetError
from medplus.vocabulary import SPLITS
from tests.hostile.makers import Trap


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Read the six arrays by the functions under test."""
    with npzfile.open_npz(path) as archive:
        headers = npzfile.read_headers(archive, path)
        npzfile.read_phantom_note(archive, path)
        contents = {
            name: b"".join(npzfile.read_blocks(archive, path, header))
            for name, header in headers.items()
        }
    return {name: np.load(io.BytesIO(content)) for name, content in contents.items()}


def rewrite_member(path: Path, name: str, data: bytes) -> None:
    """Replace one member's raw bytes, with a correct CRC."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for filename, content in members.items():
            archive.writestr(filename, content)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """Return an npy file with a header of any text."""
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


# --- what is read -----------------------------------------------------------------------------


def test_phantom_note_is_read_and_absent_elsewhere(write_npz):
    noted = write_npz("noted.npz", phantom=np.array('{"seed": 1}'))
    plain = write_npz("plain.npz")
    strange = write_npz("strange.npz", phantom=np.arange(3))
    notes = []
    for path in (noted, plain, strange):
        with npzfile.open_npz(path) as archive:
            notes.append(npzfile.read_phantom_note(archive, path))
    assert notes == ['{"seed": 1}', None, None]


# --- what is refused --------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """Return the message with which a file is refused; it must name the file."""
    with pytest.raises(DatasetError) as caught:
        read_all(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(40)])
def test_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    assert "not a readable npz" in refusal(path)


@pytest.mark.parametrize("name", ["train_images", "test_labels", "phantom"])
def test_object_array_is_refused_without_unpickling(write_npz, tmp_path, name):
    sprung = tmp_path / "sprung"
    path = write_npz(**{name: np.array([Trap(sprung)] * 7, object)})
    assert "object array" in refusal(path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "said"),
    [
        ("train_images", (7, 28, 28), "f4", "train_images is float32, but must be uint8"),
        ("train_images", (7, 28, 28), "<U3", "must be uint8"),
        ("val_labels", (3, 1), "f4", "val_labels is float32, but must be integer"),
        ("val_labels", (3, 1), "M8[s]", "must be integer"),
        *(("train_images", shape, "u1", f"train_images has shape {shape}")
          for shape in [(7,), (7, 28), (7, 28, 28, 2), (7, 28, 28, 3, 1), ()]),
        *(("train_images", shape, "u1", "must be square")
          for shape in [(7, 28, 30), (7, 28, 30, 3), (7, 0, 0)]),
        *(("train_labels", shape, "u1", f"train_labels has shape {shape}")
          for shape in [(), (7, 0), (7, 1, 1)]),
        *((f"{split}_labels", (2, 1), "u1", f"{split}_labels has 2 rows, {split}_images")
          for split in SPLITS),
        ("test_images", (5, 64, 64), "u1", "differ in shape"),
        ("test_labels", (5, 2), "u1", "differ in width"),
    ],
)  # fmt: skip
def test_arrays_of_another_layout_are_refused(write_npz, name, shape, dtype, said):
    assert said in refusal(write_npz(**{name: np.zeros(shape, dtype)}))


def test_missing_array_and_empty_split_are_named(write_npz):
    assert "lacks val_labels" in refusal(write_npz(val_labels=None))
    empty = {"val_images": np.zeros((0, 28, 28), "u1"), "val_labels": np.zeros((0, 1), "u1")}
    assert "val_images is empty" in refusal(write_npz(**empty))


def test_flat_and_column_labels_may_be_mixed(write_npz, make_arrays):
    flat = make_arrays()["test_labels"].ravel()
    assert read_all(write_npz(test_labels=flat))["test_labels"].shape == (5,)


# --- headers that lie -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        "(99999999999999999999999999, 28, 28)",
        "(6, 28, 28)",
        "(7, -28, -28)",
        "(-1, 28, 28)",
    ],
)
def test_header_that_declares_another_shape_than_the_data_is_refused(write_npz, shape):
    path = write_npz()
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    rewrite_member(path, "train_images.npy", npy(header, bytes(7 * 28 * 28)))
    assert "train_images" in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "[1, 2]",
        "{'descr': '|u1', 'fortran_order': 3, 'shape': (7, 28, 28)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (7.0, 28, 28)}",
        "{'descr': '|q9', 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': ('|u1', (28,)), 'fortran_order': False, 'shape': (7, 28)}",
        "__import__('os').mkdir('sprung')",
        "(" * 5000,
        "\x00",
    ],
)
@pytest.mark.parametrize("version", [1, 3, 77])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_header_is_refused(write_npz, header, version):
    path = write_npz()
    rewrite_member(path, "train_images.npy", npy(header, bytes(7 * 28 * 28), version))
    assert "train_images" in refusal(path)


# --- damage anywhere --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["deflated", "stored"])
def intact(request, tmp_path_factory) -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    arrays = {}
    for split, count in zip(SPLITS, (4, 2, 3), strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 9, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    buffer = io.BytesIO()
    (np.savez_compressed if request.param == "deflated" else np.savez)(buffer, **arrays)
    return buffer.getvalue(), arrays


def assert_refused_or_unchanged(path: Path, expected: dict[str, np.ndarray]) -> None:
    """Damage may hit bytes that mean nothing (a time stamp), but never gives other arrays."""
    try:
        found = read_all(path)
    except DatasetError as error:
        assert str(path) in str(error)
        return
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_truncation_anywhere_is_refused(intact, tmp_path):
    content, _ = intact
    path = tmp_path / "cut.npz"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refusal(path)
    path.write_bytes(content[:-1])
    refusal(path)


def test_every_third_flipped_byte_is_refused_or_harmless(intact, tmp_path):
    content, expected = intact
    path = tmp_path / "flipped.npz"
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert_refused_or_unchanged(path, expected)
