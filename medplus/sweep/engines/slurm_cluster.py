"""SLURM's own commands: what has become of an array's elements, and how to end them."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

Submission: TypeAlias = "submitit.Job[None]"
"""An element of an array, as submitit knows it."""

GONE = "GONE"
"""The state of an element that SLURM does not know, or no longer."""
_COMMAND_S = 60.0

ENDINGS = {
    "BOOT_FAIL": "its node could not be started (BOOT_FAIL)",
    "CANCELLED": "its SLURM job was cancelled, by a user or an administrator (CANCELLED)",
    "COMPLETED": "its process ended by itself before it was done (COMPLETED)",
    "DEADLINE": "its SLURM job came to its deadline (DEADLINE)",
    "FAILED": "its process died (FAILED)",
    "NODE_FAIL": "its node failed (NODE_FAIL)",
    "OUT_OF_MEMORY": (
        "SLURM killed its process, which needed more memory than it was given (OUT_OF_MEMORY); ask "
        "for more memory, or use a smaller batch_size in the grid"
    ),
    "PREEMPTED": "SLURM gave its node to another job (PREEMPTED)",
    "REVOKED": "its SLURM job was taken back (REVOKED)",
    "TIMEOUT": (
        "its time limit was over before it could save (TIMEOUT); give it more time, or an earlier "
        "notice"
    ),
    GONE: "SLURM no longer knows its job, and it has not said that it was done",
}
"""The states in which an element is no more, in words; in all others it runs, or will."""


class Cluster(Protocol):
    """What an engine asks of a cluster, for one array."""

    def states(self) -> dict[str, str]:
        """Return the elements' states by their ids; of what cannot be learnt now, none."""
        ...

    def interrupt(self) -> None:
        """Take waiting elements out of the queue, and send running ones SIGTERM."""
        ...

    def cancel(self) -> None:
        """End all elements."""
        ...


class SlurmCluster:
    """One array, as squeue and sacct tell of it.

    `squeue` knows elements until some minutes after their end, `sacct` for ever, but not every
    cluster has it.

    Parameters
    ----------
    elements : sequence of submitit.Job
    """

    def __init__(self, elements: Sequence[Submission]) -> None:
        self._elements = elements
        self._array = elements[0].job_id.partition("_")[0]

    def states(self) -> dict[str, str]:
        """Return the elements' states; see `Cluster.states`."""
        answer = _call(
            "squeue", "--noheader", "--array", "--states=all", "--format=%i|%T",
            f"--jobs={self._array}",
        )  # fmt: skip
        if answer.returncode and "Invalid job id" not in answer.stderr:
            log.debug("squeue: %s", answer.stderr.strip())  # the controller is busy, or restarts
            return {}
        known = read_states(answer.stdout)
        ids = [element.job_id for element in self._elements]
        if not all(name in known for name in ids):
            known = self._accounted() | known
        return {name: known.get(name, GONE) for name in ids}

    def _accounted(self) -> dict[str, str]:
        """Return what sacct knows of the elements, as submitit reads it."""
        watcher = self._elements[0].watcher
        watcher.update()
        infos = {e.job_id: watcher.get_info(e.job_id, mode="cache") for e in self._elements}
        return {name: _word(info["State"]) for name, info in infos.items() if info.get("State")}

    def interrupt(self) -> None:
        """Interrupt the elements; see `Cluster.interrupt`."""
        _call("scancel", "--state=PENDING", self._array)
        _call("scancel", "--signal=TERM", self._array)

    def cancel(self) -> None:
        """End all elements."""
        _call("scancel", "--quiet", self._array)


def read_states(text: str) -> dict[str, str]:
    """Return the states in lines of `id|STATE`."""
    pairs = (line.strip().split("|") for line in text.splitlines() if "|" in line)
    return {name: _word(state) for name, state in pairs}


def _word(state: str) -> str:
    """Return a state without who has brought it about, as in `CANCELLED by 1000`."""
    return state.split(maxsplit=1)[0].rstrip("+")


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - our own words and job ids, and no shell
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
