"""What a computation costs: time, memory, and energy where the hardware counts it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.device import describe_device

if TYPE_CHECKING:
    import torch

SUMS = ("seconds", "device_seconds", "energy_joules")
PEAKS = ("peak_memory_bytes", "peak_device_memory_bytes")
"""What of costs adds up, and of what the highest counts, by the names of `describe_cost`."""


@dataclass
class CostMeter:
    """What a block has cost; filled in when the block ends.

    Attributes
    ----------
    device : torch.device
    devices : int
        Number of devices held.
    seconds : float
        Wall time.
    energy_joules : float or None
        None where nothing counts it.
    peaks : dict of str to int
        Peak memory in bytes, as `PeakMemory.read` returns it.
    """

    device: torch.device
    devices: int = 1
    seconds: float = 0.0
    energy_joules: float | None = None
    peaks: dict[str, int] = field(default_factory=dict)

    def cost(self, images: int | None = None) -> dict[str, Any]:
        """Return a cost as records and stores keep it; what was not measured is left out.

        Returns
        -------
        dict
            ``seconds`` : float, s
                Wall time.
            ``device_seconds`` : float, s
                Wall time × number of devices held.
            ``device`` : str
                The device's name.
            ``peak_memory_bytes`` : int, bytes
                Peak resident memory of the process, mapped files included. Where the peak of the
                process cannot be lowered (outside Linux), that of its whole life.
            ``peak_device_memory_bytes`` : int, bytes
                On CUDA: peak of what torch allocated on the device, or on the first of several.
            ``images_per_second`` : float, 1/s
                If there were images.
            ``energy_joules`` : float, J
                On CUDA with NVML: what the whole GPUs used in this time, other processes included.
        """
        cost: dict[str, Any] = {
            "seconds": self.seconds,
            "device_seconds": self.seconds * self.devices,
            "device": describe_device(self.device),
            **self.peaks,
        }
        if images:
            cost["images_per_second"] = images / self.seconds
        if self.energy_joules is not None:
            cost["energy_joules"] = self.energy_joules
        return cost


@contextmanager
def measure_cost(device: torch.device) -> Iterator[CostMeter]:
    """Measure what the block costs.

    Blocks must not overlap in one process: the later one would lower the peaks of the other.

    Examples
    --------
    >>> import torch
    >>> with measure_cost(torch.device("cpu")) as meter:
    ...     squares = torch.arange(10) ** 2
    >>> sorted(meter.cost(images=10))
    ['device', 'device_seconds', 'images_per_second', 'peak_memory_bytes', 'seconds']
    """
    meter = CostMeter(device)
    memory = PeakMemory(device)
    stopwatch = Stopwatch(device)
    try:
        yield meter
    finally:  # what was interrupted has its cost as well
        meter.seconds, meter.energy_joules = stopwatch.lap()
        meter.peaks = memory.read()


def add_costs(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cost of work done in several sessions.

    Times and energies are added, of peaks the higher one is taken, and the rest is as it is now. A
    sum of which an earlier session lacks its part is left out, rather than told too small.

    Parameters
    ----------
    earlier : mapping
        The cost so far; empty if there is none.
    now : mapping
        The cost of the latest session.
    """
    total = {**earlier, **now}
    if not earlier:
        return total
    for name in SUMS:
        if name in earlier and name in now:
            total[name] = earlier[name] + now[name]
        else:
            total.pop(name, None)
    for name in PEAKS:
        if name in total:
            total[name] = max(earlier.get(name, 0), now.get(name, 0))
    return total


def share_of(cost: Mapping[str, Any]) -> dict[str, float]:
    """Return times and energy of a cost, of which runs computed together have equal shares."""
    return {name: cost[name] / int(cost.get("shared_by", 1)) for name in SUMS if name in cost}


def total_of(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the costs of stores and runs, of which some may have been computed together.

    Returns
    -------
    dict
        As `CostMeter.cost` names them, times and energy as if all had run one after the other, and
        the highest peaks of memory; and the names of the ``devices``. The energy is None where
        nothing has measured any, and a part where only some have.
    """
    shares = [share_of(cost) for cost in costs]
    has_energy = any("energy_joules" in share for share in shares)
    return {
        **{name: sum(share.get(name, 0.0) for share in shares) for name in SUMS},
        **({} if has_energy else {"energy_joules": None}),
        **{name: max((cost.get(name, 0) for cost in costs), default=0) for name in PEAKS},
        "devices": sorted({str(cost["device"]) for cost in costs if "device" in cost}),
    }


# --- time and energy ----------------------------------------------------------------------------


class Stopwatch:
    """Counts seconds, and joules where NVML counts them, from lap to lap.

    Parameters
    ----------
    device : torch.device
    devices : int
        Number of devices held; if several GPUs, the first so many.
    """

    def __init__(self, device: torch.device, devices: int = 1) -> None:
        self._gpus = _gpus_of(device, devices)
        self._clock, self._joules = time.perf_counter(), self._energy()

    def lap(self) -> tuple[float, float | None]:
        """Return the seconds and joules since the last lap or, the first time, since the start."""
        clock, joules = time.perf_counter(), self._energy()
        seconds, used = clock - self._clock, None
        if joules is not None and self._joules is not None:
            used = joules - self._joules
        self._clock, self._joules = clock, joules
        return seconds, used

    def _energy(self) -> float | None:
        """Return what the GPUs have used since their driver was loaded, in joules."""
        with suppress(Exception):
            import pynvml

            read = pynvml.nvmlDeviceGetTotalEnergyConsumption  # in millijoules
            return sum(int(read(gpu)) for gpu in self._gpus) / 1000 if self._gpus else None
        return None


def _gpus_of(device: torch.device, devices: int) -> list[Any]:
    """Return NVML's handles of the GPUs held, or none if any of them is out of reach.

    What can fail depends on package, library, driver, GPU, partitioning and container, and no
    computation is worth less without its energy; hence every exception is let go.
    """
    if device.type != "cuda":
        return []
    with suppress(Exception):
        import pynvml
        import torch

        # Never shut down: as for torch's own use of it, the end of the process does that.
        pynvml.nvmlInit()
        # By UUID, since CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's.
        return [
            pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(held).uuid}")
            for held in ([device] if devices == 1 else range(devices))
        ]
    return []


# --- memory -------------------------------------------------------------------------------------


class PeakMemory:
    """The peaks of memory since this was made, or since a later one was made in this process.

    A process does many jobs, and the peak of its whole life would tell of the largest one alone.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: lower the peak to the present
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, int]:
        """Return ``peak_memory_bytes`` and, on CUDA, ``peak_device_memory_bytes``."""
        peaks = {"peak_memory_bytes": _peak_resident_bytes()}
        if self._device.type == "cuda":
            import torch

            peaks["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(self._device)
        return peaks


def _peak_resident_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
