"""The SLURM engine: workers as the elements of a job array, submitted by submitit."""

from __future__ import annotations

import logging
import secrets
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medplus.atomic import remove_folder
from medplus.errors import SweepError, UsageError
from medplus.sweep.claims import Claims
from medplus.sweep.engines import LOOK_S, PATIENCE_S
from medplus.sweep.engines.slurm_element import Element
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

if TYPE_CHECKING:
    import submitit

    Submitted = Sequence[submitit.Job[None]]

log = logging.getLogger(__name__)

FOLDER = "slurm"
_MOST = 1000
"""MaxArraySize of a cluster is 1001 by default."""
_ASK_S = 2.0, 30.0
"""Between two questions to SLURM, at first and at last: a controller has other users, too."""
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


def read_extras(options: Sequence[str]) -> dict[str, str]:
    """Return options of sbatch that are written as ``KEY=VALUE``.

    Raises
    ------
    UsageError
        If one is not written so.
    """
    extras = {}
    for option in options:
        key, equals, value = option.lstrip("-").partition("=")
        if not (key and equals):
            raise UsageError(f"'{option}': an option for sbatch is written as KEY=VALUE")
        extras[key] = value
    return extras


class SlurmEngine:
    """Submits workers as one job array, and looks after it.

    Parameters
    ----------
    workers : int, optional
        How many elements the array has; by default one for every job, but at most 1000, of which
        as many run as there is room for.
    detach : bool
        Submit, log the array's id, and follow nothing.
    minutes : int
        Time limit of an element.
    requeues : int
        How often an element whose time is over goes back into the queue; 0 forbids SLURM to
        requeue it at all. An element that SLURM takes off its node goes back any number of times.
    notice_s : int
        How long before the end of its time an element begins to save, in seconds.
    cpus : int, optional
        Cores of an element.
    extras : mapping of str to str
        Any other options of sbatch by their long names, for example ``{"qos": "long"}``.
    **parameters
        What else submitit takes: ``mem_gb``, ``slurm_partition``, ``slurm_gres`` ….

    Attributes
    ----------
    array : str
        SLURM's id of the array that was submitted last.
    """

    def __init__(
        self, workers: int | None = None, detach: bool = False, *, minutes: int = 240,
        requeues: int = 10, notice_s: int = 90, cpus: int | None = None,
        extras: Mapping[str, str] = MappingProxyType({}), executor: str = "slurm",
        **parameters: Any,
    ) -> None:  # fmt: skip
        if minutes * 60 <= notice_s:
            raise UsageError(
                f"--time {minutes}: the time limit must be longer than the notice before its end, "
                f"{notice_s} s"
            )
        self.workers = workers or _MOST
        self.array = ""
        self._detach, self._executor, self._requeues = detach, executor, requeues
        cores = {"cpus_per_task": cpus, "slurm_srun_args": [f"--cpus-per-task={cpus}"]}
        self._parameters = {
            "name": "medplus",
            "timeout_min": minutes,
            "slurm_signal_delay_s": notice_s,
            "slurm_additional_parameters": {
                "requeue" if requeues else "no-requeue": True,
                **extras,
            },
            # Since SLURM 22.05, srun does not take the cores over from sbatch.
            **(cores if cpus else {}),
            **parameters,
        }

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`.

        Raises
        ------
        SweepError
            If SLURM or submitit is missing, SLURM refuses the array, an element could not start, or
            elements were cancelled; the latter two once all others have ended.
        """
        claims = Claims(Path(place.runs))
        # SLURM's ids begin anew with a new cluster.
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = claims.folder / FOLDER / name
        elements = self.submit([Element(grid, place)] * min(self.workers, most), folder)
        self.array = elements[0].job_id.partition("_")[0]
        log.info("SLURM array job %s: %d workers; %s", self.array, len(elements), folder)
        if self._detach:
            return
        try:
            went_well = yield from self._look_after(elements, claims)
        except (GeneratorExit, KeyboardInterrupt):
            self._stop(claims)
            raise
        if went_well:
            with suppress(OSError):  # a network file system keeps files that are still open
                remove_folder(folder)

    def submit(self, elements: Sequence[Element], folder: Path) -> Submitted:
        """Submit an array whose files lie in a folder."""
        try:
            import submitit
            from submitit.core.utils import FailedJobError
        except ImportError:
            raise SweepError(
                "submitit is not installed; install it with: pip install 'medplus[slurm]'"
            ) from None
        if self._executor == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise SweepError(
                "there is no sbatch on this machine; start the sweep on a login node of the "
                "cluster, or choose --engine local or ray"
            )
        # submitit prints what it logs; that sacct does not answer is no news on many clusters.
        logging.getLogger("submitit").setLevel(logging.CRITICAL)
        try:
            folder.mkdir(parents=True)
            executor = submitit.AutoExecutor(
                folder, self._executor, slurm_max_num_timeout=self._requeues
            )
            executor.update_parameters(**self._parameters, slurm_array_parallelism=len(elements))
            return executor.submit_array(elements)
        except FailedJobError as error:
            raise SweepError(f"SLURM refused the array: {_sbatch_words(error)}") from None
        except OSError as error:
            raise SweepError(f"{folder} cannot be written: {error.strerror}") from None

    def _look_after(self, elements: Submitted, claims: Claims) -> Generator[None, None, bool]:
        """Note what elements die of, until the last one has ended; return whether none has."""
        living = {element.job_id: element for element in elements}
        seen: set[str] = set()  # to have ended, by one answer: the second is believed
        trouble, is_over, went_well = "", False, True
        start = asked = time.monotonic()
        while living:
            yield
            time.sleep(LOOK_S)
            now = time.monotonic()
            if now - asked < min(max(_ASK_S[0], (now - start) / 10), _ASK_S[1]):
                continue
            asked, states = now, self.states(elements)
            ended = {name for name in living if states.get(name) in _ENDED}
            for name in ended & seen:
                errors, state = living.pop(name).paths.stderr, states[name]
                if state == "COMPLETED":  # it found nothing to do; those that wait would not either
                    is_over = True
                    self.interrupt(running=False)
                    continue
                state = "OUT_OF_MEMORY" if _tells_of_memory(errors) else state
                went_well, held = False, _bury(claims, name, state)
                if state == "CANCELLED" and (held or not is_over):
                    trouble = f"the SLURM job {name} was cancelled; sweep again to go on"
                elif state in ("FAILED", "OUT_OF_MEMORY", "BOOT_FAIL") and not held:
                    trouble = f"the SLURM job {name} died without a job ({state}); see {errors}"
            seen = ended
        if trouble:
            raise SweepError(trouble)
        return went_well

    def states(self, elements: Submitted) -> dict[str, str]:
        """Return the elements' states by their ids; of what cannot be learnt now, none."""
        answer = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T",
                      f"--jobs={self.array}")  # fmt: skip
        if answer.returncode and "Invalid job id" not in answer.stderr:
            log.debug("squeue: %s", answer.stderr.strip())  # the controller is busy, or restarts
            return {}
        pairs = (line.strip().split("|") for line in answer.stdout.splitlines() if "|" in line)
        known = {name: state.partition(" ")[0].rstrip("+") for name, state in pairs}
        return {element.job_id: known.get(element.job_id, _GONE) for element in elements}

    def interrupt(self, running: bool = True) -> None:
        """Take waiting elements out of the queue, and send `running` ones SIGTERM."""
        call("scancel", "--state=PENDING", self.array)
        if running:
            call("scancel", "--signal=TERM", self.array)

    def _stop(self, claims: Claims) -> None:
        """Interrupt the elements, wait until they have saved what they can, and cancel the rest."""
        try:
            self.interrupt()
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and any(
                claim.worker.startswith(f"{self.array}_")
                for claim in claims.standing().holders.values()
            ):
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            pass  # whoever asks twice does not want to wait
        finally:
            call("scancel", "--quiet", self.array)


def _tells_of_memory(errors: Path) -> bool:
    """Tell whether SLURM says that memory ran out: without cgroups, its state does not."""
    try:
        text = errors.read_text(errors="replace").lower()
    except OSError:
        return False
    return any(words in text for words in _MEMORY_WORDS)


def _bury(claims: Claims, name: str, state: str) -> bool:
    """Note what an element died of; return whether it had a job."""
    cause = f"SLURM ended its process ({state}){_REMEDIES.get(state, '')}"
    certain = state not in ("NODE_FAIL", _GONE)
    return claims.bury(lambda claim: claim.worker.startswith(f"{name} "), cause, certain)


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands, which may fail."""
    try:
        return subprocess.run(  # noqa: S603 - our own words and job ids, and no shell
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _sbatch_words(error: Exception) -> str:
    lines = [line.strip().removeprefix("sbatch: ") for line in str(error).splitlines()]
    return "; ".join(line.removeprefix("error: ") for line in lines if line)
