"""Writing files so that a crash at any moment leaves the old state or the new one, never a mix."""

from __future__ import annotations

import glob
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MARK = ".tmp-"
_TRIES, _PAUSE_S = 20, 0.05


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to `path`: a temporary file, synced, renamed over the target, folder synced."""
    temporary = path.with_name(f".{path.name}{_MARK}{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb", buffering=0) as file:
            for part in parts:
                _write_all(file.fileno(), memoryview(part).cast("B"))
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write_all(descriptor: int, data: memoryview) -> None:
    # One write may take at most about 2 GiB, and a nearly full disk takes only a part.
    while data:
        data = data[os.write(descriptor, data[: 1 << 30]) :]


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically; NaN is refused, since JSON has none."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, text.encode() + b"\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the block ends without an error.

    Raises
    ------
    FileExistsError
        If another process has put something there in the meantime; nothing of it is touched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path) as temporary:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        temporary.rename(path)
        sync_folder(path.parent)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside `path`, removed when the block ends; `remove_leftovers` knows it."""
    temporary = path.with_name(f".{path.name}{_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()  # within, since an interrupt may come as soon as it is there
        yield temporary
    finally:
        _remove_all(temporary)


def _remove_all(folder: Path) -> None:
    """Remove a folder in which another thread, such as one of zarr's, may be ending a write."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE_S)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is either whole or gone: renamed out of the way, then deleted."""
    condemned = path.with_name(f".{path.name}{_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    path.rename(condemned)
    shutil.rmtree(condemned, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Delete what killed writers of `path` left beside it. Call it only while holding its lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}{_MARK}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def remove_leftovers_in(folder: Path) -> None:
    """Delete what killed writers left in a folder. Call it only while holding its lock."""
    for leftover in folder.glob(f".*{_MARK}*"):
        leftover.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, where the platform can (not every network file system does)."""
    try:
        sync(path)
    except OSError:
        return
