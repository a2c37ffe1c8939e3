"""The SLURM engine: workers as the elements of a job array, submitted by submitit."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medplus.atomic import remove_folder
from medplus.errors import SweepError, UsageError
from medplus.sweep.claims import Claims
from medplus.sweep.engines.slurm_cluster import (
    ENDINGS,
    Element,
    SlurmCluster,
    Submission,
    tells_of_memory,
)
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

log = logging.getLogger(__name__)

FOLDER = "slurm"
_MOST = 1000
"""MaxArraySize of a cluster is 1001 by default."""
_LOOK_S = 1.0
_ASK_S = 2.0, 30.0
"""Between two questions to SLURM, at first and at last: a controller has other users, too."""
_PATIENCE_S = 60.0
_NOT_CERTAIN = ("NODE_FAIL", "GONE")


@dataclass(frozen=True)
class SlurmSettings:
    """What is asked of SLURM for each element of the array.

    Attributes
    ----------
    partition : str or None
        ``--partition``; the cluster's default without.
    minutes : int
        ``--time``.
    gres : str or None
        ``--gres``, for example ``gpu:1``.
    cpus : int or None
        ``--cpus-per-task``.
    memory_gb : float or None
        ``--mem``.
    account : str or None
        ``--account``.
    extras : mapping of str to str
        Any other options of sbatch by their long names, for example ``{"qos": "long"}``.
    requeues : int
        How often an element whose time is over goes back into the queue; 0 forbids SLURM to
        requeue it at all. An element that SLURM takes off its node goes back any number of times.
    notice_s : int
        How long before the end of its time an element begins to save, in seconds.
    """

    partition: str | None = None
    minutes: int = 240
    gres: str | None = None
    cpus: int | None = None
    memory_gb: float | None = None
    account: str | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    requeues: int = 10
    notice_s: int = 90

    def __post_init__(self) -> None:
        if self.minutes * 60 <= self.notice_s:
            raise UsageError(
                f"minutes = {self.minutes}: the time limit must be longer than the notice before "
                f"its end, {self.notice_s} s"
            )

    def for_submitit(self) -> dict[str, Any]:
        """Return the parameters as submitit names them."""
        parameters = {
            "name": "medplus",
            "timeout_min": self.minutes,
            "mem_gb": self.memory_gb,
            "cpus_per_task": self.cpus,
            "slurm_partition": self.partition,
            "slurm_gres": self.gres,
            "slurm_account": self.account,
            "slurm_signal_delay_s": self.notice_s,
            # Since SLURM 22.05, srun does not take this over from sbatch.
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"] if self.cpus else None,
            "slurm_additional_parameters": {
                "requeue" if self.requeues else "no-requeue": True,
                **self.extras,
            },
        }
        return {name: value for name, value in parameters.items() if value is not None}


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
    settings : SlurmSettings, optional
    detach : bool
        Submit, log the array's id, and follow nothing.

    Attributes
    ----------
    array : str or None
        SLURM's id of the array that was submitted last.
    """

    def __init__(
        self,
        workers: int | None = None,
        settings: SlurmSettings | None = None,
        detach: bool = False,
        *,
        kind: str = "slurm",
        cluster: Callable[[Sequence[Submission]], SlurmCluster] = SlurmCluster,
    ) -> None:
        self._settings = settings or SlurmSettings()
        self.workers = workers or _MOST
        self.array: str | None = None
        self._detach = detach
        self._kind = kind
        self._cluster = cluster

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
        elements = self._submit([Element(grid, place)] * min(self.workers, most), folder)
        self.array = elements[0].job_id.partition("_")[0]
        log.info("SLURM array job %s: %d workers; %s", self.array, len(elements), folder)
        if self._detach:
            return
        array = _Array(elements, self._cluster(elements), claims)
        try:
            yield from array.follow()
        except BaseException:
            array.stop()
            raise
        if array.went_well:
            with suppress(OSError):  # a network file system keeps files that are still open
                remove_folder(folder)

    def _submit(self, elements: Sequence[Element], folder: Path) -> Sequence[Submission]:
        try:
            import submitit
            from submitit.core.utils import FailedJobError
        except ImportError:
            raise SweepError(
                "submitit is not installed; install it with: pip install 'medplus[slurm]'"
            ) from None
        if self._kind == "slurm" and (shutil.which("sbatch") is None or not shutil.which("srun")):
            raise SweepError(
                "there is no sbatch on this machine; start the sweep on a login node of the "
                "cluster, or choose --engine local or ray"
            )
        # submitit prints what it logs; that sacct does not answer is no news on many clusters.
        logging.getLogger("submitit").setLevel(logging.CRITICAL)
        try:
            folder.mkdir(parents=True)
            executor = submitit.AutoExecutor(
                folder, self._kind, slurm_max_num_timeout=self._settings.requeues
            )
            executor.update_parameters(
                **self._settings.for_submitit(), slurm_array_parallelism=len(elements)
            )
            return executor.submit_array(elements)
        except FailedJobError as error:
            raise SweepError(f"SLURM refused the array: {_sbatch_words(error)}") from None
        except OSError as error:
            raise SweepError(f"{folder} cannot be written: {error.strerror}") from None


