"""Reading npz files in MedMNIST's layout, member by member, without trusting them.

`np.load` would inflate a whole array into memory, ignores `mmap_mode` for npz files and reports a
damaged file in many different ways. Here every member's header is checked first, and its data are
then copied in blocks.
"""

from __future__ import annotations

import io
import math
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
        return math.prod(self.shape, start=self.dtype.itemsize)


@contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz file, turning every kind of damage into one `DatasetError`."""
    try:
        archive = zipfile.ZipFile(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
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
    headers = {name: read_header(archive, path, name) for name in ARRAYS}
    images, labels = ([headers[f"{s}_{kind}"] for s in SPLITS] for kind in ("images", "labels"))
    for fault in _faults(images, labels):
        raise DatasetError(f"{path}: {fault}")
    return headers


def read_header(archive: zipfile.ZipFile, path: Path, name: str) -> Header:
    """Return the header of one array.

    Raises
    ------
    DatasetError
        If it is missing or damaged, holds objects, or declares something else than there is.
    """
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


def _faults(images: list[Header], labels: list[Header]) -> Iterator[str]:
    """Yield what is wrong with the arrays of three splits; the first may explain the others."""
    for pixels, flags in zip(images, labels, strict=True):
        if pixels.dtype != np.uint8:
            yield f"{pixels.name} is {pixels.dtype}, but must be uint8 (0 to 255)"
        if len(pixels.shape) not in (3, 4) or pixels.shape[3:] not in ((), (1,), (3,)):
            must = "must be (n, size, size) or (n, size, size, 3)"
            yield f"{pixels.name} has shape {pixels.shape}, but {must}"
        rows, height, width = pixels.shape[:3]
        if height != width or height == 0:
            yield f"{pixels.name} are {height} × {width} px, but must be square"
        if flags.dtype.kind not in "iub":
            yield f"{flags.name} is {flags.dtype}, but must be integer"
        if len(flags.shape) not in (1, 2) or flags.shape[1:] == (0,):
            yield f"{flags.name} has shape {flags.shape}, but must be (n,), (n, 1) or (n, L)"
        if rows != flags.shape[0]:
            told = f"{flags.name} has {flags.shape[0]} rows, {pixels.name} {rows}"
            yield f"{told}; fetch or build the file again"
        if rows == 0:
            yield f"{pixels.name} is empty; every split needs images"
    if len({h.shape[1:] for h in images}) > 1:
        told = ", ".join(f"{h.name} {h.shape}" for h in images)
        yield f"the splits' images differ in shape ({told})"
    if len({h.shape[1:] or (1,) for h in labels}) > 1:
        told = ", ".join(f"{h.name} {h.shape}" for h in labels)
        yield f"the splits' labels differ in width ({told})"


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


def read_rows(
    archive: zipfile.ZipFile, path: Path, header: Header, start: int = 0
) -> Iterator[np.ndarray]:
    """Yield an array's rows from one on, without the others in memory.

    Raises
    ------
    DatasetError
        If the compressed data are damaged; what comes before is yielded.
    """
    shape = header.shape[1:]
    nbytes = math.prod(shape, start=header.dtype.itemsize)
    try:
        with archive.open(f"{header.name}.npy") as stream:
            total = archive.getinfo(f"{header.name}.npy").file_size
            stream.seek(total - header.nbytes + start * nbytes)
            for _ in range(start, header.shape[0]):
                content = stream.read(nbytes)
                if len(content) < nbytes:
                    raise EOFError("it ends too soon")
                yield np.frombuffer(content, header.dtype).reshape(shape)
    except Exception as error:
        raise _damaged(path, header.name, error) from None


def _damaged(path: Path, name: str, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: {name} is damaged ({first_line(error)}); fetch the file again")


def read_phantom_note(archive: zipfile.ZipFile, path: Path) -> str | None:
    """Return the JSON that `medplus phantom` leaves in the files it writes, if it is there."""
    if f"{PHANTOM_KEY}.npy" not in archive.namelist():
        return None
    header = read_header(archive, path, PHANTOM_KEY)
    if header.dtype.kind != "U" or header.shape != () or header.nbytes > _LONGEST_NOTE:
        return None
    content = b"".join(read_blocks(archive, path, header))
    return str(np.load(io.BytesIO(content), allow_pickle=False)[()])
