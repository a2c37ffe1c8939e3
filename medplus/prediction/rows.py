"""From what a model says of images to rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medplus.errors import UsageError
from medplus.metrics.temperature import scale
from medplus.prediction.decision import Decision, cases_of
from medplus.prediction.model import Examined, Model
from medplus.vocabulary import MULTI_LABEL

N_NEAREST = 3
"""Train images that are named for each image."""
SEPARATOR = "; "
"""Between the labels, or the train images, of one cell."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What a table of predictions tells of each image.

    Attributes
    ----------
    model : Model
    decision : Decision or None
    calibrated : bool
        Whether probabilities are scaled by the model's temperature.

    Raises
    ------
    UsageError
        If there are no predictions of val to fit a temperature on.
    """

    model: Model
    decision: Decision | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        if self.calibrated and self.model.temperature is None:
            raise UsageError(
                f"{self.model.path} keeps no predictions of val to fit a temperature on; leave "
                "--calibrated out"
            )

    @cached_property
    def names(self) -> list[str]:
        """Of the columns, in order."""
        decided = [] if self.decision is None else ["decision"]
        compared = [] if self.model.reference is None else ["distance", "unlike", "nearest"]
        scores = [f"p_{name}" for name in self.model.classes]
        return ["name", "predicted", *scores, *decided, *compared, "error"]

    def fault(self, name: str, reason: str) -> list[str]:
        """Return the row of an image that cannot be used."""
        return [name, *[""] * (len(self.names) - 2), reason]

    def rows(self, names: Sequence[str], found: Examined) -> list[list[str]]:
        """Return the rows of images."""
        task = self.model.task
        scores = found.scores
        if self.calibrated and self.model.temperature is not None:
            scores = scale(scores, task, self.model.temperature)
        columns = [list(names), self._predicted(scores)]
        # As text each number is as short as it can be without being another one.
        columns += scores.astype(str).T.tolist()
        if self.decision is not None:
            called = self.decision.calls(scores, task)
            columns.append(np.where(called, "positive", "negative").tolist())
        reference = self.model.reference
        if reference is not None and found.neighbours is not None:
            distance = found.neighbours.distances[:, 0]
            columns.append([f"{one:.6g}" for one in distance])
            columns.append(np.where(reference.is_unlike(distance), "true", "false").tolist())
            nearest = found.neighbours.indices[:, :N_NEAREST].tolist()
            columns.append([SEPARATOR.join(reference.names[i] for i in row) for row in nearest])
        columns.append([""] * len(names))
        return [list(row) for row in zip(*columns, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return what the columns mean, as JSON has it."""
        reference = self.model.reference
        return {
            "calibrated": self.calibrated,
            "temperature": self.model.temperature,
            "decision": None if self.decision is None else self.decision.to_dict(),
            "distance": None
            if reference is None
            else {
                "metric": reference.metric,
                "limit": reference.limit,
                "defined": reference.limit_defined,
            },
        }

    def _predicted(self, scores: np.ndarray) -> list[str]:
        classes = self.model.classes
        found = cases_of(scores, self.model.task).predicted
        if self.model.task != MULTI_LABEL:
            return [classes[i] for i in found[:, 0]]
        return [
            SEPARATOR.join(name for name, holds in zip(classes, row, strict=True) if holds)
            for row in found
        ]
