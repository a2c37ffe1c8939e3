"""Disks that are full, read-only or broken: said in one sentence, and what was done is kept.

Tests often run as root, whom no permission hinders. So the calls themselves fail in the child, each
in turn, and where it is allowed a small real disk is filled.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.trials import Trials
from tests.faults.warm import Warm
from tests.faults.world import COMMANDS, leftovers, make_world, results, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
FAULTS = {
    "full": (errno.ENOSPC, True),
    "read-only": (errno.EROFS, True),
    "bad block": (errno.EIO, False),
}
MANY = 60


@pytest.mark.parametrize(
    ("command", "fault", "n"),
    [
        ("extract", "full", 2),
        ("probe", "bad block", 2),
        *(
            pytest.param(command, fault, MANY, marks=pytest.mark.extensive)
            for command in COMMANDS
            for fault in FAULTS
        ),
    ],
)
def test_a_call_that_fails_is_said_and_the_same_command_goes_on(
    command: str, fault: str, n: int, warm: Warm, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    trials = Trials(warm, command, tmp_path, seed=0)

    trials.fail(n, *FAULTS[fault])

    counts = trials.counts
    tell(
        f"{command}, disk {fault}: {counts.trials} failing calls, "
        f"{counts.moments['tolerated']} tolerated, the others said; all went on, all equal"
    )
    assert counts.trials >= n


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a disk of so many KiB, or gives it other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        again = ["remount,"] if os.path.ismount(place) else [""]
        command = ["mount", "-t", "tmpfs", "-o", f"{again[0]}{options}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a disk here")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


@pytest.mark.parametrize("step", [200, pytest.param(24, marks=pytest.mark.extensive)])
def test_a_disk_too_small_by_any_amount_is_said_and_with_more_room_it_goes_on(
    step: int, small_disk: Callable[..., Path], warm: Warm, tmp_path: Path,
    tell: Callable[[object], None],
) -> None:  # fmt: skip
    origin, whole = tmp_path / "origin", tmp_path / "whole"
    make_world(origin)
    shutil.copytree(origin, whole)
    assert warm(*COMMANDS["extract"], folder=whole).code == 0
    expected = results(whole)

    size, full = 0, 0
    while True:
        disk = small_disk("size=100m,mode=755")
        folder = Path(shutil.copytree(origin, disk / "world"))
        size += step
        used = sum(-(-p.stat().st_size // 4096) * 4 + 4 for p in folder.rglob("*"))
        small_disk(f"size={used + size}k")
        ended = warm(*COMMANDS["extract"], folder=folder)
        assert ended.code in (0, 1) and "Traceback" not in ended.said, ended.said
        assert "a bug" not in ended.said, ended.said
        if ended.code:
            full += 1
            assert "No space left on device" in ended.said, ended.said
            assert leftovers(folder) == []
            small_disk("size=100m")
            again = warm(*COMMANDS["extract"], folder=folder)
            assert again.code == 0, again.said
        found = results(folder)
        assert same(found, expected, 1e-5)
        shutil.rmtree(folder)
        if ended.code == 0:
            break

    tell(f"extract on a disk too small: {full} sizes, each said; with room all went on")
    assert full


@pytest.mark.parametrize(
    "command",
    [
        "extract",
        *(pytest.param(c, marks=pytest.mark.extensive) for c in COMMANDS if c != "extract"),
    ],
)
def test_a_read_only_disk_is_said_and_unchanged(
    command: str, small_disk: Callable[..., Path], warm: Warm, tell: Callable[[object], None]
) -> None:
    folder = small_disk("size=100m") / "world"
    make_world(folder)
    assert warm(*COMMANDS["extract"], folder=folder).code == 0
    words = COMMANDS[command] if command != "extract" else (*COMMANDS["extract"], "--store", "new")
    before = results(folder)
    small_disk("ro")

    ended = warm(*words, folder=folder)

    small_disk("rw")
    assert ended.code == 1, ended.said
    assert "Read-only file system" in ended.said
    assert "Traceback" not in ended.said and "a bug" not in ended.said
    assert results(folder) == before
    tell(f"{command} on a read-only disk: said, nothing changed")
