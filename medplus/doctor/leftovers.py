"""What dead processes have left: temporary files, stale locks, downloads that are finished twice.

Only what medplus itself makes is ever looked at; symbolic links are never followed. What can be
gone on with is no leftover: a half-written store, an interrupted training and a download under way
stay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medplus import lock
from medplus.datasets.catalog import official_names
from medplus.doctor.finding import Finding, Places, ok, problem, warning
from medplus.remembered import user_cache
from medplus.remotefile import PART

_QUIET_S = 3600.0
"""A temporary file is left over if nobody has written to it for so long, and no lock near it is
held: some are written without a lock."""

_DEPTH = {"data": 3, "cache": 2, "stores": 8, "runs": 8}
_IS_TEMPORARY = re.compile(r"\..+\.tmp-(?:[0-9]+-)?[0-9a-f]{8}")
_LOCK = ".lock"


@dataclass(frozen=True)
class Leftover:
    """What a process has left, or may still be at, and the root under which it lies."""

    path: Path
    root: Path

    @property
    def is_lock(self) -> bool:
        """Whether it is a lock file."""
        return self.path.suffix == _LOCK

    def user(self) -> str:
        """Return who may still use it, or an empty string: who holds a lock beside or above it."""
        locks: Iterator[Path] = iter([self.path])
        if not self.is_lock:
            folders = (f for f in self.path.parents if f.is_relative_to(self.root))
            locks = (path for folder in folders for path in folder.glob(f"*{_LOCK}"))
        for owner in filter(None, map(lock.owner, locks)):
            return str(owner)
        is_temporary = _IS_TEMPORARY.fullmatch(self.path.name)
        if is_temporary and time.time() - _last_written(self.path) < _QUIET_S:
            return "a process that wrote to it within the last hour"
        return ""

    def remove(self) -> None:
        """Remove it.

        Raises
        ------
        OSError
        """
        if self.is_lock:
            lock.remove_stale(self.path)
        elif self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find_leftovers(places: Places) -> Iterator[Leftover]:
    """Yield what may be left over; `Leftover.user` tells whether someone still uses it."""
    roots = {"data": places.data, "stores": places.stores, "runs": places.runs}
    for kind, root in {**roots, "cache": user_cache()}.items():
        for path in _walk(root, _DEPTH[kind]):
            whole = path.with_suffix("")
            if (
                _IS_TEMPORARY.fullmatch(path.name)
                or (path.suffix == _LOCK and _names_owner(path))
                or (path.suffix == PART and whole.name in official_names() and whole.is_file())
            ):
                yield Leftover(path, root)


def remove_leftovers(places: Places) -> tuple[list[Path], list[Finding]]:
    """Remove what is left over and used by nobody.

    Returns
    -------
    removed : list of Path
    kept : list of Finding
        What could not be removed, and why.
    """
    removed, kept = [], []
    for leftover in find_leftovers(places):
        if leftover.user():
            continue
        try:
            leftover.remove()
            removed.append(leftover.path)
        except OSError as error:
            fault = problem(leftover.path, f"cannot be removed: {error}")
            kept.append(replace(fault, group="leftovers"))
    return removed, kept


def examine_leftovers(places: Places) -> Iterator[Finding]:
    """Yield what is left over, and what can be gone on with."""
    users = {leftover: leftover.user() for leftover in find_leftovers(places)}
    for user in sorted(set(filter(None, users.values()))):
        yield ok(f"files in use by {user}")
    idle = [leftover for leftover, user in users.items() if not user]
    for leftover in idle:
        what = "a lock whose owner has died" if leftover.is_lock else "left by a process that died"
        yield warning(leftover.path, what, "medplus doctor --fix removes it")
    begun = list(_begun_downloads(places.data))
    yield from begun
    if not idle and not begun:
        yield ok("none")


def _begun_downloads(root: Path) -> Iterator[Finding]:
    for name, (flag, size) in official_names().items():
        part = root / f"{name}{PART}"
        if not part.is_file() or (root / name).exists():
            continue
        owner = lock.owner(root / f".{name}.lock")
        command = f"medplus download {flag} --size {size} --data-root {root}"
        if owner is not None:
            yield ok(f"being downloaded by {owner}", part)
        else:
            remedy = f"{command} goes on with it; or delete it"
            yield warning(part, "an interrupted download", remedy)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield what lies in a folder, to a depth; follow no links, and look into nothing temporary."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        yield Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and depth > 1 and not _IS_TEMPORARY.fullmatch(entry.name):
            yield from _walk(Path(entry.path), depth - 1)


def _names_owner(path: Path) -> bool:
    """Tell a lock of medplus from other files of that ending: it names a process."""
    try:
        return bool({"host", "pid"} <= json.loads(path.read_bytes()[:1000]).keys())
    except (OSError, ValueError, AttributeError):
        return False


def _last_written(path: Path) -> float:
    """Return when a file, or the newest of what is in a folder, was written."""
    times = [path.lstat().st_mtime] if os.path.lexists(path) else [0.0]
    return max(times + [file.lstat().st_mtime for file in _walk(path, 8)])
