"""Reading embedding stores: open, check, load."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from medplus import atomic
from medplus.datasets import catalog
from medplus.embeddings.container import Container, Place, is_store, open_container, to_place
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.layout import ATTRIBUTE, METADATA, ArrayLayout
from medplus.errors import StoreError
from medplus.jsonfile import parse_json
from medplus.seal import seal, unseal
from medplus.spec import SCHEMA, ExtractSpec
from medplus.vocabulary import SPLITS, Split

if TYPE_CHECKING:
    from medplus.embeddings.arrays import ArrayReader

__all__ = ["EmbeddingStore", "Place", "is_store", "open_store", "read_info", "to_place"]

_GROUP = {"zarr_format": 3, "node_type": "group"}


class DamagedStoreError(StoreError):
    """A store's own description is damaged, so that nothing in it can be trusted."""


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
        return self._read(self.info.layouts(split)[0])

    def visit(
        self,
        split: Split,
        visit: Callable[[slice, np.ndarray], None],
        rows: slice = slice(None),
    ) -> None:
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
        layout = self.info.layouts(split)[0]
        start, stop, _ = rows.indices(layout.shape[0])
        numbers = range(start // layout.chunk_rows, -(-stop // layout.chunk_rows))
        self._refuse(layout, self._reader(layout).visit(numbers, visit))

    def labels(self, split: Split) -> np.ndarray:
        """Return a split's labels, integer, shape (n_samples, n_labels)."""
        return self._read(self.info.layouts(split)[1])

    def index(self, split: Split) -> np.ndarray:
        """Return each row's position in the source split, int64, shape (n_samples,)."""
        return self._read(self.info.layouts(split)[2])

    def names(self, split: Split) -> list[str]:
        """Return where each row came from, as a path within the dataset; unknown is empty."""
        encoded = self._read(self.info.layouts(split)[3])
        column = np.ascontiguousarray(encoded).view(f"S{encoded.shape[1]}")[:, 0]
        return [name.decode(errors="surrogateescape") for name in column.tolist()]

    def verify(self) -> list[Damage]:
        """Read every byte, check it against its checksum, and return what is damaged."""
        return find_damage(self.path, self.info)

    def _read(self, layout: ArrayLayout) -> np.ndarray:
        reader = self._reader(layout)
        values = reader.read()
        if values is None:
            self._refuse(layout, reader.visit(range(layout.n_chunks)) or [0])
        assert values is not None
        return values

    def _reader(self, layout: ArrayLayout) -> ArrayReader:
        if layout.path not in self._readers:
            reader = _open_array(self._container, self.info, layout)
            if reader is None:
                raise StoreError(
                    f"{self.path}: the Zarr metadata of {layout.path} damaged or missing; "
                    f"{remedy(self.path, self.info)}"
                )
            self._readers[layout.path] = reader
        return self._readers[layout.path]

    def _refuse(self, layout: ArrayLayout, damaged: list[int]) -> None:
        if damaged:
            raise StoreError(
                f"{self.path}: {len(damaged)} of {layout.n_chunks} chunks of {layout.path} damaged "
                f"or missing (first: {damaged[0]}); {remedy(self.path, self.info)}"
            )


def _has_metadata(container: Container, info: StoreInfo, path: str) -> bool:
    """Tell whether the Zarr metadata of a group or an array are those that were written."""
    try:
        found = container.read(f"{path}/{METADATA}")
    except OSError:
        return False
    return hashlib.sha256(found).hexdigest() == info.metadata.get(path)


def _open_array(container: Container, info: StoreInfo, layout: ArrayLayout) -> ArrayReader | None:
    from medplus.embeddings.arrays import ArrayReader

    if not _has_metadata(container, info, layout.path):
        return None
    try:
        return ArrayReader(container, layout)
    except ValueError:
        return None


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
        for split in SPLITS
        if not _has_metadata(container, info, split)
    ]
    for layout in info.all_layouts():
        broken: list[int] | list[None] = [None]
        if deep:
            reader = _open_array(container, info, layout)
            if reader is not None:
                broken = reader.visit(range(layout.n_chunks))
        elif _has_metadata(container, info, layout.path):
            broken = [n for n in range(layout.n_chunks) if not _is_full(container, layout, n)]
        damage += [Damage(array=layout.path, chunk=chunk) for chunk in broken]
    return damage


