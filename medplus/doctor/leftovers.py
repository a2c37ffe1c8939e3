"""What dead processes have left: temporary files, stale locks, downloads that are finished twice.

Only names that medplus itself gives, in places where it gives them, are ever looked at; symbolic
links are never followed. What can be gone on with is no leftover: a half-written store, an
interrupted training and a download under way stay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from medplus import lock
from medplus.datasets import cache
from medplus.datasets.catalog import official_names
from medplus.doctor.finding import Finding, Places, ok, problem, warning
from medplus.errors import MedplusError
from medplus.transfer import PART

_QUIET_S = 3600.0
"""A temporary file that no lock guards is left over if nobody has written to it for so long."""

_DEPTH = {"data": 3, "cache": 2, "stores": 8, "runs": 8}
_N, _HEX = "[^/]+", "[0-9a-f]{8}"
_TEMPORARY = rf"\.tmp-(?:[0-9]+-)?{_HEX}"
_IS_TEMPORARY = re.compile(rf"\.{_N}{_TEMPORARY}")
_CACHE = re.escape(cache.FOLDER)
_RULES = {
    "stores": {
        rf"({_N}/{_N}/)\.({_N}\.zarr){_TEMPORARY}": r"\1\2.lock",
        rf"({_N}/{_N}/{_N}\.zarr)/(?:.+/)?\.{_N}{_TEMPORARY}": r"\1.lock",
        rf"{_N}/{_N}/{_N}-{_HEX}\.zarr\.lock": r"\g<0>",
    },
    "runs": {
        # A run is locked while it is made; what is added to a finished one is not.
        rf"((?:{_N}/){{4}}\.{_N}?)(?:\.partial)?{_TEMPORARY}": r"\1.lock",
        rf"((?:{_N}/){{4}})({_N})\.partial/(?:.+/)?\.{_N}{_TEMPORARY}": r"\1.\2.lock",
        rf"(?:{_N}/){{4,}}\.{_N}-{_HEX}\.lock": r"\g<0>",
    },
    "data": {
        rf"((?:.+/)?{_CACHE}/)\.({_N})(?<!\.json){_TEMPORARY}": r"\1\2.lock",
        rf"(?:.+/)?{_CACHE}/{_N}\.lock": r"\g<0>",
        rf"\.(?P<npz>{_N})\.lock": r"\g<0>",
        rf"(?P<npz>{_N}){re.escape(PART)}": r".\1.lock",
    },
    "cache": {
        rf"((?:{_N}/)?)\.({_N})(?<!\.json){_TEMPORARY}": r"\1\2.lock",
        rf"(?:{_N}-{_HEX}/{_N}|{_N}-{_HEX})\.lock": r"\g<0>",
    },
}
"""Per root: what may be left in which place below it, and the lock that its writer holds."""


@dataclass(frozen=True)
class Leftover:
    """What a process has left, or may still be at.

    Attributes
    ----------
    path : Path
    guard : Path or None
        The lock that its writer holds, which may be `path` itself; None where a writer holds none.
    """

    path: Path
    guard: Path | None

    @property
    def is_lock(self) -> bool:
        """Whether it is itself a lock file."""
        return self.path == self.guard

    def user(self) -> str:
        """Return who still uses it, as far as can be seen, or an empty string."""
        owner = lock.owner(self.guard) if self.guard is not None else None
        if owner is not None:
            return str(owner)
        if self.guard is None and time.time() - _last_written(self.path) < _QUIET_S:
            return "a process that wrote to it within the last hour"
        return ""

    def remove(self) -> None:
        """Remove it, unless someone has taken it up in this moment.

        Raises
        ------
        LockHeldError, OSError
        """
        with lock.hold(self.guard, str(self.path)) if self.guard is not None else nullcontext():
            if self.is_lock:
                return  # whoever lets go of a lock removes its file
            if self.path.is_dir():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)


def find_leftovers(places: Places) -> Iterator[Leftover]:
    """Yield what may be left over; `Leftover.user` tells whether someone still uses it."""
    roots = {"data": places.data, "stores": places.stores, "runs": places.runs}
    for kind, root in {**roots, "cache": cache.user_cache()}.items():
        for path in _walk(root, _DEPTH[kind]):
            found = _judge(kind, root, path)
            if found is not None:
                yield found


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
        except lock.LockHeldError:
            continue
        except (OSError, MedplusError) as error:
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


def _judge(kind: str, root: Path, path: Path) -> Leftover | None:
    """Tell of a path below a root whether some process may have left it, and which lock tells."""
    for rule, lock_file in _RULES[kind].items():
        match = re.fullmatch(rule, path.relative_to(root).as_posix())
        npz = match and match.groupdict().get("npz")
        if match is None or (npz and npz not in official_names()):
            continue
        guard = root / match.expand(lock_file)
        if guard == path and not _names_owner(path):
            return None
        if path.suffix == PART and not path.with_suffix("").is_file():
            return None  # it can be gone on with
        return Leftover(path, guard)
    return Leftover(path, None) if _IS_TEMPORARY.fullmatch(path.name) else None


def _names_owner(path: Path) -> bool:
    """Tell a lock of medplus from other files of that ending: it names a process, or is empty."""
    try:
        text = path.read_bytes()[:1000]
        return not text or {"host", "pid"} <= json.loads(text).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _last_written(path: Path) -> float:
    """Return when a file, or the newest of what is in a folder, was written."""
    times = [path.lstat().st_mtime] if os.path.lexists(path) else [0.0]
    return max(times + [file.lstat().st_mtime for file in _walk(path, 8)])
