"""The arrays of a store: their shapes, and the names and sizes of the files that hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Visit = Callable[[slice, np.ndarray], None]
"""Takes the place of rows in a split, and their values."""

CHUNK_ROWS = 1024
ATTRIBUTE = "medplus"
METADATA = "zarr.json"
_CRC_NBYTES = 4


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a store: rows in chunks of whole rows, each with its CRC-32C at its end.

    Attributes
    ----------
    path : str
        Path within the store, for example ``train/embeddings``.
    shape : tuple of int
        (n_samples,) or (n_samples, columns).
    chunk_rows : int
        Rows per chunk; the last chunk is filled up to full size.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of one chunk; edge chunks are stored at full size."""
        return (self.chunk_rows, *self.shape[1:])

    @property
    def chunk_nbytes(self) -> int:
        """Size of one chunk's file in bytes, checksum included."""
        return int(np.prod(self.chunk_shape)) * self.dtype.itemsize + _CRC_NBYTES

    @property
    def nbytes(self) -> int:
        """Size of all chunks' files in bytes."""
        return self.n_chunks * self.chunk_nbytes

    def chunk_key(self, chunk: int) -> str:
        """Return the file, within the store, that holds a chunk."""
        return f"{self.path}/c/{chunk}" + "/0" * (len(self.shape) - 1)

    def rows(self, chunk: int) -> slice:
        """Return the rows that a chunk holds."""
        start = chunk * self.chunk_rows
        return slice(start, min(start + self.chunk_rows, self.shape[0]))
