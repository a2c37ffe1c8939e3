"""The images that a transformer is given: arrays or files, each known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from medplus.datasets.build import read_files
from medplus.datasets.decode import fit
from medplus.datasets.intensity import ImageFaultError
from medplus.errors import DatasetError, UsageError
from medplus.reading import Reading

_DIGEST_BYTES = 20


class Images(Protocol):
    """Some images, not necessarily in memory.

    Attributes
    ----------
    reading : Reading
        How they come to their pixels.
    """

    @property
    def reading(self) -> Reading: ...  # noqa: D102

    def digests(self) -> list[bytes]:
        """Return for each image, in order, what tells it from any other."""

    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """Return some of them, uint8, shape (n, size, size) or (n, size, size, 3)."""


def read_images(X: Any, reading: Reading | None, size: int | None) -> Images:
    """Return the images that `X` holds or names.

    Parameters
    ----------
    X : array-like
        uint8 of shape (n, height, width) or (n, height, width, 3); or paths, of shape (n,) or
        (n, 1).
    reading : Reading, optional
        How files become pixels; by default squashed to `size`, RGB.
    size : int, optional
        Height and width in pixels. Square arrays may have their own.

    Raises
    ------
    UsageError
        If `X` is neither, or nothing says how large the images are to be.
    """
    try:
        array = X if isinstance(X, np.ndarray) else np.asarray(X, _dtype_of(X))
    except ValueError:
        raise UsageError(
            "the images are of several shapes; give files, or bring the arrays to one shape"
        ) from None
    if not len(array):
        raise UsageError("there are no images; give at least one")
    if array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
        own = array.shape[1] if array.shape[1] == array.shape[2] else None
        return ArrayImages(array, reading or _reading(size or own, "these are not square"))
    if array.dtype.kind in "OU" and array.size == len(array):
        paths = [Path(path) for path in array.ravel().tolist()]
        return FileImages(paths, reading or _reading(size, "files have sizes of their own"))
    shape = ", ".join(["n", *map(str, array.shape[1:])])
    raise UsageError(
        "images must be uint8 of shape (n, height, width) or (n, height, width, 3), or paths, not "
        f"{array.dtype} of shape ({shape})"
    )


def _dtype_of(X: Any) -> Any:
    """Return object for paths, which numpy would take for anything."""
    first = next(iter(X), None) if isinstance(X, list | tuple) else None
    return object if isinstance(first, str | Path) else None


def _reading(size: int | None, why: str) -> Reading:
    if size is None:
        raise UsageError(f"name the size of the images in pixels: {why}")
    return Reading(size=size, policy="squash", channels="rgb")


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, or mapped to it: uint8, shape (n, height, width) or with 3 channels."""

    array: np.ndarray
    reading: Reading

    def digests(self) -> list[bytes]:  # noqa: D102
        shape = repr(self.array.shape[1:]).encode()
        return [_digest(shape, np.ascontiguousarray(image).data) for image in self.array]

    def pixels(self, rows: Sequence[int]) -> np.ndarray:  # noqa: D102
        some = self.array[list(rows)]
        size = self.reading.size
        if some.shape[1:3] == (size, size):
            return some
        try:
            fitted = [fit(Image.fromarray(image), size, self.reading.policy) for image in some]
        except ImageFaultError as error:
            raise DatasetError(f"an image cannot be used: {error}") from None
        return np.stack([np.asarray(image) for image in fitted])


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, which are read when they are to be embedded."""

    paths: Sequence[Path]
    reading: Reading

    def digests(self) -> list[bytes]:  # noqa: D102
        found = []
        for path in self.paths:
            try:
                found.append(_digest(path.suffix.lower().encode(), path.read_bytes()))
            except OSError as error:
                raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
        return found

    def pixels(self, rows: Sequence[int]) -> np.ndarray:  # noqa: D102
        return read_files([self.paths[row] for row in rows], self.reading)


def _digest(kind: bytes, content: Any) -> bytes:
    digest = hashlib.blake2b(kind, digest_size=_DIGEST_BYTES)
    digest.update(content)
    return digest.digest()
