"""Files as only an attacker would write them."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xxhash

from medplus.seal import seal
from medplus.vocabulary import SPLITS
from tests.records import make_record


class Trap:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def arrays(n: int = 4, size: int = 8) -> dict[str, np.ndarray]:
    """Return six arrays in MedMNIST's layout."""
    rng = np.random.default_rng(0)
    found = {}
    for split in SPLITS:
        found[f"{split}_images"] = rng.integers(0, 256, (n, size, size), dtype=np.uint8)
        found[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    return found


def npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_of(dtype: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """Return an npy file that declares what it likes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def write_npz(
    path: Path,
    changed: Mapping[str, bytes] | None = None,
    more: Iterable[tuple[str, bytes]] = (),
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a small valid dataset, with some members changed and others added."""
    members = {f"{name}.npy": npy(array) for name, array in arrays().items()} | dict(changed or {})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in [*members.items(), *more]:
            archive.writestr(name, content)
    return path


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """Return a grey 8-bit PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(data)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels),
         chunk(b"IEND", b"")]
    )  # fmt: skip


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def tiff(width: int, height: int, compression: int, data: bytes) -> bytes:
    """Return a grey 8-bit TIFF of one strip whose header says what it likes."""
    tags = [
        (256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 200), (277, 1),
        (278, height), (279, len(data)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(200, b"\x00") + data


def vouch(folder: Path) -> None:
    """Write the record of a run whose predictions are there, with the checksum that they have."""
    content = (folder / "predictions.npz").read_bytes()
    files = {"predictions.npz": xxhash.xxh3_128_hexdigest(content)}
    document = seal({**make_record().to_dict(), "files": files})
    (folder / "record.json").write_text(json.dumps(document))
