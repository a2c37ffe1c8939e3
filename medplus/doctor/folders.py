"""Folders and disks: what can be written, and whether there is room for what is to come."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medplus.datasets import cache
from medplus.doctor.data import cache_need
from medplus.doctor.finding import Finding, Mark, Places
from medplus.naming import in_bytes

_SCANT = 1e9
_TRUE = ("1", "ON", "YES", "TRUE")

_said = partial(Finding, "folders")


@dataclass
class Need:
    """Disk space still needed, in bytes, by what it is for; and data that a grid lacks."""

    data: dict[str, int] = field(default_factory=dict)
    stores: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)


def need_of_caches(places: Places) -> Need:
    """Return what the caches of the files there will take, without any grid."""
    return Need(data={"caches": sum(map(cache_need, sorted(places.data.glob("*.npz"))))})


def examine_folders(places: Places, need: Need, is_plan: bool) -> Iterator[Finding]:
    """Yield what there is to say of disks, permissions and caches.

    Parameters
    ----------
    is_plan : bool
        Whether `need` is that of a grid, which must fit, or of caches that may never be filled.
    """
    yield from _room(places, need, is_plan)
    if need.missing:
        names = ", ".join(str(path) for path in need.missing[:3])
        more = f" and {len(need.missing) - 3} more" if len(need.missing) > 3 else ""
        yield _said(
            "problem",
            "",
            f"data that the grid needs are missing: {names}{more}",
            "fetch them with medplus download, or leave them out with 'exclude'",
        )
    unwritable = [
        *_unwritable(places.stores, "stores", "choose another folder with --store"),
        *_unwritable(places.runs, "runs", "choose another folder with --runs"),
        *_data_cache(places.data),
        *_unwritable(
            hub_cache(),
            "weights of the hub",
            "weights there can be read, new ones cannot be fetched; HF_HOME names another folder",
            "warning",
        ),
        *_unwritable(
            torch_home(),
            "weights of torch",
            "weights there can be read, new ones "
            "cannot be fetched; TORCH_HOME names another folder",
            "warning",
        ),
    ]
    yield from unwritable
    if not unwritable:
        yield _said("ok", "", "stores, runs and caches can be written")
    yield from _weights()


def _room(places: Places, need: Need, is_plan: bool) -> Iterator[Finding]:
    """Compare what is free with what is needed, disk by disk."""
    sharing: dict[int, list[str]] = defaultdict(list)
    needed: dict[int, dict[str, int]] = defaultdict(dict)
    anchors: dict[int, Path] = {}
    for name in ("data", "stores", "runs"):
        root: Path = getattr(places, name)
        anchor = _existing(root)
        device = anchor.stat().st_dev
        sharing[device].append(str(root))
        anchors[device] = anchor
        needed[device] |= {what: n for what, n in getattr(need, name).items() if n}
    for device, roots in sharing.items():
        free = shutil.disk_usage(anchors[device]).free
        parts, total = needed[device], sum(needed[device].values())
        what = ", ".join(f"{name} {in_bytes(n)}" for name, n in parts.items())
        text = f"{in_bytes(free)} free" + (
            f", up to {in_bytes(total)} needed ({what})" if parts else ""
        )
        subject = ", ".join(roots)
        if total > free:
            yield _said(
                "problem" if is_plan else "warning",
                subject,
                text,
                "make room, or choose folders on another disk",
            )
        elif free < _SCANT:
            yield _said("warning", subject, text, "make room before a long job")
        else:
            yield _said("ok", subject, text)


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _is_writable(path: Path) -> bool:
    place = _existing(path)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _unwritable(path: Path, what: str, remedy: str, mark: Mark = "problem") -> Iterator[Finding]:
    if not _is_writable(path):
        place = _existing(path)
        why = "cannot be written" if place.is_dir() else f"cannot be made, since {place} is a file"
        yield _said(mark, str(path), f"the folder of {what} {why}", remedy)


def _data_cache(root: Path) -> Iterator[Finding]:
    beside, elsewhere = root / cache.FOLDER, cache.user_cache()
    if not _is_writable(beside) and not _is_writable(elsewhere):
        yield _said(
            "problem",
            str(beside),
            f"the dataset cache can be written neither here nor in {elsewhere}",
            "set MEDPLUS_CACHE to a folder for it",
        )
    shut = [path for path in sorted(beside.glob("*/*")) if not os.access(path, os.R_OK)]
    if shut:
        yield _said(
            "problem",
            str(shut[0]),
            "a cached array that cannot be read",
            "let its owner allow it: chmod -R a+rX",
        )


def hub_cache() -> Path:
    """Return where the hub's client keeps weights."""
    home = os.environ.get("HF_HOME") or _caches() / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def torch_home() -> Path:
    """Return where torch keeps weights."""
    return Path(os.environ.get("TORCH_HOME") or _caches() / "torch").expanduser()


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _weights() -> Iterator[Finding]:
    hub = hub_cache()
    n_models = sum(1 for _ in hub.glob("models--*/snapshots/*/"))
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE
    if offline and not n_models:
        yield _said(
            "warning",
            str(hub),
            "no weights, and HF_HUB_OFFLINE forbids to fetch any",
            "carry weights over (docs/offline.md), or unset HF_HUB_OFFLINE",
        )
    else:
        told = ", and HF_HUB_OFFLINE forbids to fetch more" if offline else ""
        yield _said("ok", str(hub), f"weights of {n_models} networks{told}")
