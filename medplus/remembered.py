"""What was found out on this machine, kept in the user's cache folder, a file per subject.

And, for as long as a process lives, what it has read in files. It only saves time: what is missing,
damaged or cannot be written is found out again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from medplus.atomic import write_json
from medplus.jsonfile import digest_of, parse_json
from medplus.seal import seal, unseal

T = TypeVar("T")

_MOST = 500
"""Entries of a file; older ones are forgotten."""
_PROCESSOR = ("flags", "Features", "model name")
"""What ``/proc/cpuinfo`` says of what a processor can do, and which it is."""
_GPUS = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg", "/dev/dri/*", "/proc/driver/nvidia/gpus/*")
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "ATEN_CPU_CAPABILITY")  # fmt: skip


def user_cache() -> Path:
    """Return the folder of the caches that cannot lie beside their data."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medplus"
    return Path(os.environ.get("MEDPLUS_CACHE") or default)


def recall(subject: str, key: str, folder: Path | None = None) -> dict[str, Any] | None:
    """Return what was remembered, or None.

    Parameters
    ----------
    subject : str
        The name of its file.
    key : str
        All that what is remembered depends on.
    folder : Path, optional
        By default that of the user's caches.
    """
    entry = _read(_path(subject, folder)).get(key)
    if not isinstance(entry, dict):
        return None
    content, intact = unseal(entry)
    return content if intact else None


def remember(subject: str, key: str, entry: Mapping[str, Any], folder: Path | None = None) -> None:
    """Keep an entry, in place of an earlier one; where that cannot be, go on without."""
    with suppress(OSError, RuntimeError):  # there may be no home, either
        path = _path(subject, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: one for name, one in _read(path).items() if name != key}
        write_json(path, dict([*kept.items(), (key, seal(entry))][-_MOST:]))


@cache
def machine() -> str | None:
    """Return a digest of the processor, the GPUs that can be seen and torch, without importing it.

    None where the system does not tell of them: then nothing can be remembered.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        torch = version("torch")
        driver = Path("/proc/driver/nvidia/version")
        return digest_of(
            {
                "cpu": sorted({line for line in lines if line.startswith(_PROCESSOR)}),
                "gpus": sorted(str(p) for glob in _GPUS for p in Path("/").glob(glob[1:])),
                "driver": driver.read_text("utf-8") if driver.exists() else "",
                "visible": {name: os.environ.get(name) for name in _VISIBLE},
                "system": list(os.uname()),
                "torch": torch,
            }
        )
    except (OSError, ValueError, PackageNotFoundError):
        return None


def stamp(stat: os.stat_result) -> list[int]:
    """Return what a file keeps as long as nobody writes it or puts another in its place.

    Size, times of change of content and of status (anybody can set the former), and inode.
    """
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def read_once(file: str, read: Callable[..., T], *arguments: Any) -> T:
    """Read what lies in a file, or what this process has read in it: unwritten it holds the same.

    Raises
    ------
    OSError
        If there is no such file.
    """
    state = tuple(stamp(os.stat(file)))  # noqa: PTH116 - text, since thousands of paths take long
    return cast("T", recalled(read, arguments, state))


@cache
def recalled(read: Callable[..., T], arguments: tuple[Any, ...], state: tuple[int, ...]) -> T:
    """Read something, or recall what was read in this state of its file."""
    return read(*arguments)


def _path(subject: str, folder: Path | None) -> Path:
    return (folder or user_cache()) / f"{subject}.json"


def _read(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError, RuntimeError):
        found = parse_json(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
