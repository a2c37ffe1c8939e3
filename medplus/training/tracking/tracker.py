"""What every tracker is, and how one is opened."""

from __future__ import annotations

import json
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from medplus import atomic
from medplus.errors import UsageError, nearest, pip_install

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Names of trackers; each is also the name of its module here, and of the package it needs."""

Status = Literal["success", "failed", "aborted"]
_IDENTITY_FILE = "tracker_id"


class Tracker(ABC):
    """Tells a tracker of one run, which goes on in the tracker when it goes on in its folder.

    Parameters
    ----------
    folder : Path
        The run's, ``<runs>/<protocol>/<dataset>/<size>/<backbone>/<run_id>``. TensorBoard's events
        are written to it; what wandb and MLflow keep on this machine lies in ``<runs>/wandb`` and
        ``<runs>/mlruns``, unless their own environment variables say otherwise.
    run_id, group : str
        The names of the run and of the group (MLflow's experiment) it belongs to.
    config : dict
        What is shown as hyperparameters; may be nested.
    """

    def __init__(self, folder: Path, run_id: str, group: str, config: Mapping[str, Any]) -> None:
        self.folder, self.run_id, self.group = folder.absolute(), run_id, group
        self.parameters = flat(config)

    @property
    def root(self) -> Path:
        """The root of the runs."""
        return self.folder.parents[min(4, len(self.folder.parents) - 1)]

    def identity(self) -> str:
        """Return an id for this run's tracker, the same whenever it goes on in this folder.

        It is drawn by chance and kept in the folder: `run_id` is the same for everyone who runs
        the same configuration, and for a run that is started afresh.
        """
        path = self.folder / _IDENTITY_FILE
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, f"{uuid.uuid4().hex}\n".encode())
        return path.read_text(encoding="ascii").strip()

    @abstractmethod
    def start(self) -> None:
        """Find or begin the tracker's run.

        Raises
        ------
        RunError
            If the tracker cannot be used.
        """

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Tell of one step; what is None or not finite, which no tracker can draw, is left out."""
        known = ((name, value) for name, value in metrics.items() if value is not None)
        self._log({name: float(value) for name, value in known if math.isfinite(value)}, step)

    @abstractmethod
    def _log(self, metrics: dict[str, float], step: int) -> None: ...

    @abstractmethod
    def finish(self, status: Status) -> None:
        """Tell how the run ended."""


@contextmanager
def open_tracker(
    name: str, folder: Path, run_id: str, group: str, config: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Open a tracker before the block, and tell it afterwards how the block ended.

    Parameters
    ----------
    name : {"tensorboard", "wandb", "mlflow"}
    folder, run_id, group, config
        As for `Tracker`.

    Raises
    ------
    UsageError
        If there is no such tracker, or its package is not installed.
    RunError
        If it cannot be used.
    """
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise UsageError(f"unknown tracker '{name}'{nearest(name, TRACKERS)} (known: {known})")
    if find_spec(name) is None:
        raise UsageError(
            f"--track {name} needs the package {name}; install it with: {pip_install(name)}"
        )
    made = import_module(f"medplus.training.tracking.{name}").tracker
    tracker: Tracker = made(folder, run_id, group, config)
    tracker.start()
    status: Status = "failed"
    try:
        yield tracker
        status = "success"
    except KeyboardInterrupt:
        status = "aborted"
        raise
    finally:
        tracker.finish(status)


def flat(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return a configuration on one level, as all trackers take it.

    >>> flat({"seed": 1, "recipe": {"lr": 0.1, "k": (1, 5), "fit": None}})
    {'seed': 1, 'recipe.lr': 0.1, 'recipe.k': '[1, 5]', 'recipe.fit': 'null'}
    """
    found: dict[str, str | int | float | bool] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        elif isinstance(value, str | int | float):
            found[name] = value
        else:
            found[name] = json.dumps(value, default=str, ensure_ascii=False)
    return found
