"""The SLURM engine: workers as the elements of a job array, submitted by submitit."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.device import cores
from medplus.errors import SweepError, UsageError, explained, optional
from medplus.sweep.claims import Claimant, Claims
from medplus.sweep.engines import LOOK_S, PATIENCE_S, Death, Engine, worker_here
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

log = logging.getLogger(__name__)

FOLDER = "slurm"
_MOST = 1000
"""MaxArraySize of a cluster is 1001 by default."""
_NOTICE = "slurm_signal_delay_s"
_DEFAULTS: dict[str, Any] = {"name": "medplus", "timeout_min": 240, _NOTICE: 90}
"""submitit's: the minutes that an element has, and the seconds before their end when it saves."""
_ASK_S = 5.0
"""Between two questions to SLURM: a controller has other users, too."""
_GONE = "GONE"
"""The state of an element that SLURM does not know, or no longer."""
_ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT", _GONE,
)  # fmt: skip
_REMEDIES = {
    "FAILED": "; its log may tell why",
    "OUT_OF_MEMORY": "; ask for more --memory, or use a smaller batch_size in the grid",
    "TIMEOUT": " before it could save; give it more --time",
}
_MEMORY_WORDS = ("exceeded job memory limit", "oom_kill event", "oom-kill event")


class SlurmEngine(Engine):
    """Submits workers as a job array.

    Parameters
    ----------
    workers : int, optional
        How many elements the array has; by default one for every job, but at most 1000, of which
        as many run as there is room for.
    detach : bool
        Submit, log the array's id, and follow nothing.
    requeues : int
        How often an element whose time is over goes back into the queue; 0 forbids SLURM to
        requeue it at all. An element that SLURM takes off its node goes back any number of times.
    extras : mapping of str to str, optional
        Any other options of sbatch by their long names, for example ``{"qos": "long"}``.
    **parameters
        As submitit has them: ``timeout_min``, ``cpus_per_task``, ``mem_gb``, ``slurm_partition`` ….

    Attributes
    ----------
    array : str
        SLURM's id of the array that was submitted last.
    """

    def __init__(
        self, workers: int | None = None, detach: bool = False, *, requeues: int = 10,
        extras: Mapping[str, str] | None = None, executor: str = "slurm",
        **parameters: Any,
    ) -> None:  # fmt: skip
        super().__init__(workers or _MOST)
        self.detached, self.array = detach, ""
        self._executor, self._requeues = executor, requeues
        more = {"requeue" if requeues else "no-requeue": True, **(extras or {})}
        self._parameters = _DEFAULTS | parameters | {"slurm_additional_parameters": more}
        minutes, notice_s = (self._parameters[name] for name in ("timeout_min", _NOTICE))
        if minutes * 60 <= notice_s:
            raise UsageError(f"--time {minutes} must be longer than its notice, {notice_s} s")
        if cores := parameters.get("cpus_per_task"):
            # Since SLURM 22.05, srun does not take them over from sbatch.
            self._parameters["slurm_srun_args"] = [f"--cpus-per-task={cores}"]
        self.living: dict[str, Path] = {}  # the files of their errors
        self._ended: dict[str, str] = {}  # by one answer: the second is believed
        self._cancelled = ""

    def start(self, grid: Grid, place: Place, most: int) -> None:
        """Submit an array of those workers that are missing, so that `most` work at most."""
        missing = min(self.workers, most) - len(self.living)
        if missing <= 0:
            return  # what the dead one did last is there, and the others are enough
        # SLURM's ids begin anew with a new cluster.
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = Claims(Path(place.runs)).folder / FOLDER / name
        elements = self.submit([Element(grid, place)] * missing, folder)
        self.array = elements[0].job_id.partition("_")[0]
        log.info("SLURM array job %s: %d workers; %s", self.array, missing, folder)
        self.living |= {each.job_id: each.paths.stderr for each in elements}

    def submit(self, elements: Sequence[Element], folder: Path) -> Any:
        """Submit an array whose files lie in a folder, and return submitit's jobs."""
        submitit = optional("submitit", "the engine slurm", kind=SweepError)
        if self._executor == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise SweepError(
                "there is no sbatch on this machine; start the sweep on a login node of the "
                "cluster, or choose --engine local or ray"
            )
        # submitit prints what it logs; that sacct does not answer is no news on many clusters.
        logging.getLogger("submitit").setLevel(logging.CRITICAL)
        try:
            with explained(SweepError, f"{folder} cannot be written"):
                folder.mkdir(parents=True)
                executor = submitit.AutoExecutor(
                    folder, self._executor, slurm_max_num_timeout=self._requeues
                )
                executor.update_parameters(**self._parameters, slurm_array_parallelism=_MOST)
                return executor.submit_array(elements)
        except submitit.core.utils.FailedJobError as error:
            lines = [line.strip().removeprefix("sbatch: ") for line in str(error).splitlines()]
            said = "; ".join(line.removeprefix("error: ") for line in lines if line)
            raise SweepError(f"SLURM refused the array: {said}") from None

    def look(self) -> Iterator[Death]:
        """Wait some seconds, and yield who has died."""
        time.sleep(_ASK_S)
        states = self.states()
        seen, self._ended = self._ended, {n: s for n, s in states.items() if s in _ENDED}
        for name in self._ended.keys() & seen:
            errors, state = self.living.pop(name), seen[name]  # SLURM forgets what has ended
            if state == "COMPLETED":  # it found nothing to do; those that wait would not either
                self.interrupt("--state=PENDING")
                self.living = {n: e for n, e in self.living.items() if states[n] != "PENDING"}
            elif state == "CANCELLED":
                self._cancelled = name
            else:
                yield Death(name, _cause(state, errors))
        if self._cancelled and not self.living:
            raise SweepError(f"the SLURM job {self._cancelled} was cancelled; sweep again to go on")

    def states(self) -> dict[str, str]:
        """Return the elements' states by their ids; of what cannot be learnt now, none."""
        arrays = ",".join({name.partition("_")[0] for name in self.living})
        answer = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T",
                      f"--jobs={arrays}")  # fmt: skip
        if answer.returncode and "Invalid job id" not in answer.stderr:
            log.debug("squeue: %s", answer.stderr.strip())  # the controller is busy, or restarts
            return {}
        pairs = (line.strip().partition("|") for line in answer.stdout.splitlines())
        known = {name: state for name, _, state in pairs}
        return {name: known.get(name, _GONE) for name in self.living}

    def interrupt(self, how: str) -> None:
        """Take waiting elements out of the queue, or send a signal to all."""
        call("scancel", how, *{name.partition("_")[0] for name in self.living})

    def stop(self) -> None:
        """Interrupt the workers that are left, wait until they have saved, and kill the rest."""
        if self.detached or not self.living:
            return
        try:
            self.interrupt("--state=PENDING")
            self.interrupt("--signal=TERM")
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and "RUNNING" in self.states().values():
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            pass  # whoever asks twice does not want to wait
        finally:
            self.interrupt("--quiet")


