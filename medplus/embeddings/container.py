"""Where a store lies: in a folder, in a zip archive, or in an object store named by a URL."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from medplus.embeddings.layout import METADATA, ArrayLayout
from medplus.errors import StoreError, UsageError, first_line, optional

Place = Path | str
"""A path, or a URL such as ``s3://bucket/path``."""

ARCHIVE = ".zarr.zip"
_RETRY: Any = {"max_retries": 3}
_LARGEST = 1 << 24
"""What the metadata of a stranger's archive may become when inflated, in bytes."""


class Container(Protocol):
    """What holds a store's files, by keys such as ``train/embeddings/c/0/0``.

    What zarr reads the same files through is `medplus.embeddings.arrays.zarr_store`.
    """

    @property
    def place(self) -> Place:
        """Where they lie."""

    def read(self, key: str) -> bytes:
        """Return a file's bytes; raise `FileNotFoundError`, or `OSError`."""

    def size(self, key: str) -> int:
        """Return a file's size in bytes; raise `FileNotFoundError`, or `OSError`."""


def to_place(place: Place) -> Place:
    """Return a URL as it is, and anything else as a path."""
    return place if isinstance(place, Path) or "://" in place else Path(place)


def is_store(place: Place) -> bool:
    """Tell whether a place is that of one store rather than the root of many, by its name."""
    place = to_place(place)
    return isinstance(place, str) or place.name.endswith((".zarr", ARCHIVE))


def open_container(place: Place) -> Container:
    """Return what holds the store at a place, whether or not there is one.

    Raises
    ------
    StoreError
        If an archive is damaged.
    UsageError
        If a URL is none, or the package that reads it is missing.
    """
    place = to_place(place)
    if isinstance(place, str):
        return _Bucket(place)
    return _Archive(place) if place.name.endswith(ARCHIVE) else _Folder(place)


def is_full(container: Container, layout: ArrayLayout, chunk: int) -> bool:
    """Tell whether a chunk's file is there in its full size; zarr takes a missing one for empty."""
    try:
        return container.size(layout.chunk_key(chunk)) == layout.chunk_nbytes
    except OSError:
        return False


def has_metadata(container: Container, digests: Mapping[str, str], path: str) -> bool:
    """Tell whether the Zarr metadata of a group or an array have the SHA-256 that is recorded."""
    try:
        found = container.read(f"{path}/{METADATA}")
    except OSError:
        return False
    return hashlib.sha256(found).hexdigest() == digests.get(path)


class _Folder:
    def __init__(self, place: Path) -> None:
        self.place = place

    def read(self, key: str) -> bytes:
        return (self.place / key).read_bytes()

    def size(self, key: str) -> int:
        return (self.place / key).stat().st_size


class _Archive:
    def __init__(self, place: Path) -> None:
        self.place = place
        try:
            with zipfile.ZipFile(place) as file:
                self._sizes = {entry.filename: entry.file_size for entry in file.infolist()}
        except FileNotFoundError:
            self._sizes = {}
        except Exception as error:  # damage shows in many ways
            raise StoreError(
                f"{place} is no archive that can be read ({error}); fetch or export it again"
            ) from None

    def read(self, key: str) -> bytes:
        if self.size(key) > _LARGEST and key.endswith(METADATA):
            raise OSError(0, f"{key} is too large")
        try:
            with zipfile.ZipFile(self.place) as file:
                return file.read(key)
        except OSError:
            raise
        except Exception as error:
            raise OSError(0, f"{key}: {error}") from None

    def size(self, key: str) -> int:
        if key not in self._sizes:
            raise FileNotFoundError(key)
        return self._sizes[key]


class _Bucket:
    def __init__(self, place: str) -> None:
        self.place = place
        store = optional("obstore.store", f"to read {place}")
        try:
            self.store: Any = store.from_url(place, retry_config=_RETRY)
        except Exception as error:  # obstore's own, by scheme
            raise UsageError(f"{place} names no object store: {first_line(error)}") from None

    def read(self, key: str) -> bytes:
        import obstore

        return bytes(self._ask(lambda: obstore.get(self.store, key).bytes()))

    def size(self, key: str) -> int:
        import obstore

        return int(self._ask(lambda: obstore.head(self.store, key))["size"])

    def _ask(self, question: Any) -> Any:
        try:
            return question()
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StoreError(
                f"{self.place} cannot be read: {first_line(error)}; check the URL, and the "
                "endpoint and credentials in the environment (AWS_ENDPOINT_URL, …)"
            ) from None
