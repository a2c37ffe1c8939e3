"""The SLURM engine: tasks as the elements of a job array, submitted by submitit."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medplus.errors import SweepError, UsageError
from medplus.sweep.desk import Desk
from medplus.sweep.engines.slurm_array import Array, Followed, Pace
from medplus.sweep.engines.slurm_bundles import make_bundles
from medplus.sweep.engines.slurm_cluster import Cluster, SlurmCluster, Submission
from medplus.sweep.engines.slurm_worker import Performance
from medplus.sweep.events import Event
from medplus.sweep.job import Place, Task

log = logging.getLogger(__name__)

FOLDER = "slurm"


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
    array_size : int
        How many elements an array may have; one less than the cluster's MaxArraySize.
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
    array_size: int = 1000

    def __post_init__(self) -> None:
        if self.minutes * 60 <= self.notice_s:
            raise UsageError(
                f"minutes = {self.minutes}: the time limit must be longer than the notice before "
                f"its end, {self.notice_s} s"
            )
        if self.array_size < 1:
            raise UsageError(f"array_size = {self.array_size}: must be at least 1")

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
    """Submits tasks as one job array, and follows it.

    Parameters
    ----------
    workers : int, optional
        How many elements may run at once; as many as there is room for by default.
    settings : SlurmSettings, optional
    detach : bool
        Submit, log the array's id, and follow nothing: `run` yields no event.
    pace : Pace, optional
        How often elements and SLURM are looked at.

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
        pace: Pace | None = None,
        *,
        _kind: str = "slurm",
        _cluster: Callable[[Sequence[Submission]], Cluster] = SlurmCluster,
    ) -> None:
        self._settings = settings or SlurmSettings()
        self.workers = workers or self._settings.array_size
        self.array: str | None = None
        self._detach = detach
        self._pace = pace or Pace()
        self._kind = _kind
        self._cluster = _cluster

    def run(self, tasks: Sequence[Task], place: Place) -> Generator[Event]:
        """Run tasks; see `medplus.sweep.engines.Engine`.

        Raises
        ------
        SweepError
            If SLURM or submitit is missing, SLURM refuses the array, an element could not start, or
            elements were cancelled; the latter two once all others have ended.
        """
        folder = Desk(Path(place.runs)).folder / FOLDER / _new_name()
        bundles = make_bundles(tasks, self._settings.array_size)
        files = [folder / f"{i}.events" for i in range(len(bundles))]
        performances = [
            Performance(bundle, place, str(file))
            for bundle, file in zip(bundles, files, strict=True)
        ]
        submissions = self._submit(performances, folder)
        self.array = submissions[0].job_id.partition("_")[0]
        log.info("SLURM array job %s: %d elements; %s", self.array, len(bundles), folder)
        if self._detach:
            return
        elements = [Followed(*parts) for parts in zip(submissions, bundles, files, strict=True)]
        cluster, desk = self._cluster(submissions), Desk(Path(place.runs))
        array = Array(elements, cluster, desk, self._pace)
        try:
            yield from array.follow()
        except BaseException:
            array.stop()
            raise
        finally:
            with suppress(OSError):  # a network file system keeps files that are still open
                array.tidy()

    def _submit(self, performances: Sequence[Performance], folder: Path) -> Sequence[Submission]:
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
            for performance in performances:
                # A file that exists from the start is seen to grow on network file systems as well.
                performance.events.touch()
            executor = submitit.AutoExecutor(
                folder, self._kind, slurm_max_num_timeout=self._settings.requeues
            )
            executor.update_parameters(
                **self._settings.for_submitit(), slurm_array_parallelism=self.workers
            )
            return executor.submit_array(performances)
        except FailedJobError as error:
            raise SweepError(f"SLURM refused the array: {_sbatch_words(error)}") from None
        except OSError as error:
            raise SweepError(f"{folder} cannot be written: {error.strerror}") from None


def _new_name() -> str:
    """Return a name that no other submission has: SLURM's ids begin anew with a new cluster."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def _sbatch_words(error: Exception) -> str:
    lines = [line.strip().removeprefix("sbatch: ") for line in str(error).splitlines()]
    return "; ".join(line.removeprefix("error: ") for line in lines if line)