def _cause(state: str, errors: Path) -> str:
    """Say what an element died of; without cgroups only its errors tell that memory ran out."""
    with suppress(OSError):
        text = errors.read_text(errors="replace").lower()
        state = "OUT_OF_MEMORY" if any(words in text for words in _MEMORY_WORDS) else state
    return f"SLURM ended its process ({state}){_REMEDIES.get(state, '')} (see {errors})"


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands, which may fail."""
    try:
        return subprocess.run(  # noqa: S603 - our own words and job ids, and no shell
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


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

        environment, here = JobEnvironment(), os.getpid()
        number = getattr(signal, f"SIG{environment.USR_SIG}")
        requeue: Any = signal.getsignal(number)
        noticed: list[int] = []

        def notice(*_: object) -> None:
            if os.getpid() == here:  # SLURM signals a process's children, too
                noticed.append(number)
                signal.raise_signal(signal.SIGTERM)  # which fine-tuning grants between two steps

        threads = int(os.environ.get("SLURM_CPUS_ON_NODE", cores()))
        worker = worker_here(self.grid, self.place, environment.job_id, threads, wait=False)
        signal.signal(number, notice)
        with suppress(KeyboardInterrupt):
            worker.run()
        # Deaf from now on: the work has ended, and a requeued job is sent SIGTERM at once.
        for each in (signal.SIGTERM, signal.SIGINT, number):
            signal.signal(each, signal.SIG_IGN)
        try:
            if noticed:
                requeue(number, None)
        except UncompletedJobError:
            limit = SweepError("its time limit was over once too often; give it more --time")
            with Claimant(Claims(Path(self.place.runs)), environment.job_id) as me:
                if worker.job is not None and me.claim(worker.job):
                    me.fail(limit)

    def checkpoint(self) -> Any:
        """Return what is to run when the element's turn comes again; submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
