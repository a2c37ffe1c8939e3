"""What a computation costs: each block by itself, and nothing claimed that was not measured."""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medplus import cost as costs
from medplus.cost import CostMeter, PeakMemory, Stopwatch, add_costs, measure_cost, total_of
from medplus.device import describe_device

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
MB = 10**6
UUIDS = ["aaaa-0", "bbbb-1"]  # of torch's devices 0 and 1


def fill(n_bytes):
    """Allocate memory, touch every page of it, and free it again."""
    np.ones(n_bytes, np.uint8)


@pytest.fixture
def needs_proc():
    """Skip where the kernel does not let a process lower its peak; some only seem to."""

    def peak():
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

    try:
        fill(64 * MB)
        before = peak()
        Path("/proc/self/clear_refs").write_text("5")
        lowered = peak()
        fill(64 * MB)
        after = peak()
    except (OSError, TypeError):
        pytest.skip("this kernel tells no peak that a process can lower")
    if min(before, after) - lowered < 48 * MB:
        pytest.skip("this kernel does not let a process lower its peak")


# --- the block --------------------------------------------------------------------------------


def test_a_block_on_the_cpu_has_time_memory_and_the_devices_name():
    with measure_cost(CPU) as meter:
        time.sleep(0.05)
    cost = meter.cost()
    assert cost.keys() == {"seconds", "device_seconds", "device", "peak_memory_bytes"}
    assert 0.05 <= cost["seconds"] < 5
    assert cost["device_seconds"] == cost["seconds"] == meter.seconds
    assert cost["device"] == describe_device(CPU)


def test_the_cost_does_not_grow_after_the_block():
    with measure_cost(CPU) as meter:
        pass
    first = meter.cost()
    fill(50 * MB)
    assert meter.cost() == first


def test_every_device_held_counts():
    cost = CostMeter(CPU, 4, 2.5, None, {"peak_memory_bytes": 7}).cost(images=10)
    assert (cost["seconds"], cost["device_seconds"]) == (2.5, 10.0)
    assert cost["images_per_second"] == 4.0
    assert cost["peak_memory_bytes"] == 7
    assert "energy_joules" not in cost


def test_an_error_in_the_block_is_not_swallowed():
    with pytest.raises(RuntimeError, match="broke"), measure_cost(CPU):
        raise RuntimeError("broke")


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_proc")
def test_memory_that_is_freed_within_the_block_counts():
    with measure_cost(CPU) as small:
        pass
    with measure_cost(CPU) as large:
        fill(200 * MB)
    grown = large.peaks["peak_memory_bytes"] - small.peaks["peak_memory_bytes"]
    assert grown == pytest.approx(200 * MB, rel=0.1)


@pytest.mark.usefixtures("needs_proc")
def test_a_block_does_not_remember_the_peak_of_the_one_before():
    with measure_cost(CPU) as first:
        fill(200 * MB)
    with measure_cost(CPU) as second:
        pass
    assert second.peaks["peak_memory_bytes"] < first.peaks["peak_memory_bytes"] - 150 * MB


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_peak_is_that_of_the_whole_process(monkeypatch, platform, unit):
    class Nowhere(type(Path())):
        def read_text(self, *arguments):
            raise FileNotFoundError(self)

        write_text = read_text

    monkeypatch.setattr(costs, "Path", Nowhere)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3000))
    assert PeakMemory(CPU).read() == {"peak_memory_bytes": 3000 * unit}


# --- a GPU that is not there ------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """Two GPUs as torch tells of them; returns the names of the functions that were called."""
    called = []

    def properties(device):
        number = device if isinstance(device, int) else device.index or 0
        return SimpleNamespace(uuid=UUIDS[number])

    def reset(device):
        called.append("reset")

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * MB)
    return called


class Nvml(ModuleType):
    """NVML's module with two GPUs that use 1.5 J and 20 J between two readings.

    Its GPUs are numbered otherwise than torch's; `broken` names the function that fails.
    """

    def __init__(self, broken=None):
        super().__init__("pynvml")
        self._used = {"GPU-bbbb-1": 7_000_000, "GPU-aaaa-0": 100}
        self._broken = broken

    def __getattr__(self, name):
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments):
            if name == self._broken:
                raise RuntimeError("NVML: Not Supported")
            return self._answer(name, *arguments)

        return call

    def _answer(self, name, handle=None):
        if name == "nvmlDeviceGetHandleByUUID":
            assert handle in self._used
            return handle
        if name == "nvmlDeviceGetTotalEnergyConsumption":
            used = self._used[handle]
            self._used[handle] += {"GPU-aaaa-0": 1500, "GPU-bbbb-1": 20_000}[handle]
            return used
        assert name == "nvmlInit"
        return None


@pytest.fixture
def install(monkeypatch):
    """Put a module, or None for none, in the place of pynvml."""
    return lambda module: monkeypatch.setitem(sys.modules, "pynvml", module)


def test_a_gpu_tells_its_name_and_its_memory(gpu, install):
    install(None)
    with measure_cost(CUDA) as meter:
        assert gpu == ["reset"]
    cost = meter.cost()
    assert cost["device"] == "NVIDIA H100"
    assert cost["peak_device_memory_bytes"] == 5 * MB
    assert cost["peak_memory_bytes"] > 5 * MB


@pytest.mark.parametrize(
    ("device", "devices", "joules"),
    [(CUDA, 1, 1.5), (torch.device("cuda:1"), 1, 20.0), (CUDA, 2, 21.5)],
)
def test_energy_is_that_of_the_gpus_held_found_by_uuid(gpu, install, device, devices, joules):
    install(Nvml())
    assert Stopwatch(device, devices).lap()[1] == pytest.approx(joules)


