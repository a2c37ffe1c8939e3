"""How compute threads wait for one another on a machine that is busy with other things."""

from __future__ import annotations

import os
import time
from pathlib import Path

_SAMPLES = 3
_PAUSE_S = 0.002


def share_busy_machine() -> None:
    """Let OpenMP threads sleep instead of spin while they wait, if other processes are running.

    Spinning is faster on an idle machine; with one core taken by someone else it has cost a factor
    of ten, since the thread that everyone waits for is not the one that runs. It must be decided
    before torch is imported. A choice in the environment stands.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    if _others_running():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _others_running() -> bool:
    """Tell whether other processes kept running over a few looks at the kernel's run queue."""
    for look in range(_SAMPLES):
        if look:
            time.sleep(_PAUSE_S)
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False  # not Linux
        if running <= 1:  # this process alone
            return False
    return True
