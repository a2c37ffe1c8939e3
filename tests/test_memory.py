"""Memory to spare is half of the least that machine, control groups and limits leave."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medplus import memory
from medplus.memory import release_pages

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes a file of a machine with 64 GB available and no limits."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )

    def write(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", f"MemTotal: 99000000 kB\nMemAvailable:   {64 * GB // 1024} kB\n")
    write("proc/self/status", "Name:\tpython\nVmSize:\t 3000000 kB\nVmData:\t 1000000 kB\n")
    write("proc/self/cgroup", "0::/\n")
    return write


def test_without_limits_it_is_half_of_what_the_machine_has_available(machine):
    assert memory.spare_memory() == pytest.approx(32 * GB, abs=1024)


def test_a_group_leaves_its_limit_less_what_it_uses_without_cached_files(machine):
    machine("proc/self/cgroup", "0::/slurm/job\n")
    machine("cgroup/slurm/job/memory.max", f"{8 * GB}\n")
    machine("cgroup/slurm/job/memory.current", f"{5 * GB}\n")
    machine(
        "cgroup/slurm/job/memory.stat",
        f"anon {2 * GB}\nactive_file {GB}\ninactive_file {2 * GB}\n",
    )
    assert memory.spare_memory() == 3 * GB  # (8 - 2) / 2


def test_a_group_without_a_limit_is_bound_by_the_one_above_it(machine):
    machine("proc/self/cgroup", "0::/slurm/job\n")
    machine("cgroup/slurm/job/memory.max", "max\n")
    machine("cgroup/slurm/job/memory.current", f"{GB}\n")
    machine("cgroup/slurm/memory.max", f"{4 * GB}\n")
    machine("cgroup/slurm/memory.current", f"{2 * GB}\n")
    assert memory.spare_memory() == GB


@pytest.mark.parametrize("place", ["", "docker/1a2b/"])
def test_groups_of_version_1_count_seen_from_the_host_or_from_within(place, machine):
    machine("proc/self/cgroup", "5:cpuset:/x\n4:cpu,memory:/docker/1a2b\n0::/\n")
    machine(f"cgroup/memory/{place}memory.limit_in_bytes", f"{6 * GB}\n")
    machine(f"cgroup/memory/{place}memory.usage_in_bytes", f"{5 * GB}\n")
    machine(
        f"cgroup/memory/{place}memory.stat",
        f"active_file 1\ntotal_active_file {GB}\ntotal_inactive_file {2 * GB}\n",
    )
    assert memory.spare_memory() == 2 * GB  # (6 - (5 - 3)) / 2


@pytest.mark.parametrize(
    ("limit", "used_kb"), [(resource.RLIMIT_AS, 3_000_000), (resource.RLIMIT_DATA, 1_000_000)]
)
def test_limits_of_the_process_count_less_what_it_has(limit, used_kb, machine, monkeypatch):
    unlimited = resource.RLIM_INFINITY
    allowed = {limit: 5 * GB}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (allowed.get(which, unlimited),) * 2)
    assert memory.spare_memory() == (5 * GB - used_kb * 1024) // 2


def test_nothing_is_to_spare_beyond_a_limit(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (GB, GB))
    assert memory.spare_memory() == 0


def test_a_process_under_a_real_limit_knows_it():
    code = (
        "import resource; from medplus.memory import spare_memory; free = spare_memory();"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "print(0 < spare_memory() < 1 << 29, spare_memory() <= free)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_pages_of_a_view_of_a_map_are_given_back(tmp_path):
    np.save(tmp_path / "large.npy", np.ones(1 << 24, np.uint8))
    view = np.asarray(np.load(tmp_path / "large.npy", mmap_mode="r"))[1:]  # as caches give them

    def mapped():
        [line] = [s for s in Path("/proc/self/status").read_text().splitlines() if "RssFile" in s]
        return int(line.split()[1]) * 1024

    view.sum()
    before = mapped()
    release_pages(view)
    assert before - mapped() > 1 << 23
    assert view.all()


def test_changes_that_are_private_are_not_given_back(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros(5000, np.uint8))
    copy = np.load(tmp_path / "small.npy", mmap_mode="c")
    copy[:] = 1
    release_pages(copy)
    assert copy.all()
