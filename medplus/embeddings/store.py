"""Reading embedding stores: open, check, load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from medplus.embeddings.container import (
    Place,
    has_metadata,
    is_full,
    is_store,
    open_container,
    to_place,
)
from medplus.embeddings.info import StoreInfo, read_info
from medplus.embeddings.layout import ArrayLayout, Visit
from medplus.errors import StoreError
from medplus.vocabulary import Split

if TYPE_CHECKING:
    import pyarrow

    from medplus.embeddings.arrays import ArrayReader

__all__ = [
    "EmbeddingStore",
    "Place",
    "StoreInfo",
    "find_damage",
    "is_store",
    "list_stores",
    "open_store",
    "read_info",
    "to_place",
]


class Damage(BaseModel):
    """One damaged part of a store.

    Attributes
    ----------
    array : str
        Path of the array, or of the group, within the store.
    chunk : int or None
        Number of the chunk, or None where the Zarr metadata are at fault.
    """

    array: str
    chunk: int | None

    def __str__(self) -> str:
        return f"{self.array} {'metadata' if self.chunk is None else f'chunk {self.chunk}'}"


class EmbeddingStore:
    """A complete store of embeddings, ready to read.

    Attributes
    ----------
    path : Path or str
        A folder or archive, or a URL.
    info : StoreInfo
    """

    def __init__(self, path: Place, info: StoreInfo) -> None:
        self.path = path
        self.info = info
        self._container = open_container(path)
        self._readers: dict[str, ArrayReader] = {}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {n}" for split, n in self.info.n_samples.items())
        return f"EmbeddingStore({str(self.path)!r}: {sizes}; dim {self.info.dim})"

    @property
    def key(self) -> str:
        """The full digest of the store's key, in hex."""
        return self.info.key

    def to_dict(self) -> dict[str, Any]:
        """Return what documents tell of the store that a command has made."""
        own = ("key", "dataset", "size", "backbone", "dim")
        told = {name: getattr(self.info, name) for name in own}
        return {"path": str(self.path), **told, "splits": dict(self.info.n_samples)}

    @property
    def nbytes(self) -> int:
        """Size of all chunks in bytes."""
        return sum(layout.nbytes for layout in self.info.all_layouts())

    def embeddings(self, split: Split) -> np.ndarray:
        """Return a split's embeddings, float32 or float16, shape (n_samples, dim).

        Raises
        ------
        StoreError
            If a chunk is missing or damaged.
        """
        return self._read(self.info.layout(split))

    def visit(self, split: Split, visit: Visit, rows: slice = slice(None)) -> None:
        """Show a split's embeddings chunk by chunk, so that they need not fit into memory.

        Parameters
        ----------
        visit : callable
            Called with the place of a chunk's rows in the split and their values, shape (n, dim);
            from several threads at once and in any order. The values are overwritten afterwards.
        rows : slice
            Show only the chunks with one of these rows; by default all.

        Raises
        ------
        StoreError
            If a chunk is missing or damaged.
        """
        layout = self.info.layout(split)
        start, stop, _ = rows.indices(layout.shape[0])
        numbers = range(start // layout.chunk_rows, -(-stop // layout.chunk_rows))
        self._refuse(layout, self._reader(layout).visit(numbers, visit))

    def labels(self, split: Split) -> np.ndarray:
        """Return a split's labels, integer, shape (n_samples, n_labels)."""
        return np.asarray(self.column(split, "labels"))

    def index(self, split: Split) -> np.ndarray:
        """Return each row's position in the source split, int64, shape (n_samples,)."""
        return np.asarray(self.column(split, "index"))

    def names(self, split: Split) -> list[str]:
        """Return where each row came from, as a path within the dataset; unknown is empty."""
        return list(self.column(split, "names"))

    def groups(self, split: Split) -> list[str]:
        """Return what each row belongs to, such as a patient; empty where that is not known."""
        return list(self.column(split, "groups")) if self.info.group_nbytes else []

    def column(self, split: Split, name: str) -> Any:
        """Return one of `info.arrays` beside the embeddings; text as a list of str."""
        layout = self.info.layout(split, name)
        values = self._read(layout)
        if name not in ("names", "groups"):
            return values
        column = np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0]
        return [text.decode(errors="surrogateescape") for text in column.tolist()]

    def to_arrow(self, split: Split | None = None) -> pyarrow.Table:
        """Return a split, or all of them, as a table: one row per sample.

        Columns: ``split``, ``index``, ``name``, ``group`` where there are groups, ``label`` (or
        ``label_0`` …) and ``embedding``, a fixed-size list of D float32. pandas, Polars and DuckDB
        take it as it is.

        Raises
        ------
        UsageError
            If pyarrow is missing.
        StoreError
            If the store is damaged.
        """
        from medplus.embeddings.export import to_table

        return to_table(self, self.info.splits if split is None else (split,))

    def verify(self) -> list[Damage]:
        """Read every byte, check it against its checksum, and return what is damaged."""
        return find_damage(self.path, self.info)

    def _read(self, layout: ArrayLayout) -> np.ndarray:
        try:
            values = np.empty(layout.shape, layout.dtype)
        except (MemoryError, ValueError):
            raise StoreError(
                f"{self.path}: {layout.path} does not fit into memory "
                f"({layout.nbytes / 1e9:.0f} GB); read it in parts, with visit"
            ) from None
        self._refuse(layout, self._reader(layout).visit(range(layout.n_chunks), into=values))
        return values

    def _reader(self, layout: ArrayLayout) -> ArrayReader:
        from medplus.embeddings.arrays import ArrayReader

        if layout.path not in self._readers:
            try:
                reader = ArrayReader(self._container, layout, self.info.metadata)
            except ValueError:
                raise StoreError(
                    f"{self.path}: the Zarr metadata of {layout.path} damaged or missing; "
                    f"{remedy(self.path, self.info)}"
                ) from None
            self._readers[layout.path] = reader
        return self._readers[layout.path]

    def _refuse(self, layout: ArrayLayout, damaged: list[int]) -> None:
        if damaged:
            raise StoreError(
                f"{self.path}: {len(damaged)} of {layout.n_chunks} chunks of {layout.path} damaged "
                f"or missing (first: {damaged[0]}); {remedy(self.path, self.info)}"
            )