class _Array:
    """The elements of an array, of which some may die."""

    def __init__(
        self, elements: Sequence[Submission], cluster: SlurmCluster, claims: Claims
    ) -> None:
        self._open = {element.job_id: element for element in elements}
        self._array = elements[0].job_id.partition("_")[0]
        self._cluster, self._claims = cluster, claims
        self._ended: set[str] = set()  # by one answer; the second is believed
        self._trouble: list[str] = []
        self._is_over = False
        self.went_well = True

    def follow(self) -> Iterator[None]:
        start = asked = time.monotonic()
        while self._open:
            yield
            time.sleep(_LOOK_S)
            now = time.monotonic()
            if now - asked >= min(max(_ASK_S[0], (now - start) / 10), _ASK_S[1]):
                asked = now
                self._ask()
        if self._trouble:
            more = f" (and {len(self._trouble) - 1} more)" if len(self._trouble) > 1 else ""
            raise SweepError(f"{self._trouble[0]}{more}")

    def _ask(self) -> None:
        states = self._cluster.states()
        ended = {name for name in self._open if states.get(name, "") in ENDINGS}
        for name in ended & self._ended:
            self._end(self._open.pop(name), states[name])
        self._ended = ended

    def _end(self, element: Submission, state: str) -> None:
        """Note what an element died of."""
        name = element.job_id
        if state == "COMPLETED":  # it found nothing to do: those that wait would not either
            self._is_over = True
            self._cluster.interrupt(running=False)
            return
        self.went_well = False
        cause = ENDINGS["OUT_OF_MEMORY" if tells_of_memory(element.paths.stderr) else state]
        cause = f"{cause} ({state})"

        def is_it(worker: Any) -> bool:
            return bool(worker.name.startswith(f"{name} "))

        held = self._claims.bury(is_it, cause, certain=state not in _NOT_CERTAIN)
        if state == "CANCELLED" and (held or not self._is_over):
            self._trouble.append(f"the SLURM job {name} was cancelled; sweep again to go on")
        elif not held and state in ("FAILED", "OUT_OF_MEMORY", "BOOT_FAIL"):
            self._trouble.append(f"the SLURM job {name}: {cause}; see {element.paths.stderr}")

    def stop(self) -> None:
        """Interrupt the elements, wait until they have saved what they can, and cancel the rest."""
        if not self._open:
            return
        try:
            self._cluster.interrupt()
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline and self._is_at_work():
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            pass  # whoever asks twice does not want to wait
        finally:
            self._cluster.cancel()

    def _is_at_work(self) -> bool:
        ours = f"{self._array}_"
        return any(worker.name.startswith(ours) for worker in self._claims.workers())


def _sbatch_words(error: Exception) -> str:
    lines = [line.strip().removeprefix("sbatch: ") for line in str(error).splitlines()]
    return "; ".join(line.removeprefix("error: ") for line in lines if line)
