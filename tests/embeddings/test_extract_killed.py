"""Killed or interrupted extractions end as if they had not been; their memory is bounded."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import sys
import time
from pathlib import Path

import pytest

from medplus.cli.main import main
from tests.embeddings.extractions import (
    NETWORK,
    chunk_files,
    leftovers,
    run,
)

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


@pytest.fixture(scope="module")
def many(write_npz):
    """2,100 + 3 + 2 images of 16 px: 3 + 1 + 1 chunks."""
    return write_npz("many", n=(2100, 3, 2), size=16, classes=3)


def command(npz, root, backbone):
    return (
        "extract", "--dataset", npz, "--backbone", backbone, "--weights", "none", "--fit",
        "native", "--precision", "fp32", "--batch-size", 16, "--store", root, "-q",
    )  # fmt: skip


def n_committed(root):
    return len(list(root.glob("*/*/[!.]*.zarr/*/embeddings/c/*/0")))


@linux
@pytest.mark.parametrize("backbone", ["pixels", pytest.param(NETWORK, marks=pytest.mark.extensive)])
def test_the_same_command_completes_a_store_after_kill_9_at_any_moment(
    backbone, start, many, new_folder
):
    reference = new_folder()
    begin = time.monotonic()
    whole = start(*command(many, reference, backbone))
    whole.join()
    duration = time.monotonic() - begin
    assert whole.exitcode == 0
    [path] = reference.glob("*/*/*.zarr")
    expected = chunk_files(path)
    moments = random.Random(0)
    kept = []
    for i in range(9):
        root = new_folder()
        killed = start(*command(many, root, backbone))
        if i == 8:  # once for certain after something was committed
            while n_committed(root) == 0 and killed.is_alive():
                time.sleep(0.001)
        else:
            time.sleep(0.001 if i == 0 else duration * (i + moments.random() - 0.5) / 8)
        killed.kill()
        killed.join()
        kept.append(n_committed(root))
        [found] = run(many, root, [backbone], fit="native", precision="fp32", batch_size=16)
        assert found.chunks_reused == kept[-1]
        assert found.chunks_computed == 5 - kept[-1]
        assert chunk_files(found.store.path) == expected
        assert found.store.verify() == []
        assert leftovers(root) == []
    assert kept[-1] > 0


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
