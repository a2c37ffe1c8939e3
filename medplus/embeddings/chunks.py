"""Raw chunk files: writing whole chunks, checking them, reading them straight into arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

from medplus import atomic
from medplus.embeddings.schema import ArrayLayout

_READERS = 4


def checksum(data: memoryview | bytes) -> str:
    """Return the XXH3 hash of a chunk's bytes as 16 hex digits: fast enough for every read."""
    return xxhash.xxh3_64_hexdigest(data)


def write_chunk(root: Path, layout: ArrayLayout, chunk: int, rows: np.ndarray) -> str:
    """Write one whole chunk, synced to the disk, and return its checksum.

    Parameters
    ----------
    rows : ndarray, shape (n, ...) with n ≤ ``layout.chunk_rows``
        The chunk's rows; a shorter last chunk is filled up with NaN (0 for integers).
    """
    padded = np.full(layout.chunk_shape, np.nan if layout.dtype.kind == "f" else 0, layout.dtype)
    padded[: len(rows)] = rows
    file = layout.chunk_file(root, chunk)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = padded.reshape(-1).view(np.uint8).data
    atomic.write_bytes(file, data)
    return checksum(data)


def read_rows(
    root: Path, layout: ArrayLayout, checksums: Mapping[str, str]
) -> tuple[np.ndarray, list[int]]:
    """Read a whole array and check every chunk on the way.

    Returns
    -------
    values : ndarray, shape ``layout.shape``
    damaged : list of int
        The chunks that are missing or do not have their recorded checksum; their rows are
        undefined.
    """
    # Edge chunks are stored at full size, so whole chunks are read and the last cut to length.
    values = np.empty((layout.n_chunks * layout.chunk_rows, *layout.shape[1:]), layout.dtype)
    raw = values.reshape(-1).view(np.uint8).data

    def read(chunk: int) -> bool:
        place = raw[chunk * layout.chunk_nbytes : (chunk + 1) * layout.chunk_nbytes]
        return _fill(place, layout.chunk_file(root, chunk), checksums.get(str(chunk)))

    return values[: layout.shape[0]], _failures(range(layout.n_chunks), read)


def visit_rows(
    root: Path,
    layout: ArrayLayout,
    checksums: Mapping[str, str],
    numbers: Iterable[int],
    visit: Callable[[slice, np.ndarray], None],
) -> list[int]:
    """Read some chunks of an array, check each, and show its rows to `visit`.

    Memory holds a few chunks at a time, however long the array.

    Parameters
    ----------
    visit : callable
        Called with the rows' place in the array and their values, from several threads at once
        and in any order; the values are overwritten after the call.

    Returns
    -------
    list of int
        The chunks that are missing or do not have their recorded checksum; they are not shown.
    """
    own = threading.local()

    def read(chunk: int) -> bool:
        if not hasattr(own, "values"):
            own.values = np.empty(layout.chunk_shape, layout.dtype)
        place = own.values.reshape(-1).view(np.uint8).data
        if not _fill(place, layout.chunk_file(root, chunk), checksums.get(str(chunk))):
            return False
        rows = layout.rows(chunk)
        visit(rows, own.values[: rows.stop - rows.start])
        return True

    return _failures(numbers, read)


def _fill(place: memoryview, file: Path, recorded: str | None) -> bool:
    """Read a whole chunk file to its place, and tell whether it is what was recorded."""
    try:
        with file.open("rb", buffering=0) as stream:
            complete = stream.readinto(place) == len(place) and not stream.read(1)
    except OSError:
        return False
    return complete and recorded == checksum(place)


def find_damaged(root: Path, layout: ArrayLayout, checksums: Mapping[str, str]) -> list[int]:
    """Return the chunks that are missing or do not have their recorded checksum."""

    def check(chunk: int) -> bool:
        try:
            data = layout.chunk_file(root, chunk).read_bytes()
        except OSError:
            return False
        return len(data) == layout.chunk_nbytes and checksums.get(str(chunk)) == checksum(data)

    return _failures(range(layout.n_chunks), check)


def _failures(chunks: Iterable[int], succeeds: Callable[[int], bool]) -> list[int]:
    chunks = list(chunks)
    if len(chunks) == 1:
        return [] if succeeds(chunks[0]) else chunks
    with ThreadPoolExecutor(_READERS) as pool:  # reading and hashing both release the GIL
        verdicts = list(pool.map(succeeds, chunks))
    return [chunk for chunk, ok in zip(chunks, verdicts, strict=True) if not ok]
