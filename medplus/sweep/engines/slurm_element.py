"""What an element of a SLURM array does on its node."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.errors import SweepError
from medplus.sweep.claims import Claimant, Claims
from medplus.sweep.engines import prepare
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores


@dataclass
class Element:
    """The callable that is sent to SLURM: a worker, which may be run any number of times.

    Of SLURM's signals, submitit's (USR2, some time before the end) interrupts the work, lets it
    save, and then puts the element back into the queue; SIGTERM interrupts alone, since who sends
    it (a user, or SLURM that takes the node away) has decided what comes next.
    """

    grid: Grid
    place: Place

    def __call__(self) -> None:
        """Work until there is nothing that could be begun."""
        from submitit import JobEnvironment
        from submitit.core.utils import UncompletedJobError

        from medplus.sweep.worker import Worker

        environment, here = JobEnvironment(), os.getpid()
        number = getattr(signal, f"SIG{environment.USR_SIG}")
        requeue: Any = signal.getsignal(number)
        noticed: list[int] = []

        def notice(*_: object) -> None:
            if os.getpid() == here:  # SLURM signals a process's children, too
                noticed.append(number)
                signal.raise_signal(signal.SIGTERM)  # which fine-tuning grants between two steps

        prepare(int(os.environ.get("SLURM_CPUS_ON_NODE", cores())))
        signal.signal(number, notice)
        name = f"{environment.job_id} on {socket.gethostname()}"
        worker = Worker(self.grid, self.place, name, wait=False)
        try:
            worker.run()
        except KeyboardInterrupt:
            _ignore(number)
            try:
                if noticed:
                    requeue(number, None)
            except UncompletedJobError:
                limit = SweepError(
                    "its time limit was over once more, and may not be extended again; give it "
                    "more --time"
                )
                with Claimant(Claims(Path(self.place.runs)), name) as me:
                    if worker.job is not None and me.claim(worker.job):
                        me.fail(limit)
        _ignore(number)

    def checkpoint(self) -> Any:
        """Return what is to run when the element's turn comes again; submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _ignore(notice: int) -> None:
    """Be deaf from now on: the work has ended, and a requeued job is sent SIGTERM at once."""
    for number in (signal.SIGTERM, signal.SIGINT, notice):
        signal.signal(number, signal.SIG_IGN)