@pytest.mark.parametrize(
    "broken",
    ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption"],
)
def test_energy_is_left_out_where_nvml_fails(gpu, install, broken):
    install(Nvml(broken))
    with measure_cost(CUDA) as meter:
        pass
    assert "energy_joules" not in meter.cost()
    assert meter.cost()["seconds"] > 0


def test_energy_is_left_out_without_the_package(gpu, install):
    install(None)
    with measure_cost(CUDA) as meter:
        pass
    assert "energy_joules" not in meter.cost()


def test_energy_is_left_out_where_the_counter_stops_within_the_block(gpu, install):
    nvml = Nvml()
    install(nvml)
    with measure_cost(CUDA) as meter:
        nvml._broken = "nvmlDeviceGetTotalEnergyConsumption"
    assert "energy_joules" not in meter.cost()


def test_laps_add_up(gpu, install):
    install(Nvml())
    stopwatch = Stopwatch(CUDA)
    start = time.perf_counter()
    laps = []
    for pause in (0.02, 0.01):
        time.sleep(pause)
        laps.append(stopwatch.lap())
    elapsed = time.perf_counter() - start
    assert laps[0][0] >= 0.02
    assert laps[1][0] >= 0.01
    assert sum(seconds for seconds, _ in laps) <= elapsed + 0.01  # what making it took
    assert [joules for _, joules in laps] == pytest.approx([1.5, 1.5])


@pytest.mark.gpu
def test_a_real_gpu_tells_its_memory_and_uses_energy():
    device = torch.device("cuda")
    with measure_cost(device) as small:
        pass
    with measure_cost(device) as large:
        held = torch.ones(4096, 4096, device=device)
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            (held @ held).sum().item()
    name = "peak_device_memory_bytes"
    assert large.cost()[name] - small.cost()[name] >= 2 * held.nbytes
    assert large.cost().get("energy_joules", 1.0) > 0


# --- several sessions -------------------------------------------------------------------------

FIRST = {
    "seconds": 2.0, "device_seconds": 4.0, "device": "old", "energy_joules": 10.0,
    "peak_memory_bytes": 900, "peak_device_memory_bytes": 50, "images_per_second": 1.0,
}  # fmt: skip
SECOND = {
    "seconds": 1.0, "device_seconds": 1.0, "device": "new", "energy_joules": 5.0,
    "peak_memory_bytes": 700, "peak_device_memory_bytes": 80, "images_per_second": 3.0,
}  # fmt: skip


def without(cost, *names):
    return {name: value for name, value in cost.items() if name not in names}


def test_times_and_energies_add_up_and_the_higher_peak_counts():
    assert add_costs(FIRST, SECOND) == {
        "seconds": 3.0, "device_seconds": 5.0, "device": "new", "energy_joules": 15.0,
        "peak_memory_bytes": 900, "peak_device_memory_bytes": 80, "images_per_second": 3.0,
    }  # fmt: skip


def test_the_first_session_is_its_own_cost():
    assert add_costs({}, SECOND) == SECOND


@pytest.mark.parametrize(
    ("earlier", "now"),
    [(without(FIRST, "energy_joules"), SECOND), (FIRST, without(SECOND, "energy_joules"))],
)
def test_a_sum_that_lacks_a_part_is_left_out(earlier, now):
    total = add_costs(earlier, now)
    assert "energy_joules" not in total
    assert total["seconds"] == 3.0


def test_the_rate_is_the_latest_there_is():
    assert add_costs(FIRST, without(SECOND, "images_per_second"))["images_per_second"] == 1.0


# --- of several ---------------------------------------------------------------------------------


def test_costs_are_added_and_the_highest_peaks_count():
    totals = total_of(
        [
            {"seconds": 2.0, "device": "CPU", "device_seconds": 3.0, "energy_joules": 5.0,
             "peak_memory_bytes": 70},
            {"seconds": 4.0, "device": "GPU", "device_seconds": 8.0, "peak_memory_bytes": 60,
             "peak_device_memory_bytes": 90},
            {"seconds": 1.0, "device": "GPU", "device_seconds": 1.5, "energy_joules": 2.0,
             "peak_memory_bytes": 50},
        ]
    )  # fmt: skip
    assert totals == {
        "seconds": 7.0, "device_seconds": 12.5, "energy_joules": 7.0, "peak_memory_bytes": 70,
        "peak_device_memory_bytes": 90, "devices": ["CPU", "GPU"],
    }  # fmt: skip


def test_energy_that_nobody_measured_is_not_zero():
    assert total_of([{"seconds": 1.0}])["energy_joules"] is None
    assert total_of([{"seconds": 1.0, "energy_joules": 0.0}])["energy_joules"] == 0.0


GROUPS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5)),
    max_size=6,
)


@given(groups=GROUPS)
def test_runs_that_were_computed_together_cost_together_what_one_computation_did(groups):
    """Oracle: the sum over computations, not over runs."""
    shared = [
        {"seconds": s, "device_seconds": d, "energy_joules": e, "shared_by": n}
        for n, s, d, e in groups
        for _ in range(n)
    ]
    totals = total_of(shared)
    assert totals["seconds"] == pytest.approx(sum(s for _, s, _, _ in groups))
    assert totals["device_seconds"] == pytest.approx(sum(d for _, _, d, _ in groups))
    assert (totals["energy_joules"] or 0) == pytest.approx(sum(e for _, _, _, e in groups))
