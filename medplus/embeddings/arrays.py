"""Arrays of a store through zarr: made, written and read. Imported where that happens only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, Store
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore, ObjectStore, ZipStore

from medplus.embeddings.container import ARCHIVE, Container, has_metadata, is_full
from medplus.embeddings.layout import ArrayLayout, Visit
from medplus.errors import StoreError

_READERS = min(4, os.cpu_count() or 1)
_FAR_READERS = 8
"""Threads that read, each with an event loop of its own: zarr's one would be the bottleneck."""
# By default zarr leaves chunks of nothing but the fill value out, and they would seem missing.
_KEEP_ALL: Any = {"write_empty_chunks": True}


def create_arrays(
    folder: Path, layouts: Iterable[ArrayLayout], values: Mapping[str, np.ndarray]
) -> None:
    """Make a store's groups and arrays in an empty folder, and fill those whose values are given.

    Parameters
    ----------
    values : mapping of str to ndarray
        By the path of the array.
    """
    root = zarr.create_group(LocalStore(folder))
    wanted = list(layouts)
    for split in dict.fromkeys(layout.path.partition("/")[0] for layout in wanted):
        root.create_group(split)
    for layout in wanted:
        array = root.create_array(
            layout.path,
            shape=layout.shape,
            chunks=layout.chunk_shape,
            dtype=layout.dtype,
            compressors=[Crc32cCodec()],
            # A chunk that is not there reads as NaN, never as a plausible zero.
            fill_value=np.nan if layout.dtype.kind == "f" else 0,
            config=_KEEP_ALL,
        )
        if layout.path in values:
            array[...] = values[layout.path]


def open_array(folder: Path, layout: ArrayLayout) -> Any:
    """Open an array of a store in a folder: rows of a whole chunk replace its file at once."""
    array = zarr.open_array(LocalStore(folder), path=layout.path, mode="r+", zarr_format=3)
    return array.with_config(_KEEP_ALL)


class ArrayReader:
    """One array of a store, wherever it lies.

    Raises
    ------
    ValueError
        If its metadata have another SHA-256 than in `digests`, or are not as it is laid out.
    """

    def __init__(
        self, container: Container, layout: ArrayLayout, digests: Mapping[str, str]
    ) -> None:
        self._container, self._layout = container, layout
        self._readers = _FAR_READERS if isinstance(container.place, str) else _READERS
        if not has_metadata(container, digests, layout.path):
            raise ValueError(f"{layout.path}: the metadata are not those that were written")
        try:
            files = zarr_store(container)
            array = zarr.open_array(files, path=layout.path, mode="r", zarr_format=3)
        except Exception as error:
            self._check(error)
            raise ValueError(f"{layout.path}: {error}") from None
        found = (array.shape, array.chunks, array.dtype)
        if found != (layout.shape, layout.chunk_shape, layout.dtype):
            raise ValueError(f"{layout.path}: {found}")
        self._array = array

    def visit(
        self,
        chunks: Iterable[int],
        visit: Visit | None = None,
        into: np.ndarray | None = None,
    ) -> list[int]:
        """Read some chunks and show their rows to `visit`, in several threads and any order.

        Memory holds a few chunks at a time, however long the array: rows are overwritten after
        the call.

        Parameters
        ----------
        into : ndarray, optional
            Memory for the whole array, to read to instead.

        Returns
        -------
        list of int
            The chunks that are missing or damaged; they are not shown.
        """
        numbers = list(chunks)
        n_threads = max(1, min(self._readers, len(numbers)))
        parts = [numbers[first::n_threads] for first in range(n_threads)]
        with ThreadPoolExecutor(n_threads) as pool:
            damaged = pool.map(lambda part: self._visit_some(part, visit, into), parts)
            return sorted(chain.from_iterable(damaged))

    def _visit_some(
        self, chunks: list[int], visit: Visit | None, into: np.ndarray | None
    ) -> list[int]:
        damaged = []
        own: np.ndarray | None = None
        with asyncio.Runner() as loop:
            for chunk in chunks:
                rows = self._layout.rows(chunk)
                if not is_full(self._container, self._layout, chunk):
                    damaged.append(chunk)
                    continue
                if into is not None:
                    place = into[rows]
                else:  # not before a chunk of this size is there
                    if own is None:
                        own = np.empty(self._layout.chunk_shape, self._layout.dtype)
                    place = own[: rows.stop - rows.start]
                if not loop.run(self._fill(place, rows)):
                    damaged.append(chunk)
                elif visit is not None:
                    visit(rows, place)
        return damaged

    async def _fill(self, place: np.ndarray, rows: slice) -> bool:
        out = NDBuffer.from_numpy_array(place)
        try:
            await self._array.async_array.get_orthogonal_selection(rows, out=out)
        except Exception as error:
            self._check(error)
            return False
        return True

    def _check(self, error: Exception) -> None:
        """Let pass what damage makes decoders, files and archives raise, but no lost network."""
        if isinstance(error, StoreError | MemoryError):
            raise error
        if type(error).__module__.startswith("obstore"):
            raise StoreError(f"an embedding store cannot be read: {error}") from None


def zarr_store(container: Any) -> Store:
    """Return what zarr reads the files of a `Container` through."""
    if isinstance(container.place, str):
        return ObjectStore(container.store, read_only=True)
    if str(container.place).endswith(ARCHIVE):
        return ZipStore(container.place, mode="r", read_only=True)
    return FolderStore(container.place, read_only=True)


class FolderStore(LocalStore):
    """zarr's store in a folder, but each file is read by the thread that asks for it.

    `LocalStore` hands every read to another thread; where several threads read already, that
    costs as much as reading.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the content of a file, or None where there is none."""
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        try:
            content = (self.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)
