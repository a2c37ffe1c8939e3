"""The layout of a store, schema 1: which arrays, which chunks, which attributes.

A store is a Zarr v3 group that any Zarr reader opens. Its arrays are uncompressed and unsharded, so
a chunk file is the chunk's raw little-endian bytes: medplus writes and reads those directly, which
lets a chunk be synced before it is committed, and checked at the speed of a plain read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.vocabulary import Split, StoreDtype

CHUNK_ROWS = 1024
ATTRIBUTE = "medplus"


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a store: rows in chunks of whole rows.

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
        """Number of chunk files."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of one chunk; edge chunks are stored at full size."""
        return (self.chunk_rows, *self.shape[1:])

    @property
    def chunk_nbytes(self) -> int:
        """Size of one chunk file in bytes."""
        return int(np.prod(self.chunk_shape)) * self.dtype.itemsize

    def rows(self, chunk: int) -> slice:
        """Return the rows that a chunk holds."""
        start = chunk * self.chunk_rows
        return slice(start, min(start + self.chunk_rows, self.shape[0]))

    def chunk_file(self, root: Path, chunk: int) -> Path:
        """Return the file that holds a chunk."""
        folder = root / self.path / "c" / str(chunk)
        return folder if len(self.shape) == 1 else folder / "0"

    def metadata(self) -> dict[str, Any]:
        """Return the array's Zarr v3 metadata document."""
        is_float = self.dtype.kind == "f"
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.chunk_shape)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # A chunk that is not there reads as NaN, never as a plausible zero.
            "fill_value": "NaN" if is_float else 0,
            "codecs": [_bytes_codec(self.dtype)],
            "attributes": {},
            "storage_transformers": [],
        }


def _bytes_codec(dtype: np.dtype) -> dict[str, Any]:
    if dtype.itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a Zarr v3 group's metadata document."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def split_layout(
    split: Split, n_samples: int, dim: int, n_labels: int, dtype: StoreDtype, label_dtype: np.dtype
) -> tuple[ArrayLayout, ArrayLayout, ArrayLayout]:
    """Return the layouts of one split: embeddings, labels, index."""
    rows = max(1, min(n_samples, CHUNK_ROWS))
    little = np.dtype(dtype).newbyteorder("<")
    return (
        ArrayLayout(f"{split}/embeddings", (n_samples, dim), little, rows),
        ArrayLayout(f"{split}/labels", (n_samples, n_labels), label_dtype, n_samples),
        ArrayLayout(f"{split}/index", (n_samples,), np.dtype("<i8"), n_samples),
    )