def find_damage(path: Place, info: StoreInfo, *, deep: bool = True) -> list[Damage]:
    """Check the metadata of every group and array, and every chunk of a store.

    Parameters
    ----------
    deep : bool
        Read every byte; else look whether every chunk is there in full.
    """
    container = open_container(path)
    damage = [
        Damage(array=split, chunk=None)
        for split in info.splits
        if not has_metadata(container, info.metadata, split)
    ]
    for layout in info.all_layouts():
        broken: list[int | None] = [None]
        numbers = range(layout.n_chunks)
        if not deep and has_metadata(container, info.metadata, layout.path):
            broken = [n for n in numbers if not is_full(container, layout, n)]
        elif deep:
            from medplus.embeddings.arrays import ArrayReader

            with suppress(ValueError):  # of its metadata
                broken = [*ArrayReader(container, layout, info.metadata).visit(numbers)]
        damage += [Damage(array=layout.path, chunk=chunk) for chunk in broken]
    return damage


def count_chunks(path: Place, info: StoreInfo) -> tuple[int, int]:
    """Return how many chunks of embeddings are there in full, and how many there must be."""
    container = open_container(path)
    layouts = [info.layout(split) for split in info.splits]
    there = [is_full(container, it, chunk) for it in layouts for chunk in range(it.n_chunks)]
    return sum(there), len(there)


def root_of(path: Path) -> Path:
    """Return the root of the stores that a store lies under."""
    if len(path.parents) < 3 or ".." in path.parts:  # named from within the root
        path = path.resolve()
    return path.parents[2]


def remedy(path: Place, info: StoreInfo, what: str = "repairs") -> str:
    """Return, in words, the command that completes or repairs a store."""
    path = to_place(path)
    if isinstance(path, Path) and path.is_dir():
        return f"this {what} it: {info.resume_command(root_of(path))}"
    return f"copy or export it again; the original is made by: {info.resume_command()}"


def open_store(path: Place) -> EmbeddingStore:
    """Open a complete store.

    Parameters
    ----------
    path : Path or str
        A folder, an archive that ends in ``.zarr.zip``, or the URL of an object store
        (``s3://bucket/path``; needs obstore, and finds endpoint and credentials in the
        environment, AWS_ENDPOINT_URL and so on).

    Raises
    ------
    StoreError
        If there is no store, or it is incomplete, damaged or of another schema.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> medplus.open_store(store.path).key == store.key
    True
    """
    path = to_place(path)
    info = read_info(path)
    if not info.complete:
        done, total = count_chunks(path, info)
        raise StoreError(
            f"{path} is incomplete ({done} of {total} chunks); {remedy(path, info, 'completes')}"
        )
    return EmbeddingStore(path, info)


def list_stores(root: Path) -> Iterator[Path]:
    """Yield the paths of all stores under a root, sorted, complete or not."""
    yield from sorted(p for p in root.glob("*/*/*.zarr") if not p.name.startswith("."))
