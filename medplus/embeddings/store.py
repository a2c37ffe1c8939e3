"""Reading embedding stores: open, check, load."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from medplus import atomic
from medplus.embeddings import chunks
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.schema import ATTRIBUTE, ArrayLayout, group_metadata
from medplus.errors import StoreError
from medplus.jsonfile import parse_json
from medplus.seal import seal, unseal
from medplus.spec import SCHEMA
from medplus.vocabulary import SPLITS, Split


class DamagedStoreError(StoreError):
    """A store's own description is damaged, so that nothing in it can be trusted."""


class Damage(BaseModel):
    """One damaged part of a store.

    Attributes
    ----------
    array : str
        Path of the array within the store.
    chunk : int or None
        Number of the chunk, or None where the array's metadata are at fault.
    """

    array: str
    chunk: int | None


class EmbeddingStore:
    """A complete store of embeddings, ready to read.

    Attributes
    ----------
    path : Path
    info : StoreInfo
    """

    def __init__(self, path: Path, info: StoreInfo) -> None:
        self.path = path
        self.info = info

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {n}" for split, n in self.info.n_samples.items())
        return f"EmbeddingStore({str(self.path)!r}: {sizes}; dim {self.info.dim})"

    @property
    def key(self) -> str:
        """The full digest of the store's key, in hex."""
        return self.info.key

    @property
    def nbytes(self) -> int:
        """Size of all chunk files in bytes."""
        return sum(a.n_chunks * a.chunk_nbytes for a in self.info.all_layouts())

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
        recorded = self.info.checksums.get(layout.path, {})
        self._refuse(layout, chunks.visit_rows(self.path, layout, recorded, numbers, visit))

    def labels(self, split: Split) -> np.ndarray:
        """Return a split's labels, integer, shape (n_samples, n_labels)."""
        return self._read(self.info.layouts(split)[1])

    def index(self, split: Split) -> np.ndarray:
        """Return each row's position in the source split, int64, shape (n_samples,)."""
        return self._read(self.info.layouts(split)[2])

    def verify(self) -> list[Damage]:
        """Check every byte against the recorded checksums and return what is damaged."""
        return find_damage(self.path, self.info)

    def _read(self, layout: ArrayLayout) -> np.ndarray:
        recorded = self.info.checksums.get(layout.path, {})
        values, damaged = chunks.read_rows(self.path, layout, recorded)
        self._refuse(layout, damaged)
        return values

    def _refuse(self, layout: ArrayLayout, damaged: list[int]) -> None:
        if damaged:
            raise StoreError(
                f"{self.path}: {len(damaged)} of {layout.n_chunks} chunks of {layout.path} damaged "
                f"or missing (first: {damaged[0]}); this repairs it: "
                f"{self.info.resume_command(root_of(self.path))}"
            )


def root_of(path: Path) -> Path:
    """Return the root of the stores that a store lies under."""
    if len(path.parents) < 3 or ".." in path.parts:  # named from within the root
        path = path.resolve()
    return path.parents[2]


def find_damage(path: Path, info: StoreInfo) -> list[Damage]:
    """Check every array's metadata and every chunk of a store."""
    damage: list[Damage] = []
    for split in SPLITS:
        if _read_json(path / split / "zarr.json") != group_metadata({}):
            damage.append(Damage(array=split, chunk=None))
    for layout in info.all_layouts():
        if _read_json(path / layout.path / "zarr.json") != layout.metadata():
            damage.append(Damage(array=layout.path, chunk=None))
        recorded = info.checksums.get(layout.path, {})
        broken = chunks.find_damaged(path, layout, recorded)
        damage += [Damage(array=layout.path, chunk=chunk) for chunk in broken]
    return damage


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def open_store(path: str | Path) -> EmbeddingStore:
    """Open a complete store.

    Raises
    ------
    StoreError
        If there is no store, or it is incomplete, damaged or of another schema.
    """
    path = Path(path)
    info = read_info(path)
    if not info.complete:
        done = sum(len(c) for name, c in info.checksums.items() if name.endswith("embeddings"))
        total = sum(info.layouts(split)[0].n_chunks for split in SPLITS)
        raise StoreError(
            f"{path} is incomplete ({done} of {total} chunks); this completes it: "
            f"{info.resume_command(root_of(path))}"
        )
    return EmbeddingStore(path, info)


def read_info(path: Path) -> StoreInfo:
    """Read and check a store's attributes, complete or not.

    Raises
    ------
    StoreError
        If there is no store, its attributes are damaged, or it is of another schema.
    """
    try:
        document = parse_json((path / "zarr.json").read_bytes())
        attributes = document["attributes"][ATTRIBUTE]
        schema = attributes["schema_version"]
    except (FileNotFoundError, NotADirectoryError):
        if path.suffix == ".zarr" and path.is_dir():
            raise _damaged(path, "its zarr.json is missing") from None
        raise StoreError(f"there is no embedding store at {path}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "zarr.json is not a medplus store's") from None
    if schema != SCHEMA:
        raise StoreError(
            f"{path} has schema {schema}, this medplus reads schema {SCHEMA}; "
            "use the version that wrote it, or extract again"
        )
    try:
        attributes, intact = unseal(attributes)
        info = StoreInfo.model_validate(attributes)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _damaged(path, f"attribute '{place}' is invalid") from None
    digest = info.spec.key(info.dataset_digest, info.backbone_digest)
    if digest != info.key or not path.stem.endswith(digest[:8]):
        raise _damaged(path, "its key does not belong to it")
    if not intact:
        raise _damaged(path, "its attributes are not those that were written")
    return info


def _damaged(path: Path, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path} is damaged: {what}; run the medplus extract command that made it again, or "
        f"delete it with: medplus store rm {shlex.quote(str(path))}"
    )


def write_info(path: Path, info: StoreInfo) -> None:
    """Write a store's attributes atomically: the moment at which a chunk counts as committed."""
    attributes = {ATTRIBUTE: seal(info.model_dump(mode="json"))}
    atomic.write_json(path / "zarr.json", group_metadata(attributes))


def list_stores(root: Path) -> Iterator[Path]:
    """Yield the paths of all stores under a root, sorted, complete or not."""
    yield from sorted(p for p in root.glob("*/*/*.zarr") if not p.name.startswith("."))
