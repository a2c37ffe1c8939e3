"""Reading npz files that cannot be trusted."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def test_blocks_are_bounded_and_join_to_the_data(write_npz, monkeypatch):
    monkeypatch.setattr(npzfile, "_BLOCK", 1000)
    path = write_npz()
    with npzfile.open_npz(path) as archive, np.load(path) as expected:
        header = npzfile.read_headers(archive, path)["train_images"]
        blocks = list(npzfile.read_blocks(archive, path, header))
        assert max(map(len, blocks)) <= 1000
        assert b"".join(blocks).endswith(expected["train_images"].tobytes())


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


@pytest.mark.parametrize("name", npzfile.ARRAYS)
def test_missing_array_is_named(write_npz, name):
    assert f"lacks {name}" in refusal(write_npz(**{name: None}))


def test_member_without_npy_ending_counts_as_missing(write_npz):
    path = write_npz()
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for filename, content in members.items():
            archive.writestr(filename.removesuffix(".npy"), content)
    assert "lacks train_images" in refusal(path)


@pytest.mark.parametrize("name", ["train_images", "test_labels", "phantom"])
def test_object_array_is_refused_without_unpickling(write_npz, tmp_path, name):
    sprung = tmp_path / "sprung"
    path = write_npz(**{name: np.array([Trap(sprung)] * 7, object)})
    assert "object array" in refusal(path)
    assert not sprung.exists()


@pytest.mark.parametrize("split", SPLITS)
def test_counts_that_disagree_are_told(write_npz, make_arrays, split):
    labels = make_arrays()[f"{split}_labels"][:-1]
    message = refusal(write_npz(**{f"{split}_labels": labels}))
    assert f"{split}_labels has {len(labels)} rows, {split}_images {len(labels) + 1}" in message


@pytest.mark.parametrize("dtype", ["f4", "i1", "u2", "?", "<U3", "S4", "M8[s]", "c8"])
def test_images_that_are_not_uint8_are_refused(write_npz, dtype):
    message = refusal(write_npz(train_images=np.zeros((7, 28, 28), dtype)))
    assert "must be uint8" in message


@pytest.mark.parametrize("dtype", ["f4", "<U3", "S4", "M8[s]", "m8[s]", "c8", "V4"])
def test_labels_that_are_not_integers_are_refused(write_npz, dtype):
    message = refusal(write_npz(val_labels=np.zeros((3, 1), dtype)))
    assert "must be integer" in message


@pytest.mark.parametrize(
    "shape",
    [(7,), (7, 28), (7, 28, 28, 2), (7, 28, 28, 4), (7, 3, 28, 28), (7, 28, 28, 3, 1), ()],
)
def test_images_of_another_layout_are_refused(write_npz, shape):
    message = refusal(write_npz(train_images=np.zeros(shape, np.uint8)))
    assert "train_images" in message


@pytest.mark.parametrize("shape", [(7, 28, 30), (7, 1, 28), (7, 28, 30, 3), (7, 0, 0)])
def test_non_square_images_are_refused(write_npz, shape):
    assert "must be square" in refusal(write_npz(train_images=np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("shape", [(), (7, 0), (7, 1, 1)])
def test_labels_of_another_layout_are_refused(write_npz, shape):
    assert "train_labels" in refusal(write_npz(train_labels=np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("split", SPLITS)
def test_empty_split_is_refused(write_npz, split):
    empty = {
        f"{split}_images": np.zeros((0, 28, 28), np.uint8),
        f"{split}_labels": np.zeros((0, 1), np.uint8),
    }
    assert f"{split}_images is empty" in refusal(write_npz(**empty))


def test_splits_whose_images_differ_in_size_are_refused(write_npz):
    message = refusal(write_npz(test_images=np.zeros((5, 64, 64), np.uint8)))
    assert "differ in shape" in message


def test_splits_whose_labels_differ_in_width_are_refused(write_npz):
    message = refusal(write_npz(test_labels=np.zeros((5, 2), np.uint8)))
    assert "differ in width" in message


def test_flat_and_column_labels_may_be_mixed(write_npz, make_arrays):
    flat = make_arrays()["test_labels"].ravel()
    assert read_all(write_npz(test_labels=flat))["test_labels"].shape == (5,)


# --- headers that lie -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        "(1000000000000,)",
        "(1000000000000, 28, 28)",
        "(99999999999999999999999999, 28, 28)",
        "(8, 28, 28)",
        "(6, 28, 28)",
        "(7, -28, -28)",
        "(-7, -28, 28)",
        "(-1, 28, 28)",
    ],
)
def test_header_that_declares_another_shape_than_the_data_is_refused(write_npz, shape):
    path = write_npz()
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    rewrite_member(path, "train_images.npy", npy(header, bytes(7 * 28 * 28)))
    assert "train_images" in refusal(path)


def test_negative_extents_that_multiply_to_the_right_size_are_refused(write_npz, make_arrays):
    path = write_npz()
    for name, array in make_arrays().items():
        if name.endswith("images"):
            shape = (len(array), -28, -28)
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
            rewrite_member(path, f"{name}.npy", npy(header, array.tobytes()))
    assert "train_images declares (7, -28, -28)" in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "nonsense",
        "[1, 2]",
        "{'descr': '|u1'}",
        "{'descr': '|u1', 'fortran_order': 3, 'shape': (7, 28, 28)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 7}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (7.0, 28, 28)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 28, 28)}",
        "{'descr': '|q9', 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': [], 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': {}, 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (7, 28, 28)}",
        "{'descr': ('|u1', (28,)), 'fortran_order': False, 'shape': (7, 28)}",
        "__import__('os').mkdir('sprung')",
        "(" * 5000,
        "'''",
        "\x00",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (7, 28, 28L)",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3, 77])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_header_is_refused(write_npz, header, version):
    path = write_npz()
    rewrite_member(path, "train_images.npy", npy(header, bytes(7 * 28 * 28), version))
    assert "train_images" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"\x93", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_member_that_ends_within_its_header_is_refused(write_npz, content):
    path = write_npz()
    rewrite_member(path, "val_labels.npy", content)
    assert "val_labels" in refusal(path)


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


def test_every_flipped_byte_is_refused_or_harmless(intact, tmp_path):
    content, expected = intact
    path = tmp_path / "flipped.npz"
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert_refused_or_unchanged(path, expected)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_overwritten_run_of_bytes_is_refused_or_harmless(intact, tmp_path_factory, data):
    content, expected = intact
    start = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=24))
    damaged = content[:start] + patch + content[start + len(patch) :]
    path = tmp_path_factory.getbasetemp() / "overwritten.npz"
    path.write_bytes(damaged)
    assert_refused_or_unchanged(path, expected)
