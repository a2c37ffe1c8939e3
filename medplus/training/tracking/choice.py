"""Which trackers there are, and how one is opened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.errors import UsageError, nearest
from medplus.training.tracking.run import TrackedRun

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Names of trackers; each is also the name of the package that it needs."""


def open_tracker(
    name: str, folder: Path, run_id: str, experiment: str, config: dict[str, Any]
) -> Logger:
    """Return a logger for Fabric that tells a tracker of a run.

    Nothing is contacted before the first call of a ``log_`` method, and only the first process
    does it, so that the logger may be sent to other processes until then. A run that goes on in
    the same folder goes on in the same tracker's run. Metrics that are None or not finite are
    left out. Call `finalize` with ``"success"``, ``"failed"`` or ``"aborted"`` at the end.

    Parameters
    ----------
    name : {"tensorboard", "wandb", "mlflow"}
    folder : Path
        The run's folder, ``<runs>/<protocol>/<dataset>/<size>/<backbone>/<run_id>``. TensorBoard's
        events are written to it; what wandb and MLflow keep on this machine lies in
        ``<runs>/wandb`` and ``<runs>/mlruns``, unless their own environment variables say
        otherwise.
    run_id, experiment : str
        The names of the run and of the group (MLflow's experiment, wandb's project) it belongs to.
    config : dict
        What the tracker shows as hyperparameters; may be nested.

    Raises
    ------
    UsageError
        If there is no such tracker, or its package is not installed.
    """
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise UsageError(f"unknown tracker '{name}'{nearest(name, TRACKERS)} (known: {known})")
    if find_spec(name) is None:
        raise UsageError(
            f"--track {name} needs the package {name}; install it with: "
            "pip install 'medplus[track]'"
        )
    run = TrackedRun(folder.absolute(), run_id, experiment, config)
    if name == "tensorboard":
        from medplus.training.tracking.tensorboard import TensorBoardTracker

        return TensorBoardTracker(run)
    if name == "wandb":
        from medplus.training.tracking.wandb import WandbTracker

        return WandbTracker(run)
    from medplus.training.tracking.mlflow import MlflowTracker

    return MlflowTracker(run)
