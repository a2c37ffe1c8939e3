"""Arrays of a store through zarr: made, written and read. Imported where that happens only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from medplus.embeddings.container import Container, has_metadata, is_full
from medplus.embeddings.layout import ArrayLayout
from medplus.errors import StoreError
from medplus.vocabulary import SPLITS

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
    for split in SPLITS:
        root.create_group(split)
    for layout in layouts:
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


class ArrayWriter:
    """One array of a store in a folder, to be written chunk by chunk."""

    def __init__(self, folder: Path, layout: ArrayLayout) -> None:
        array = zarr.open_array(LocalStore(folder), path=layout.path, mode="r+", zarr_format=3)
        self._array = array.with_config(_KEEP_ALL)
        self._layout = layout

    def write(self, chunk: int, rows: np.ndarray) -> None:
        """Write a whole chunk, which replaces its file at once."""
        self._array[self._layout.rows(chunk)] = rows


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
            array = zarr.open_array(container.to_zarr(), path=layout.path, mode="r", zarr_format=3)
        except Exception as error:
            self._check(error)
            raise ValueError(f"{layout.path}: {error}") from None
        found = (array.shape, array.chunks, array.dtype)
        if found != (layout.shape, layout.chunk_shape, layout.dtype):
            raise ValueError(f"{layout.path}: {found}")
        self._array = array

    def visit(
        self, chunks: Iterable[int], visit: Callable[[slice, np.ndarray], None] | None = None
    ) -> list[int]:
        """Read some chunks and show their rows to `visit`, in several threads and any order.

        Memory holds a few chunks at a time, however long the array.

        Returns
        -------
        list of int
            The chunks that are missing or damaged; they are not shown.
        """
        numbers = list(chunks)
        n_threads = min(self._readers, len(numbers))

        def read(first: int) -> list[int]:
            damaged = []
            with asyncio.Runner() as loop:
                for chunk in numbers[first::n_threads]:
                    rows = self._layout.rows(chunk)
                    values = loop.run(self._read(chunk, rows))
                    if values is None:
                        damaged.append(chunk)
                    elif visit is not None:
                        visit(rows, values)
            return damaged

        with ThreadPoolExecutor(max(n_threads, 1)) as pool:
            return sorted(chain.from_iterable(pool.map(read, range(n_threads))))

    async def _read(self, chunk: int, rows: slice) -> np.ndarray | None:
        try:
            if is_full(self._container, self._layout, chunk):
                return np.asarray(await self._array.async_array.getitem(rows))
        except Exception as error:
            self._check(error)
        return None

    def _check(self, error: Exception) -> None:
        """Let pass what damage makes decoders, files and archives raise, but no lost network."""
        if isinstance(error, StoreError | MemoryError):
            raise error
        if type(error).__module__.startswith("obstore"):
            raise StoreError(f"an embedding store cannot be read: {error}") from None
