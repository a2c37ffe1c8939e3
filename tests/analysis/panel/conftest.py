"""A run that has not been: scores of which the true class gets the most, more or less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from medplus.analysis.panel.all_classes import Panel, panel_of
from medplus.run.record import RunRecord
from medplus.vocabulary import MULTI_LABEL, Task
from tests.records import make_record

Made = tuple[RunRecord, dict[str, Any]]


def make_run(
    classes: list[str],
    task: Task,
    n: tuple[int, int] = (80, 120),
    clarity: float = 1.0,
    seed: int = 0,
    **fields: Any,
) -> Made:
    """Return a record and its predictions of val and test."""
    rng = np.random.default_rng(seed)
    predictions: dict[str, Any] = {}
    for split, count in zip(("val", "test"), n, strict=True):
        noise = rng.normal(size=(count, len(classes)))
        if task == MULTI_LABEL:
            true = rng.integers(0, 2, noise.shape)
            score = expit(2 * clarity * (true - 0.5) + noise)
        else:
            true = rng.integers(0, len(classes), (count, 1))
            score = softmax(clarity * np.eye(len(classes))[true[:, 0]] + noise, axis=1)
        predictions |= {f"{split}_score": score.astype(np.float32), f"{split}_true": true}
        predictions[f"{split}_index"] = np.arange(count)
    return make_record(classes=classes, task=task, **fields), predictions


@pytest.fixture
def panel_with() -> Callable[..., Panel]:
    """Return a function that makes the panel of such a run; ``positive``, ``prevalence`` as is."""

    def make(
        classes: list[str] | None = None,
        task: Task = "binary-class",
        positive: str | None = None,
        prevalence: float | None = None,
        **of_run: Any,
    ) -> Panel:
        record, predictions = make_run(classes or ["ill", "well"], task, **of_run)
        return panel_of(record, predictions, positive, prevalence)

    return make
