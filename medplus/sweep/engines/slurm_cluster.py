"""SLURM: what an element of an array does, what has become of it, and how to end it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

from medplus.sweep.claims import Claims
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

Submission: TypeAlias = "submitit.Job[None]"
"""An element of an array, as submitit knows it."""

_COMMAND_S = 60.0
_OUT_OF_MEMORY = ("exceeded job memory limit", "oom_kill event", "oom-kill event")

ENDINGS = {
    "CANCELLED": "its SLURM job was cancelled, by a user or an administrator",
    "COMPLETED": "its process ended by itself before it was done",
    "FAILED": "its process died",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": (
        "SLURM killed its process, which needed more memory than it was given; ask for more "
        "memory, or use a smaller batch_size in the grid"
    ),
    "PREEMPTED": "SLURM gave its node to another job",
    "TIMEOUT": "its time limit was over before it could save; give it more time",
    "GONE": "SLURM no longer knows its job",
    **dict.fromkeys(("BOOT_FAIL", "DEADLINE", "REVOKED"), "SLURM ended its job"),
}
"""The states in which an element is no more, in words; in all others it runs, or will. GONE is
ours, for what SLURM no longer knows."""


class SlurmCluster:
    """One array, as squeue tells of it, which knows elements until some minutes after their end.

    Parameters
    ----------
    elements : sequence of submitit.Job
    """

    def __init__(self, elements: Sequence[Submission]) -> None:
        self._elements = elements
        self._array = elements[0].job_id.partition("_")[0]

    def states(self) -> dict[str, str]:
        """Return the elements' states by their ids; of what cannot be learnt now, none."""
        answer = _call(
            "squeue", "--noheader", "--array", "--states=all", "--format=%i|%T",
            f"--jobs={self._array}",
        )  # fmt: skip
        if answer.returncode and "Invalid job id" not in answer.stderr:
            log.debug("squeue: %s", answer.stderr.strip())  # the controller is busy, or restarts
            return {}
        known = read_states(answer.stdout)
        return {e.job_id: known.get(e.job_id, "GONE") for e in self._elements}

    def interrupt(self, running: bool = True) -> None:
        """Take waiting elements out of the queue, and send `running` ones SIGTERM."""
        _call("scancel", "--state=PENDING", self._array)
        if running:
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


def tells_of_memory(path: Path) -> bool:
    """Tell whether SLURM says that memory ran out: without cgroups, its state does not."""
    try:
        text = path.read_text(errors="replace").lower()
    except OSError:
        return False
    return any(words in text for words in _OUT_OF_MEMORY)


class Element:
    """The callable that is sent to SLURM: a worker.

    It may be run any number of times. Of SLURM's signals, submitit's (USR2, some time before the
    end) interrupts the work, lets it save, and then puts the element back into the queue; SIGTERM
    interrupts alone, since who sends it (a user, or SLURM that takes the node away) has decided
    what comes next.
    """

    def __init__(self, grid: Grid, place: Place) -> None:
        self._grid, self._place = grid, place

    def __call__(self) -> None:
        """Work until there is nothing that could be begun."""
        from submitit import JobEnvironment
        from submitit.core.utils import UncompletedJobError

        from medplus.sweep.worker import Worker

        environment = JobEnvironment()
        threads = os.environ.get("SLURM_CPUS_ON_NODE", str(cores()))
        os.environ.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        interruption = _Interruption(getattr(signal, f"SIG{environment.USR_SIG}"))
        name = f"{environment.job_id} on {socket.gethostname()}"
        worker = Worker(self._grid, self._place, name, wait=False)
        try:
            worker.run()
        except KeyboardInterrupt:
            interruption.ignore_more()
            try:
                interruption.requeue()
            except UncompletedJobError:
                if worker.job is not None:
                    Claims(Path(self._place.runs)).record_end(
                        worker.job,
                        "its time limit was over once more, and may not be extended again; give "
                        "it more time, or more requeues",
                    )
        interruption.ignore_more()

    def checkpoint(self) -> Any:
        """Return what is to run when the element's turn comes again; submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Interruption:
    """Turns SLURM's signals into the interrupt that fine-tuning grants between two steps."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_notice = False
        self._submitit_handler: Any = signal.getsignal(number)
        self._pid = os.getpid()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(number, self._give_notice)

    def _give_notice(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:  # SLURM signals a process's children, too
            self._is_notice = True
            signal.raise_signal(signal.SIGTERM)

    def requeue(self) -> None:
        """Let submitit put the element back into the queue, where its time is over."""
        if self._is_notice:
            self._submitit_handler(self._number, None)

    def ignore_more(self) -> None:
        """Be deaf from now on: the work has ended, and a requeued job is sent SIGTERM at once."""
        for number in (signal.SIGTERM, signal.SIGINT, self._number):
            signal.signal(number, signal.SIG_IGN)
