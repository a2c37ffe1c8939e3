"""The memory-mapped cache: what a dataset's files hold is inflated or decoded once, ever.

A cache is a folder of `.npy` files, others beside them, and `meta.json`: a sealed document that
holds the digest and the size of every file. It lies in `.medplus-cache/` beside the data; where
that cannot be written, in the user's cache folder (`$MEDPLUS_CACHE`, else `~/.cache/medplus`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from medplus import atomic, lock
from medplus.errors import DatasetError, MedplusError
from medplus.remembered import user_cache
from medplus.seal import seal, unseal
from medplus.vocabulary import SPLITS

log = logging.getLogger(__name__)

ARRAYS: tuple[str, ...] = tuple(f"{s}_{kind}" for s in SPLITS for kind in ("images", "labels"))
FOLDER = ".medplus-cache"
META = "meta.json"
_SCHEMA = 7
_LOCK_TIMEOUT_S = 3600

Facts = dict[str, Any]
"""What a cache says of its data, beside its arrays; JSON."""
Check = Callable[[Facts], bool]
"""Tells whether facts are of the data as they are now."""


@dataclass(frozen=True)
class Cached:
    """The content of a cache.

    Attributes
    ----------
    folder : Path
    arrays : dict of ndarray
        The arrays by the names that MedMNIST gives them, mapped into memory, read-only.
    facts : dict
        What was written, and ``digest``: SHA-256 over names, shapes, dtypes, bytes of the arrays.
    """

    folder: Path
    arrays: Mapping[str, np.ndarray]
    facts: Facts


@dataclass(frozen=True)
class Cache:
    """The cache of some data.

    Attributes
    ----------
    data : Path
        The file or folder, without links.
    root : Path
        The folder in which its caches may lie.
    name : str
        Of the cache's folder.
    """

    data: Path
    root: Path
    name: str

    @property
    def beside(self) -> Path:
        """Where the cache lies."""
        return self.root / FOLDER / self.name

    @property
    def elsewhere(self) -> Path:
        """Where it lies if that cannot be written."""
        return elsewhere(self.data) / self.name

    def find(self, check: Check) -> Cached | None:
        """Return the content, if it is there and of the data as they are now.

        Also where others have filled it and we cannot write.
        """
        found = _open(self.beside, check) or _open(self.elsewhere, check)
        if found is not None:
            lock.remove_stale(_lock_file(found.folder))
        return found

    def fill(self, check: Check, write: Callable[[Path], Facts]) -> Cached:
        """Return the content, after `write` has put it into a new folder and returned its facts.

        Other processes wait meanwhile, and nothing stays of what fails.

        Raises
        ------
        DatasetError
            If the cache cannot be written, or the data change while they are read.
        """
        folder = self._writable()
        with lock.hold(_lock_file(folder), f"the cache of {self.data}", _LOCK_TIMEOUT_S):
            found = _open(folder, check)  # another process may have filled it meanwhile
            if found is not None:
                return found
            try:
                atomic.remove_leftovers(folder)
                if folder.exists():
                    atomic.remove_folder(folder)
                with atomic.new_folder(folder) as temporary:
                    facts = write(temporary)
                    atomic.write_json(temporary / META, seal(_describe(temporary, facts)))
            except OSError as error:
                raise DatasetError(
                    f"the cache of {self.data} cannot be written to {folder.parent}: "
                    f"{error.strerror or error} (MEDPLUS_CACHE names another folder)"
                ) from None
        found = _open(folder, check)
        if found is None:
            raise DatasetError(f"{self.data} was changed while it was read; run the command again")
        return found

    def _writable(self) -> Path:
        """Return the folder that can be written, after making the one around it."""
        beside, elsewhere = self.beside, self.elsewhere
        with suppress(OSError):
            beside.parent.mkdir(exist_ok=True)
            if os.access(beside.parent, os.W_OK):
                return beside
        try:
            elsewhere.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(
                f"neither {beside.parent} nor {elsewhere.parent} can be written "
                f"({error.strerror}); set MEDPLUS_CACHE to a folder for the dataset cache"
            ) from None
        return elsewhere


def elsewhere(data: Path) -> Path:
    """Return where the cache of some data lies if it cannot lie beside them."""
    place = hashlib.sha256(str(data).encode()).hexdigest()[:8]
    return user_cache() / f"{data.stem}-{place}"


def check_room(folder: Path, nbytes: int) -> None:
    """Refuse to write what the disk cannot hold: a zip of 1 MB may hold 1 GB.

    Raises
    ------
    OSError
    """
    if nbytes > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}; it needs {nbytes / 1e6:.0f} MB")


def read_file(folder: Path, name: str) -> bytes:
    """Read a file of a cache, and check it.

    Raises
    ------
    DatasetError
        If it is not there, or not what was written.
    """
    with suppress(OSError, ValueError, KeyError):
        content = (folder / name).read_bytes()
        if xxhash.xxh3_64_hexdigest(content) == _read_meta(folder)["files"][name]["xxh3"]:
            return content
    raise DatasetError(f"{folder / name} is damaged; delete {folder}, which is filled again")


def damaged_files(folder: Path) -> list[Path]:
    """Read a cache to the last byte and return the files that are not what was written."""
    try:
        files = _read_meta(folder)["files"]
        return [folder / name for name in files if not _is_whole(folder / name, files[name])]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return [folder / META]


def _open(folder: Path, check: Check) -> Cached | None:
    try:
        meta = _read_meta(folder)
        if not check(meta["facts"]):
            return None
        arrays = {
            name: _map(folder / f"{name}.npy", meta["files"][f"{name}.npy"]) for name in ARRAYS
        }
        return Cached(folder, arrays, meta["facts"])
    except MedplusError:
        raise
    except Exception:
        return None  # absent, or damaged in whatever way: it is filled again


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _read_meta(folder: Path) -> dict[str, Any]:
    meta, intact = unseal(json.loads((folder / META).read_bytes()))
    if not intact or meta["schema"] != _SCHEMA:
        raise ValueError(f"{folder / META} is damaged, or of another version of medplus")
    return meta


def _describe(folder: Path, facts: Facts) -> dict[str, Any]:
    """Return what is to be known of a new cache from now on."""
    files: dict[str, dict[str, Any]] = {}
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        files[path.name] = {"xxh3": _hash(path), "nbytes": path.stat().st_size}
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            order = "C" if array.flags.c_contiguous else "F"
            digest.update(f"{path.stem}:{array.shape}:{array.dtype.str}:{order}".encode())
            digest.update(array.ravel("K").view(np.uint8).data)
    return {"schema": _SCHEMA, "files": files, "facts": {**facts, "digest": digest.hexdigest()}}


def _map(path: Path, known: Mapping[str, Any]) -> np.ndarray:
    """Map an array; labels are checked, but to hash the pixels would take as long as reading."""
    if path.stat().st_size != known["nbytes"]:
        raise ValueError(f"{path} is cut off, or longer than it was")
    if path.stem.endswith("_labels") and not _is_whole(path, known):
        raise ValueError(f"{path} is damaged")
    # As a plain array: slices of a memmap are memmaps, which take their time to be made.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _is_whole(path: Path, known: Mapping[str, Any]) -> bool:
    try:
        return bool(_hash(path) == known["xxh3"])
    except OSError:
        return False


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
