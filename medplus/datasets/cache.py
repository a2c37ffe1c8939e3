"""The memory-mapped cache: a dataset file is inflated once, ever.

Layout: `.medplus-cache/<stem>/` beside the npz, with one `.npy` per array and `meta.json`. Where
that folder cannot be written, the user's cache folder takes its place (`$MEDPLUS_CACHE`, else
`~/.cache/medplus`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus import atomic, lock
from medplus.datasets import arrays, npz
from medplus.errors import DatasetError, first_line
from medplus.seal import seal, unseal

log = logging.getLogger(__name__)

_SCHEMA = 3
_META = "meta.json"
FOLDER = ".medplus-cache"
LOCK_TIMEOUT_S = 3600
_HASH_BLOCK = 1 << 22


@dataclass(frozen=True)
class CachedArrays:
    """The arrays of one npz file, memory-mapped, with their identity.

    Attributes
    ----------
    digest : str
        SHA-256 over names, shapes, dtypes and bytes of the arrays, in hex: not of the file, whose
        compression may differ.
    md5 : str
        MD5 of the file itself, to compare with the official one.
    phantom : str or None
        What the phantom generator noted, if the file is a phantom.
    """

    arrays: Mapping[str, np.ndarray]
    digest: str
    md5: str
    phantom: str | None


def open_cached(path: Path) -> CachedArrays:
    """Return the arrays of an npz file from its cache, filling the cache first where needed.

    Raises
    ------
    DatasetError
        If the file is missing, damaged or not in MedMNIST's layout, or the cache cannot be written.
    """
    path = _existing(path)
    beside = path.parent / FOLDER / path.stem
    cached = _open_if_current(beside, path)  # also where others have filled it and we cannot write
    if cached is not None:
        lock.remove_stale(_lock_file(beside))
        return cached
    folder = _cache_folder(path)
    if folder != beside:
        cached = _open_if_current(folder, path)
        if cached is not None:
            return cached
    with lock.hold(_lock_file(folder), f"the cache of {path}", LOCK_TIMEOUT_S):
        cached = _open_if_current(folder, path)  # another process may have filled it meanwhile
        if cached is not None:
            return cached
        atomic.remove_leftovers(folder)
        _fill(folder, path)
    cached = _open_if_current(folder, path)
    if cached is None:
        raise DatasetError(f"{path} was changed while it was read; run the command again")
    return cached


def remembered(path: Path) -> dict[str, Any] | None:
    """Return ``digest``, ``md5`` and ``phantom`` of a file as its cache knows them.

    None if the file has not been read as it is now. Nothing is computed or written, and of the
    file nothing is read.
    """
    path = _existing(path)
    for folder in (path.parent / FOLDER / path.stem, _elsewhere(path)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            meta = read_meta(folder)
            if meta["schema"] == _SCHEMA and meta["signature"] == _signature(path):
                return {name: meta[name] for name in ("digest", "md5", "phantom")}
    return None


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _existing(path: Path) -> Path:
    try:
        path = path.resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, …
        raise DatasetError(f"{path} cannot be reached: {first_line(error)}") from None
    if not found:
        reason = "is a folder; name the npz file in it" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path} {reason}")
    return path


def _cache_folder(path: Path) -> Path:
    beside = path.parent / FOLDER
    if is_writable(beside):
        return beside / path.stem
    root = user_cache()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"neither {beside} nor {root} can be written ({error.strerror}); "
            "set MEDPLUS_CACHE to a folder for the dataset cache"
        ) from None
    return _elsewhere(path)


def _elsewhere(path: Path) -> Path:
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return user_cache() / f"{path.stem}-{place}"


def is_writable(beside: Path) -> bool:
    """Tell whether a cache can lie beside its data, and make its folder there."""
    try:
        beside.mkdir(exist_ok=True)
        return os.access(beside, os.W_OK)
    except OSError:
        return False


def user_cache() -> Path:
    """Return the folder of the caches that cannot lie beside their data."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medplus"
    return Path(os.environ.get("MEDPLUS_CACHE") or default)


def _signature(path: Path) -> list[int]:
    """Cheap sign that a file is unchanged; where it differs, the file's MD5 decides."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _open_if_current(folder: Path, path: Path) -> CachedArrays | None:
    try:
        meta = read_meta(folder)
        if meta["schema"] != _SCHEMA:
            return None
        signature = _signature(path)
        if meta["signature"] != signature:
            if meta["signature"][0] != signature[0] or meta["md5"] != file_md5(path):
                return None
            with suppress(OSError):  # in a folder of others, the MD5 is computed every time
                atomic.remove_leftovers_in(folder)
                write_meta(folder, {**meta, "signature": signature})
        mapped = arrays.map_arrays(folder, meta["arrays"])
        return CachedArrays(mapped, meta["digest"], meta["md5"], meta["phantom"])
    except Exception:
        return None  # absent, or damaged in whatever way: it is filled again


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what a cache says of itself.

    Raises
    ------
    OSError, ValueError
        If it is not there, or not what was written.
    """
    meta, intact = unseal(json.loads((folder / _META).read_bytes()))
    if not intact:
        raise ValueError(f"{folder / _META} is damaged")
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write what a cache says of itself, atomically."""
    atomic.write_json(folder / _META, seal(meta))


def damaged_arrays(folder: Path) -> list[Path]:
    """Read a cache to the last byte and return the files that are not what was written.

    Parameters
    ----------
    folder : Path
        A folder with a ``meta.json``, of an npz file or of a folder of images.
    """
    try:
        return arrays.damaged_arrays(folder, read_meta(folder)["arrays"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return [folder / _META]


def _fill(folder: Path, path: Path) -> None:
    with npz.open_npz(path) as archive:
        headers = npz.read_headers(archive, path)
        signature = _signature(path)
        needed = sum(header.nbytes for header in headers.values())
        log.info("caching %s (%.1f MB) for memory-mapped reading", path.name, needed / 1e6)
        try:
            if folder.exists():
                atomic.remove_folder(folder)
            if needed > shutil.disk_usage(folder.parent).free:  # a zip of 1 MB may hold 1 GB
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with atomic.new_folder(folder) as temporary:
                meta: dict[str, Any] = {
                    "schema": _SCHEMA,
                    "signature": signature,
                    "md5": file_md5(path),
                    "digest": _copy_arrays(archive, path, headers, temporary),
                    "phantom": npz.read_phantom_note(archive, path),
                    "arrays": arrays.describe_arrays(temporary),
                }
                write_meta(temporary, meta)
        except OSError as error:
            raise DatasetError(
                f"the cache of {path} cannot be written to {folder.parent}: "
                f"{error.strerror or error}; "
                f"it needs {needed / 1e6:.0f} MB (MEDPLUS_CACHE names another folder)"
            ) from None


def _copy_arrays(
    archive: zipfile.ZipFile,
    path: Path,
    headers: Mapping[str, npz.Header],
    folder: Path,
) -> str:
    digest = hashlib.sha256()
    for name, header in headers.items():
        order = "F:" if header.fortran_order else ""  # the same bytes mean other pixels
        digest.update(f"{name}:{header.shape}:{header.dtype.str}:{order}".encode())
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "shape": header.shape,
                    "fortran_order": header.fortran_order,
                    "descr": np.lib.format.dtype_to_descr(header.dtype),
                },
            )
            for block in npz.read_blocks(archive, path, header):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def file_md5(path: Path) -> str:
    """Return the MD5 of a file in hex: what MedMNIST publishes. It identifies, not secures."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
