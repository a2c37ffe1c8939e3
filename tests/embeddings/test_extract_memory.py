"""Killed or interrupted extractions end as if they had not been; their memory is bounded."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from pathlib import Path

import pytest

from medplus.cli.main import main

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")


@pytest.fixture(scope="module")
def start():
    """Return a function that starts a `medplus` command in a process of its own.

    The processes are forked from a server that has imported everything, so that they are at work
    within milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medplus.cli.extract", "medplus.embeddings.extract", "timm"])
    started = []

    def start_command(*words):
        process = context.Process(target=main, args=([str(word) for word in words],))
        process.start()
        started.append(process)
        return process

    start_command("--version").join()  # the server is up, so that durations mean something
    yield start_command
    for process in started:
        process.kill()
        process.join()


def private_peak(process):
    """Return the most memory of its own that a process had, in bytes, sampled until it ends."""
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.is_alive():
        # The process may end between the question above and the reading of its file.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.002)
    return peak


@linux
def test_memory_does_not_grow_with_the_number_of_images(start, write_npz, new_folder):
    peaks = []
    for n in (10_000, 40_000):
        npz = write_npz(n=(n, 2, 2), size=28)
        process = start(
            "extract", "--dataset", npz, "--backbone", "pixels", "--store", new_folder(), "-q"
        )
        peaks.append(private_peak(process))
        assert process.exitcode == 0
    # 30,000 more images are 24 MB, and their embeddings 94 MB.
    assert peaks[1] - peaks[0] < 25e6