def _is_full(container: Container, layout: ArrayLayout, chunk: int) -> bool:
    """Tell whether a chunk's file is there in its full size."""
    try:
        return container.size(layout.chunk_key(chunk)) == layout.chunk_nbytes
    except OSError:
        return False


def count_chunks(path: Place, info: StoreInfo) -> tuple[int, int]:
    """Return how many chunks of embeddings are there in full, and how many there must be."""
    container = open_container(path)
    layouts = [info.layouts(split)[0] for split in SPLITS]
    there = [_is_full(container, it, chunk) for it in layouts for chunk in range(it.n_chunks)]
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
    return f"copy or export it again; the original is made by: {info.spec.command()}"


def open_store(path: Place) -> EmbeddingStore:
    """Open a complete store.

    Parameters
    ----------
    path : Path or str
        A folder, an archive that ends in ``.zarr.zip``, or the URL of an object store
        (``s3://bucket/path``; needs ``medplus[remote]``, and finds endpoint and credentials in the
        environment, AWS_ENDPOINT_URL and so on).

    Raises
    ------
    StoreError
        If there is no store, or it is incomplete, damaged or of another schema.
    """
    path = to_place(path)
    info = read_info(path)
    if not info.complete:
        done, total = count_chunks(path, info)
        raise StoreError(
            f"{path} is incomplete ({done} of {total} chunks); {remedy(path, info, 'completes')}"
        )
    return EmbeddingStore(path, info)


def read_info(path: Place) -> StoreInfo:
    """Read and check a store's attributes, complete or not.

    Raises
    ------
    StoreError
        If there is no store, its attributes are damaged, or it is of another schema.
    """
    path = to_place(path)
    try:
        document = parse_json(open_container(path).read(METADATA))
        attributes = document.pop("attributes")[ATTRIBUTE]
        schema = attributes["schema_version"]
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(path, Path) and path.suffix == ".zarr" and path.is_dir():
            raise _damaged(path, f"its {METADATA} is missing") from None
        raise StoreError(f"there is no embedding store at {path}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, f"{METADATA} is not a medplus store's") from None
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        advice = "use the version that wrote it" if newer else _anew(attributes)
        raise StoreError(
            f"{path} has schema {schema}, this medplus reads schema {SCHEMA}; {advice}"
        )
    try:
        attributes, intact = unseal(attributes, required=True)
        info = StoreInfo.model_validate(attributes)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _damaged(path, f"attribute '{place}' is invalid") from None
    if info.spec.key(info.dataset_digest, info.backbone_digest) != info.key:
        raise _damaged(path, "its key does not belong to it")
    if not intact or document != _GROUP:
        raise _damaged(path, "its attributes are not those that were written")
    return info


def _anew(attributes: dict[str, Any]) -> str:
    """Tell how to make a store of schema 1 anew, as far as its attributes say."""
    try:
        name, key = attributes["dataset"], attributes["key"]
        by_flag = name in catalog.FLAGS and attributes["data_source"] != "custom"
        of_run = attributes.get("run_id") is not None
        spec = ExtractSpec(
            name if by_flag else attributes["dataset_path"],
            attributes["size"],
            attributes["weights" if of_run else "backbone"],
            None if of_run else attributes["weights"],
            key["preprocess"]["fit"],
            key["feature"],
            key["precision"],
            attributes["dtype"],
        )
    except (KeyError, TypeError):
        command = "medplus extract --dataset … --size … --backbone …"
    else:
        command = spec.command()
    return f"make it anew with: {command}"


def _damaged(path: Place, what: str) -> DamagedStoreError:
    remedy = "copy or export it again"
    if isinstance(path, Path) and path.is_dir():
        remedy = (
            "run the medplus extract command that made it again, or delete it with: "
            f"medplus store rm {shlex.quote(str(path))}"
        )
    return DamagedStoreError(f"{path} is damaged: {what}; {remedy}")


def write_info(path: Path, info: StoreInfo) -> None:
    """Write a store's attributes, synced, in one step: what says that it is complete."""
    attributes = {ATTRIBUTE: seal(info.model_dump(mode="json"))}
    atomic.write_json(path / METADATA, {"attributes": attributes, **_GROUP})


def list_stores(root: Path) -> Iterator[Path]:
    """Yield the paths of all stores under a root, sorted, complete or not."""
    yield from sorted(p for p in root.glob("*/*/*.zarr") if not p.name.startswith("."))
