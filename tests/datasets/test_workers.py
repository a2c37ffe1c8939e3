"""Worker processes that die: the results are all there, and in order."""

from __future__ import annotations

import os
import signal
from functools import partial

from medplus.datasets.workers import in_workers


def doubled(parent: int, task: int) -> int:
    if task == 100 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * task


def test_what_a_killed_worker_leaves_is_done_by_the_caller(caplog):
    results = list(in_workers(partial(doubled, os.getpid()), range(300), 2))
    assert results == list(range(0, 600, 2))
    assert "has died" in caplog.text
