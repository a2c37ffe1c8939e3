"""Tensors and a document come back exactly as they were written, or not at all."""

from __future__ import annotations

import json
import math
import string
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medplus.tensorfile import DamagedFileError, read_document, read_tensors, write_tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def assert_same(read, written):
    assert list(read) == sorted(written)
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype, name
        assert read[name].shape == tensor.shape, name
        assert torch.equal(read[name], tensor.detach().cpu()), name


# --- what is written is read ------------------------------------------------------------------


@given(
    tensors=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    ),
    seed=st.integers(0, 99),
)
def test_tensors_of_every_dtype_and_shape_come_back(tensors, seed, new_folder):
    generator = torch.Generator().manual_seed(seed)
    written = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in tensors.items()
    }
    path = new_folder() / "file"
    write_tensors(path, written, {})
    read, document = read_tensors(path)
    assert_same(read, written)
    assert document == {}
    assert_same(
        dict(sorted(load_file(path).items())), written
    )  # the safetensors library's own reader


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_bit_of_a_float_comes_back(tmp_path, dtype):
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    written = bits.view(dtype) if dtype.itemsize == 2 else bits.repeat_interleave(2).view(dtype)
    write_tensors(tmp_path / "file", {"x": written}, {})
    read = read_tensors(tmp_path / "file")[0]["x"]
    assert torch.equal(read.view(torch.int16), written.view(torch.int16))  # NaN's payload too


WEIGHT = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "tensor",
    [
        WEIGHT.t(),
        WEIGHT[:, 1:3],
        WEIGHT[::2],
        WEIGHT[1],
        WEIGHT[0, 0].expand(5, 2),
        torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.nn.Parameter(WEIGHT.clone()),
    ],
    ids=["transposed", "columns", "strided", "offset", "expanded", "channels_last", "parameter"],
)
def test_tensors_of_any_strides_come_back(tmp_path, tensor):
    write_tensors(tmp_path / "file", {"x": tensor}, {})
    assert_same(read_tensors(tmp_path / "file")[0], {"x": tensor})


def test_tensors_that_share_memory_come_back_apart(tmp_path):
    tied = WEIGHT.clone()
    written = {"encoder": tied, "decoder": tied, "row": tied[1]}
    write_tensors(tmp_path / "file", written, {})
    read, _ = read_tensors(tmp_path / "file")
    assert_same(read, written)
    read["encoder"].zero_()
    assert torch.equal(read["decoder"], WEIGHT)
    assert torch.equal(read["row"], WEIGHT[1])


@pytest.mark.parametrize("length", range(8))
def test_tensors_are_aligned_to_their_elements(tmp_path, length):
    odd = {f"{n}": torch.ones(n, dtype=dtype) for n, dtype in enumerate(DTYPES, 1)}
    write_tensors(tmp_path / "file", odd, {"x": "x" * length})
    read, _ = read_tensors(tmp_path / "file")
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in read.values())
    # In the file too, for readers that map it into memory.
    assert int.from_bytes((tmp_path / "file").read_bytes()[:8], "little") % 8 == 0


@pytest.mark.gpu
def test_tensors_of_a_gpu_come_back_on_the_cpu(tmp_path):
    written = {"x": WEIGHT.cuda(), "t": WEIGHT.cuda().t()}
    write_tensors(tmp_path / "file", written, {})
    read, _ = read_tensors(tmp_path / "file")
    assert_same(read, written)
    assert read["x"].device.type == "cpu"


def test_writing_leaves_the_tensors_as_they_are(tmp_path):
    tensor = WEIGHT.clone().t()
    stride, pointer = tensor.stride(), tensor.data_ptr()
    write_tensors(tmp_path / "file", {"x": tensor}, {})
    assert (tensor.stride(), tensor.data_ptr()) == (stride, pointer)
    assert torch.equal(tensor, WEIGHT.t())


@given(
    document=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text(string.printable, max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=3,
    )
)  # fmt: skip
def test_document_comes_back_equal(document, new_folder):
    path = new_folder() / "file"
    write_tensors(path, {"x": WEIGHT}, document)
    assert read_tensors(path)[1] == document
    assert read_document(path) == document


def test_floats_that_json_cannot_say_come_back(tmp_path):
    write_tensors(tmp_path / "file", {}, {"x": [math.inf, -math.inf, math.nan, 0.1, -0.0]})
    read = read_document(tmp_path / "file")["x"]
    assert read[:2] == [math.inf, -math.inf]
    assert math.isnan(read[2])
    assert [value.hex() for value in read[3:]] == [(0.1).hex(), (-0.0).hex()]


