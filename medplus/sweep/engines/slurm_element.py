"""What an element of a SLURM array does on its node."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Any

from medplus.errors import SweepError
from medplus.sweep.claims import Claims
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores


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
                    limit = SweepError(
                        "its time limit was over once more, and may not be extended again; give "
                        "it more --time"
                    )
                    Claims(Path(self._place.runs)).record(worker.job, limit)
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
