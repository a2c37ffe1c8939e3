"""Folders and disks: what can be written, and whether there is room for what is to come."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medplus.datasets import cache
from medplus.doctor.data import cache_need
from medplus.doctor.finding import Finding, Places, first_few, ok, problem, warning
from medplus.naming import in_bytes
from medplus.remembered import user_cache

_SCANT = 1e9
_TRUE = ("1", "ON", "YES", "TRUE")
_ROOTS = ("data", "stores", "runs")


@dataclass
class Need:
    """Disk space still needed, in bytes, by what it is for; and data that a grid lacks.

    Attributes
    ----------
    is_plan : bool
        Whether it is that of a grid, which must fit, or of caches that may never be filled.
    """

    data: dict[str, int] = field(default_factory=dict)
    stores: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)
    is_plan: bool = False


def examine_folders(places: Places, grid: Path | None = None) -> Iterator[Finding]:
    """Yield what there is to say of disks, permissions and caches.

    Parameters
    ----------
    grid : Path, optional
        A sweep's grid; what is left of it has to fit. Else what the caches of the files there
        will take is told.
    """
    if grid is None:
        caches = sum(map(cache_need, sorted(places.data.glob("*.npz"))))
        yield from compare(places, Need(data={"caches": caches}))
    else:
        from medplus.doctor.need import need_of_grid

        yield from compare(places, need_of_grid(grid, places))
    unwritable = list(_unwritable(places))
    yield from unwritable or [ok("stores, runs and caches can be written")]
    yield _weights(_hub_cache())


def compare(places: Places, need: Need) -> Iterator[Finding]:
    """Compare what is free with what is needed, disk by disk; tell of data that are missing."""
    disks: dict[int, list[str]] = defaultdict(list)
    for name in _ROOTS:
        disks[_existing(getattr(places, name)).stat().st_dev].append(name)
    for names in disks.values():
        roots: list[Path] = [getattr(places, name) for name in names]
        free = shutil.disk_usage(_existing(roots[0])).free
        parts = {what: n for name in names for what, n in getattr(need, name).items() if n}
        total = sum(parts.values())
        subject, text = ", ".join(map(str, roots)), f"{in_bytes(free)} free"
        if parts:
            what = ", ".join(f"{name} {in_bytes(n)}" for name, n in parts.items())
            text += f", up to {in_bytes(total)} needed ({what})"
        if total > free:
            tell = problem if need.is_plan else warning
            yield tell(subject, text, "make room, or choose folders on another disk")
        elif free < _SCANT:
            yield warning(subject, text, "make room before a long job")
        else:
            yield ok(text, subject)
    if need.missing:
        text = f"data that the grid needs are missing: {first_few(need.missing)}"
        yield problem(
            "", text, "fetch them with medplus download, or leave them out with 'exclude'"
        )


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _is_writable(path: Path) -> bool:
    place = _existing(path)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _unwritable(places: Places) -> Iterator[Finding]:
    """Yield the folders that medplus cannot write, and what of the caches it cannot read."""
    fetched = "weights there can be read, new ones cannot be fetched; {} names another folder"
    another = "choose another folder with {}"
    for path, what, tell, remedy in (
        (places.stores, "stores", problem, another.format("--store")),
        (places.runs, "runs", problem, another.format("--runs")),
        (_hub_cache(), "weights of the hub", warning, fetched.format("HF_HOME")),
        (_torch_home(), "weights of torch", warning, fetched.format("TORCH_HOME")),
    ):
        if not _is_writable(path):
            place = _existing(path)
            why = "cannot be written" if place.is_dir() else f"cannot be made: {place} is a file"
            yield tell(path, f"the folder of {what} {why}", remedy)
    beside, elsewhere = places.data / cache.FOLDER, user_cache()
    if not _is_writable(beside) and not _is_writable(elsewhere):
        text = f"the dataset cache can be written neither here nor in {elsewhere}"
        yield problem(beside, text, "set MEDPLUS_CACHE to a folder for it")
    shut = [path for path in sorted(beside.glob("*/*")) if not os.access(path, os.R_OK)]
    if shut:
        remedy = "let its owner allow it: chmod -R a+rX"
        yield problem(shut[0], "a cached array that cannot be read", remedy)


def _hub_cache() -> Path:
    """Return where the hub's client keeps weights."""
    home = os.environ.get("HF_HOME") or _caches() / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _torch_home() -> Path:
    """Return where torch keeps weights."""
    return Path(os.environ.get("TORCH_HOME") or _caches() / "torch").expanduser()


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _weights(hub: Path) -> Finding:
    n_models = sum(1 for _ in hub.glob("models--*/snapshots/*/"))
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE
    if offline and not n_models:
        remedy = "carry weights over (docs/offline.md), or unset HF_HUB_OFFLINE"
        return warning(hub, "no weights, and HF_HUB_OFFLINE forbids to fetch any", remedy)
    told = ", and HF_HUB_OFFLINE forbids to fetch more" if offline else ""
    return ok(f"weights of {n_models} networks{told}", hub)