def test_equal_content_gives_equal_bytes(tmp_path):
    first = {"a": WEIGHT, "b": torch.ones(3)}
    write_tensors(tmp_path / "1", first, {"x": 1, "y": {"p": 2, "q": 3}})
    write_tensors(tmp_path / "2", dict(reversed(first.items())), {"y": {"q": 3, "p": 2}, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_document_is_in_the_metadata_of_a_safetensors_file(tmp_path):
    write_tensors(tmp_path / "file", {"x": WEIGHT}, {"key": "värde"})
    with safe_open(tmp_path / "file", "pt") as file:
        assert json.loads(file.metadata()["medplus"])["medplus"] == {"key": "värde"}


# --- nothing else passes for it ---------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    # Equal tensors and an empty one: exchanged names or offsets would be equal content.
    tensors = {
        "a": torch.zeros(2),
        "b": torch.zeros(2),
        "c": torch.arange(3, dtype=torch.int16),
        "e": torch.empty(0, 2),
    }
    write_tensors(path, tensors, {"loss": 0.25, "text": "A"})
    return path


def assert_damaged(path, read):
    with pytest.raises(DamagedFileError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flip", [1, 0x20, 0xFF])
def test_a_flipped_byte_is_found_or_changes_nothing(small, flip):
    written = read_tensors(small)
    content = small.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    unnoticed = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= flip
        small.write_bytes(damaged)
        try:
            tensors, document = read_tensors(small)
        except DamagedFileError as error:
            assert str(small) in str(error)
            continue
        assert position < header  # such as another order of equal tensors
        assert document == written[1]
        assert_same(tensors, written[0])
        unnoticed += 1
    assert unnoticed < 8


@pytest.mark.parametrize("flip", [1, 0x20, 0xFF])
def test_a_damaged_document_is_never_returned(small, flip):
    content, written = small.read_bytes(), read_document(small)
    for position in range(8 + int.from_bytes(content[:8], "little")):
        damaged = bytearray(content)
        damaged[position] ^= flip
        small.write_bytes(damaged)
        with suppress(DamagedFileError):
            assert read_document(small) == written


def test_every_truncation_is_found(small):
    content = small.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for length in range(len(content)):
        small.write_bytes(content[:length])
        assert_damaged(small, read_tensors)
        if length < header_end:
            assert_damaged(small, read_document)


@pytest.mark.parametrize("extra", [b"\0", b" ", b"\0" * 100])
def test_bytes_too_many_are_found(small, extra):
    small.write_bytes(small.read_bytes() + extra)
    assert_damaged(small, read_tensors)


@pytest.mark.parametrize("length", [50_000_000, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("read", [read_tensors, read_document])
def test_absurd_header_length_is_refused(small, length, read):
    with small.open("r+b") as file:
        file.write(length.to_bytes(8, "little"))
    assert_damaged(small, read)


@pytest.mark.parametrize("read", [read_tensors, read_document])
def test_file_of_another_writer_is_refused(tmp_path, read):
    save_file({"x": WEIGHT}, tmp_path / "bare")
    save_file({"x": WEIGHT}, tmp_path / "described", {"medplus": "{}", "checksum": "0" * 64})
    torch.save({"x": WEIGHT}, tmp_path / "pickled")
    (tmp_path / "empty").touch()
    for path in tmp_path.iterdir():
        assert_damaged(path, read)


def described(text: str, entry: str = '{"dtype":"U8","shape":[2],"data_offsets":[0,2]}') -> str:
    return '{"__metadata__":{"medplus":' + json.dumps(text) + '},"x":' + entry + "}"


@pytest.mark.parametrize(
    "header",
    [
        described("{}"),
        described('{"medplus":{},"tensors":"0","seal":"0"}'),
        described("7"),
        described("{"),
        described("[" * 100_000),
        described("{}", '{"dtype":"U8","shape":[3],"data_offsets":[0,3]}'),
        described("{}", '{"dtype":"U8","shape":[0,1180591620717411303424],"data_offsets":[0,0]}'),
        '{"__metadata__":7}',
        "{}",
        "",
    ],
)
def test_forged_file_is_refused(tmp_path, header):
    content = header.encode()
    (tmp_path / "file").write_bytes(len(content).to_bytes(8, "little") + content + b"\1\2")
    assert_damaged(tmp_path / "file", read_tensors)
    assert_damaged(tmp_path / "file", read_document)


@pytest.mark.parametrize("read", [read_tensors, read_document])
def test_missing_file_and_folder_are_refused(tmp_path, read):
    assert_damaged(tmp_path / "none", read)
    assert_damaged(tmp_path / "none" / "none", read)
    assert_damaged(tmp_path, read)


@pytest.mark.parametrize("value", [object(), torch.ones(1), {1, 2}])
def test_document_that_json_cannot_hold_is_refused(small, value):
    content = small.read_bytes()
    with pytest.raises(TypeError):
        write_tensors(small, {}, {"x": value})
    assert small.read_bytes() == content
