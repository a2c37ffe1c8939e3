"""What every tracker needs to know of a run."""

from __future__ import annotations

import json
import math
import uuid
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus import atomic

_IDENTITY_FILE = "tracker_id"
Parameter = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker sees it.

    Attributes
    ----------
    folder : Path
    run_id, experiment : str
    config : dict
        May be nested.
    """

    folder: Path
    run_id: str
    experiment: str
    config: dict[str, Any]

    @property
    def root(self) -> Path:
        """The root of the runs, by the layout of `medplus.runs.ledger.run_folder`."""
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


def flat(config: Mapping[str, Any] | Namespace) -> dict[str, Parameter]:
    """Return a configuration on one level, as all trackers take it.

    >>> flat({"seed": 1, "recipe": {"lr": 0.1, "k": (1, 5), "fit": None}})
    {'seed': 1, 'recipe.lr': 0.1, 'recipe.k': '[1, 5]', 'recipe.fit': 'null'}
    """
    found: dict[str, Parameter] = {}
    for name, value in (vars(config) if isinstance(config, Namespace) else config).items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        elif isinstance(value, str | int | float):
            found[name] = value
        else:
            found[name] = json.dumps(value, default=str, ensure_ascii=False)
    return found


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Return the metrics without those that are None or not finite, which no tracker can draw."""
    known = ((name, value) for name, value in metrics.items() if value is not None)
    return {name: float(value) for name, value in known if math.isfinite(value)}
