"""Named tensors and a JSON document in one file that is whole and undamaged, or refused.

The layout is that of safetensors, so any reader of that format takes the tensors: the length of
the header (8 bytes, little-endian), the header (JSON), the tensors' bytes. The library's own writer
is not used: it names its temporary files itself (nothing would clean up after a kill), makes every
file private to its owner, and cannot seal the header.

The header begins with the seal: an XXH3-128 hash of the length and the rest of the header, then one
of the tensors' bytes. So every byte of the file is either hashed or compared.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from medplus import atomic
from medplus.errors import MedplusError

_OPENING = b'{"__metadata__":{"checksum":"'
_HASH_DIGITS = 32
_SEAL_END = len(_OPENING) + 2 * _HASH_DIGITS
_LARGEST_HEADER = 100_000_000  # the limit of the safetensors library
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class DamagedFileError(MedplusError):
    """A tensor file is missing, unreadable, damaged or foreign; the caller knows the remedy."""


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Write tensors and a document atomically; equal content gives equal bytes.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On any device, of any shape and strides; they may share memory. Those that are contiguous
        and on the CPU are written from where they are, without a copy.
    document : mapping
        Anything that `json` can write, NaN and infinity included; floats come back exactly.

    Raises
    ------
    TypeError
        If a tensor's dtype or a value of the document cannot be written.
    OSError
        If the file cannot be written; what was there before is untouched.
    """
    # Widest first, so that every tensor is aligned to its own element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {}
    parts, end = [], 0
    for name in names:
        part = _raw_bytes(tensors[name])
        begin, end = end, end + part.nbytes
        entries[name] = {
            "dtype": _dtype_code(name, tensors[name].dtype),
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
        if part.nbytes:
            parts.append(part.data)
    header = _seal(_header_after_seal(document, entries), parts)
    atomic.write_bytes(path, len(header).to_bytes(8, "little"), header, *parts)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read and verify a whole file.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, contiguous, by name in sorted order. They do not overlap, but one block of
        memory holds them all: it is freed with the last of them.
    document : dict

    Raises
    ------
    DamagedFileError
        If a single byte is missing or differs, or the file was not written by `write_tensors`.
    """
    with _reading(path) as file:
        header, seal = _read_header(file)
        block = np.empty(os.fstat(file.fileno()).st_size - file.tell(), np.uint8)
        if file.readinto(block.data) != len(block) or seal != xxhash.xxh3_128_hexdigest(block.data):
            raise ValueError("the tensors are not those that were written")
        document = json.loads(header.pop("__metadata__")["medplus"])
        return {name: _tensor(header[name], block) for name in sorted(header)}, document


def read_document(path: Path) -> dict[str, Any]:
    """Read and verify only the header; the tensors may be damaged all the same.

    Raises
    ------
    DamagedFileError
        If the header is damaged or the file was not written by `write_tensors`.
    """
    with _reading(path) as file:
        header, _ = _read_header(file)
        document: dict[str, Any] = json.loads(header["__metadata__"]["medplus"])
        return document


def _raw_bytes(tensor: torch.Tensor) -> np.ndarray:
    plain = tensor.detach().to("cpu").contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy()


def _dtype_code(name: str, dtype: torch.dtype) -> str:
    if dtype not in _CODES:
        raise TypeError(f"the tensor '{name}' is {dtype}, which a tensor file cannot hold")
    return _CODES[dtype]


def _header_after_seal(document: Mapping[str, Any], entries: dict[str, Any]) -> bytes:
    text = _to_json({"medplus": _to_json(document, sort_keys=True)})[1:]
    rest = f'",{text}' + (f",{_to_json(entries)[1:-1]}" if entries else "") + "}"
    return rest.encode() + b" " * (-(_SEAL_END + len(rest)) % 8)  # which aligns the tensors


def _to_json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"))


def _seal(rest: bytes, parts: list[memoryview]) -> bytes:
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part)
    after = hasher.hexdigest().encode() + rest
    return _OPENING + _header_hash(_SEAL_END + len(rest), after) + after


def _header_hash(length: int, after: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(length.to_bytes(8, "little") + after).encode()


@contextmanager
def _reading(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file and turn all that can be wrong with it into a `DamagedFileError`."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise DamagedFileError(f"{path} does not exist") from None
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise DamagedFileError(
            f"{path} is damaged, cut short, or was not written by medplus"
        ) from None


def _read_header(file: io.BufferedReader) -> tuple[dict[str, Any], str]:
    """Return the verified header and the hash that the tensors' bytes should have."""
    length = int.from_bytes(file.read(8), "little")
    room = os.fstat(file.fileno()).st_size - 8
    if not _SEAL_END <= length <= min(room, _LARGEST_HEADER):
        raise ValueError("no header has this length")
    if file.read(len(_OPENING)) != _OPENING:
        raise ValueError("the file has another writer")
    header_hash = file.read(_HASH_DIGITS)
    after = file.read(length - len(_OPENING) - _HASH_DIGITS)
    if header_hash != _header_hash(length, after):
        raise ValueError("the header is not the one that was written")
    return json.loads(_OPENING + header_hash + after), after[:_HASH_DIGITS].decode()


def _tensor(entry: dict[str, Any], block: np.ndarray) -> torch.Tensor:
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if not (0 <= begin <= end <= len(block) and count * dtype.itemsize == end - begin):
        raise ValueError("a tensor lies outside the file")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(block.data, dtype=dtype, count=count, offset=begin).reshape(shape)
