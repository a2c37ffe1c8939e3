"""How much memory a process can still take, with every limit that it is under."""

from __future__ import annotations

import gc
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_UNLIMITED = 1 << 60
_RAN_OUT = (
    "can't allocate memory", "not enough memory", "cannot allocate memory",
    "failed to map segment from shared object", "cannot map zero-fill pages",
    "can't start new thread",
)  # fmt: skip
"""What torch says, the C library, its loader of the libraries that packages are made of, and Python
where a thread's stack finds no room."""

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage in a block that has little: the search takes a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def spare_memory(device: torch.device | None = None) -> int:
    """Return half of the memory that is at hand: what one object may fill, in bytes.

    The other half is for what is computed from it, and for others on the machine. At hand is the
    least of what the machine has available, what the control groups (v1 or v2) leave, as in a
    container or a SLURM job, and what is left of the limits on address space and data (``ulimit
    -v`` and ``-d``). Pages that only cache files count as available.

    Parameters
    ----------
    device : torch.device, optional
        If a GPU, the free memory of that is a further limit.
    """
    left = [_left_on_machine(), *_left_in_cgroups(), *_left_of_limits()]
    if device is not None and device.type == "cuda":
        import torch

        left.append(torch.cuda.mem_get_info(device)[0])
    return max(0, min(left)) // 2


def ran_out(error: BaseException) -> bool:
    """Tell whether an error means that the memory of the machine, or a limit, was exhausted."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _RAN_OUT)


def release_pages(array: Any) -> None:
    """Give the pages of a mapped file that have been read back, or they add up to the file.

    Parameters
    ----------
    array : ndarray
        Or a view of one; what is not mapped, or may have been changed, stays as it is.
    """
    while array is not None and not hasattr(array, "_mmap"):
        array = getattr(array, "base", None)
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def times_out_of_memory() -> int:
    """Return how often this machine has killed a process for want of memory since it started."""
    return _fields(_PROC / "vmstat").get("oom_kill", 0)


def _left_on_machine() -> int:
    available = _fields(_PROC / "meminfo").get("MemAvailable")
    if available is not None:
        return available * 1024
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))


def _left_in_cgroups() -> Iterator[int]:
    """Yield what every group that this process is in leaves, its own and those above it."""
    for line in _lines(_PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUPS, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            root = _CGROUPS / "memory"
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's; then only the root is there to be read.
        for group in (root / inner, *(root / parent for parent in inner.parents)):
            left = _left_in_group(group, *names)
            if left is not None:
                yield left


def _left_in_group(group: Path, limit: str, usage: str, prefix: str) -> int | None:
    try:
        allowed = int((group / limit).read_text())  # "max" if there is no limit
        used = int((group / usage).read_text())
    except (OSError, ValueError):
        return None
    counts = _fields(group / "memory.stat")
    cached = sum(counts.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
    return allowed - (used - cached)


def _left_of_limits() -> Iterator[int]:
    status = _fields(_PROC / "self/status")
    for which, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        allowed = resource.getrlimit(which)[0]
        if 0 <= allowed < _UNLIMITED:
            yield allowed - status.get(used, 0) * 1024


def _fields(file: Path) -> dict[str, int]:
    """Return the numbers of a file of lines ``name value …``."""
    found = {}
    for line in _lines(file):
        name, *values = line.replace(":", " ").split()
        if values and values[0].isdigit():
            found[name] = int(values[0])
    return found


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text().splitlines() if line.strip()]
    except OSError:
        return []
