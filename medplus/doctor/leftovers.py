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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medplus import lock
from medplus.datasets import cache as dataset_cache
from medplus.datasets import catalog
from medplus.doctor.finding import Finding, Places
from medplus.errors import MedplusError
from medplus.runs.ledger import PARTIAL
from medplus.transfer import PART
from medplus.vocabulary import SIZES

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.tmp-([0-9]+-)?[0-9a-f]{8}")
_STORE_LOCK = re.compile(r".+-[0-9a-f]{8}\.zarr\.lock")
_RUN_LOCK = re.compile(r"\..+-[0-9a-f]{8}\.lock")
_QUIET_S = 3600.0
"""A temporary file that no lock guards is left over if nobody has written to it for so long."""

_DEPTH = {"data": 3, "cache": 2, "stores": 8, "runs": 8}


@dataclass(frozen=True)
class Leftover:
    """What a process has left, or may still be at.

    Attributes
    ----------
    path : Path
    is_lock : bool
        Whether it is itself a lock file.
    guard : Path or None
        The lock that its writer holds; None where a writer holds none.
    """

    path: Path
    is_lock: bool
    guard: Path | None

    def user(self) -> str:
        """Return who still uses it, as far as can be seen, or an empty string."""
        owner = lock.owner(self.guard) if self.guard is not None else None
        if owner is not None:
            return str(owner)
        if self.guard is None and time.time() - _last_written(self.path) < _QUIET_S:
            return "a process that wrote to it within the last hour"
        return ""


def find_leftovers(places: Places) -> Iterator[Leftover]:
    """Yield what may be left over; `Leftover.user` tells whether someone still uses it."""
    roots = {"data": places.data, "stores": places.stores, "runs": places.runs}
    for kind, root in {**roots, "cache": dataset_cache.user_cache()}.items():
        for path, parts in _walk(root, _DEPTH[kind]):
            found = _judge(kind, path, parts)
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
            _remove(leftover)
            removed.append(leftover.path)
        except lock.LockHeldError:
            continue  # someone has taken it up in this moment
        except (OSError, MedplusError) as error:
            text = f"cannot be removed: {error}"
            kept.append(Finding("leftovers", "problem", str(leftover.path), text))
    return removed, kept


def examine_leftovers(places: Places) -> Iterator[Finding]:
    """Yield what is left over, and what can be gone on with."""
    idle, used = [], set()
    for leftover in find_leftovers(places):
        if user := leftover.user():
            used.add(user)
        else:
            idle.append(leftover)
    for user in sorted(used):
        yield Finding("leftovers", "ok", "", f"files in use by {user}")
    for leftover in idle:
        what = "a lock whose owner has died" if leftover.is_lock else "left by a process that died"
        remedy = "medplus doctor --fix removes it"
        yield Finding("leftovers", "warning", str(leftover.path), what, remedy)
    begun = list(_begun_downloads(places.data))
    yield from begun
    if not idle and not begun:
        yield Finding("leftovers", "ok", "", "none")


def _begun_downloads(root: Path) -> Iterator[Finding]:
    for name, (flag, size) in official_names().items():
        part = root / f"{name}{PART}"
        if not part.is_file() or (root / name).exists():
            continue
        owner = lock.owner(root / f".{name}.lock")
        if owner is not None:
            yield Finding("leftovers", "ok", str(part), f"being downloaded by {owner}")
            continue
        command = f"medplus download {flag} --size {size} --data-root {root}"
        yield Finding(
            "leftovers",
            "warning",
            str(part),
            "an interrupted download",
            f"{command} goes on with it; or delete it",
        )


@cache
def official_names() -> dict[str, tuple[str, int]]:
    """Return the names of all official files, with their dataset and size."""
    return {catalog.info(f).filename(size): (f, size) for f in catalog.FLAGS for size in SIZES}


# --- what is whose ------------------------------------------------------------------------------


def _walk(
    folder: Path, depth: int, above: tuple[str, ...] = ()
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield what lies in a folder, to a depth, with the names from its root; follow no links."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        parts = (*above, entry.name)
        yield Path(entry.path), parts
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and depth > 1 and not _TEMPORARY.fullmatch(entry.name):
            yield from _walk(Path(entry.path), depth - 1, parts)


def _judge(kind: str, path: Path, parts: tuple[str, ...]) -> Leftover | None:
    temporary = _TEMPORARY.fullmatch(path.name)
    if temporary:
        return Leftover(path, False, _guard(kind, path, parts, temporary["name"]))
    if path.name.endswith(".lock") and _is_lock(kind, path, parts) and _is_note_of_owner(path):
        return Leftover(path, True, path)
    if kind == "data" and len(parts) == 1 and path.name.endswith(PART):
        whole = path.with_name(path.name.removesuffix(PART))
        if whole.name in official_names() and whole.is_file():
            return Leftover(path, False, path.with_name(f".{whole.name}.lock"))
    return None


def _is_lock(kind: str, path: Path, parts: tuple[str, ...]) -> bool:
    n = len(parts)
    if kind == "stores":
        return n == 3 and bool(_STORE_LOCK.fullmatch(path.name))
    if kind == "runs":
        return n >= 5 and bool(_RUN_LOCK.fullmatch(path.name))
    if kind == "data":
        download = n == 1 and path.name[1:].removesuffix(".lock") in official_names()
        return download or (n >= 2 and parts[-2] == dataset_cache.FOLDER)
    named = path.parent.name if n == 2 else path.name.removesuffix(".lock")
    return bool(re.fullmatch(r".+-[0-9a-f]{8}", named))


def _guard(kind: str, path: Path, parts: tuple[str, ...], name: str) -> Path | None:
    """Return the lock that the writer of a temporary file or folder holds, if it holds one."""
    n = len(parts)
    if kind == "stores" and n >= 3:
        store = name if n == 3 else parts[2]
        folder = path.parents[n - 3]
        return folder / f"{store}.lock" if store.endswith(".zarr") else None
    if kind == "runs" and n >= 5:
        # A run is locked while it is made; what is added to a finished one is not.
        if n > 5 and not parts[4].endswith(PARTIAL):
            return None
        run = (name if n == 5 else parts[4]).removesuffix(PARTIAL)
        return path.parents[n - 5] / f".{run}.lock"
    in_cache = kind == "cache" or (n >= 2 and parts[-2] == dataset_cache.FOLDER)
    return path.with_name(f"{name}.lock") if in_cache and not name.endswith(".json") else None


def _is_note_of_owner(path: Path) -> bool:
    """Tell a lock of medplus from other files of that ending: it names a process, or is empty."""
    try:
        text = path.read_bytes()[:1000]
        return not text or {"host", "pid"} <= json.loads(text).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _last_written(path: Path) -> float:
    """Return when a file, or the newest of what is in a folder, was written."""
    times = [path.lstat().st_mtime] if os.path.lexists(path) else [0.0]
    return max(times + [file.lstat().st_mtime for file, _ in _walk(path, 8)])


def _remove(leftover: Leftover) -> None:
    path, guard = leftover.path, leftover.guard
    if leftover.is_lock:
        with lock.hold(path, str(path)):
            return  # whoever lets go of a lock removes its file
    with lock.hold(guard, str(path)) if guard is not None else nullcontext():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
