"""Reading npz files in MedMNIST's layout, member by member, without trusting them.

`np.load` would inflate a whole array into memory, ignores `mmap_mode` for npz files and reports a
damaged file in many different ways. Here every member's header is checked first, and its data are
then copied in blocks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from medplus.datasets.cache import ARRAYS
from medplus.errors import DatasetError, first_line
from medplus.vocabulary import SPLITS

PHANTOM_KEY = "phantom"
_BLOCK = 1 << 22
_LONGEST_NOTE = 1 << 20


@dataclass(frozen=True)
class Header:
    """Shape and dtype of one array, as its npy header declares them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        size = self.dtype.itemsize
        for extent in self.shape:
            size *= extent
        return size


@contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz file, turning every kind of damage into one `DatasetError`."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except PermissionError:
        raise DatasetError(f"{path} cannot be read: permission denied") from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; name the npz file in it") from None
    except Exception:  # zipfile and zlib report damage in as many ways as a zip has fields
        raise DatasetError(
            f"{path} is not a readable npz file: it is truncated, corrupt or no zip archive; "
            "fetch it again"
        ) from None
    with archive:
        yield archive


def read_headers(archive: zipfile.ZipFile, path: Path) -> dict[str, Header]:
    """Return the headers of the six arrays, after checking that they belong together.

    Raises
    ------
    DatasetError
        If an array is missing, holds objects, or has a shape or dtype that MedMNIST's layout does
        not allow, or if counts disagree.
    """
    present = archive.namelist()
    missing = [name for name in ARRAYS if f"{name}.npy" not in present]
    if missing:
        found = ", ".join(sorted(name.removesuffix(".npy") for name in present)[:8]) or "nothing"
        raise DatasetError(
            f"{path} lacks {', '.join(missing)} (it holds {found}); an npz in MedMNIST's layout "
            "has images and labels for train, val and test"
        )
    twice = [name for name in ARRAYS if present.count(f"{name}.npy") > 1]
    if twice:  # readers differ in which one they take
        raise DatasetError(f"{path} holds {', '.join(twice)} twice; fetch or build the file again")
    headers = {name: _read_header(archive, path, name) for name in ARRAYS}
    for split in SPLITS:
        _check_pair(path, headers[f"{split}_images"], headers[f"{split}_labels"])
    images = [headers[f"{split}_images"] for split in SPLITS]
    labels = [headers[f"{split}_labels"] for split in SPLITS]
    if len({h.shape[1:] for h in images}) > 1:
        shapes = ", ".join(f"{h.name} {h.shape}" for h in images)
        raise DatasetError(f"{path}: the splits' images differ in shape ({shapes})")
    if len({h.shape[1:] or (1,) for h in labels}) > 1:
        shapes = ", ".join(f"{h.name} {h.shape}" for h in labels)
        raise DatasetError(f"{path}: the splits' labels differ in width ({shapes})")
    return headers


def _read_header(archive: zipfile.ZipFile, path: Path, name: str) -> Header:
    try:
        with archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(cast(BinaryIO, stream))
            one = np.lib.format.read_array_header_1_0
            read = one if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(cast(BinaryIO, stream))
            declared = archive.getinfo(f"{name}.npy").file_size - stream.tell()
    except Exception as error:  # numpy parses the header's text as Python
        raise _damaged(path, name, error) from None
    header = Header(name, shape, dtype, fortran_order)
    if dtype.hasobject:
        raise DatasetError(
            f"{path}: {name} is an object array (a pickle), which medplus never loads; "
            "save it as plain numbers"
        )
    if header.nbytes != declared or any(extent < 0 for extent in shape):
        raise DatasetError(
            f"{path}: {name} declares {shape} {dtype} but holds {declared} bytes of data; "
            "fetch the file again"
        )
    return header


def _check_pair(path: Path, images: Header, labels: Header) -> None:
    if images.dtype != np.uint8:
        raise DatasetError(f"{path}: {images.name} is {images.dtype}, but must be uint8 (0 to 255)")
    grey_or_rgb = len(images.shape) == 3 or (len(images.shape) == 4 and images.shape[3] in (1, 3))
    if not grey_or_rgb:
        raise DatasetError(
            f"{path}: {images.name} has shape {images.shape}, "
            "but must be (n, size, size) or (n, size, size, 3)"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] == 0:
        raise DatasetError(
            f"{path}: {images.name} are {images.shape[1]} × {images.shape[2]} px, "
            "but must be square"
        )
    if labels.dtype.kind not in "iub":
        raise DatasetError(f"{path}: {labels.name} is {labels.dtype}, but must be integer")
    if len(labels.shape) not in (1, 2) or labels.shape[1:] == (0,):
        raise DatasetError(
            f"{path}: {labels.name} has shape {labels.shape}, but must be (n,), (n, 1) or (n, L)"
        )
    if images.shape[0] != labels.shape[0]:
        raise DatasetError(
            f"{path}: {labels.name} has {labels.shape[0]} rows, {images.name} {images.shape[0]}; "
            "fetch or build the file again"
        )
    if images.shape[0] == 0:
        raise DatasetError(f"{path}: {images.name} is empty; every split needs images")


def read_blocks(archive: zipfile.ZipFile, path: Path, header: Header) -> Iterator[bytes]:
    """Yield an array's `.npy` file in blocks; the zip's own CRC is checked at the end.

    Raises
    ------
    DatasetError
        If the compressed data are damaged.
    """
    try:
        with archive.open(f"{header.name}.npy") as stream:
            while block := stream.read(_BLOCK):
                yield block
    except Exception as error:
        raise _damaged(path, header.name, error) from None


def _damaged(path: Path, name: str, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: {name} is damaged ({first_line(error)}); fetch the file again")


def read_phantom_note(archive: zipfile.ZipFile, path: Path) -> str | None:
    """Return the JSON that `medplus phantom` leaves in the files it writes, if it is there."""
    if f"{PHANTOM_KEY}.npy" not in archive.namelist():
        return None
    header = _read_header(archive, path, PHANTOM_KEY)
    if header.dtype.kind != "U" or header.shape != () or header.nbytes > _LONGEST_NOTE:
        return None
    content = b"".join(read_blocks(archive, path, header))
    return str(np.load(io.BytesIO(content), allow_pickle=False)[()])
