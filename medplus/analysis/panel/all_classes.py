"""What a clinician asks of a run: a pure function of its saved predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.one_class import (
    AS_PREDICTED,
    FEWEST,
    ClassPanel,
    class_panel,
    class_scores,
    one_against_rest,
)
from medplus.errors import RunError, UsageError, nearest
from medplus.metrics import Predictions, check, ece
from medplus.metrics.calibration import Reliability, brier, reliability
from medplus.metrics.temperature import RANGE, fit_temperature, scale
from medplus.naming import safe_name
from medplus.run.ledger import read_predictions, read_record
from medplus.run.record import RunRecord
from medplus.vocabulary import MULTI_LABEL, Task

_COARSE = 30
"""Fewer different scores, or val images on one side of a threshold, are worth a note."""


@dataclass(frozen=True, eq=False)
class Panel:
    """What a clinician asks of a run.

    Attributes
    ----------
    record : RunRecord
    cases : Predictions
        Labels and scores of test.
    predictions : mapping of str to ndarray
        All that the run keeps.
    positive : str or None
        The class that matters, if it was named; then `classes` is that one.
    prevalence : float or None
        Of the positive class, in the population that predictive values are for.
    classes : tuple of ClassPanel
    temperature : float or None
        Fitted on val; None without val.
    calibration : mapping of str to mapping of str to float
        ``brier`` and ``ece``, ``as predicted`` and ``scaled``.
    notes : tuple of str
        What to know before believing it.
    """

    record: RunRecord
    cases: Predictions
    predictions: Mapping[str, NDArray[Any]]
    positive: str | None
    prevalence: float | None
    classes: tuple[ClassPanel, ...]
    temperature: float | None
    calibration: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    @property
    def groups(self) -> NDArray[Any] | None:
        """What the test images belong to, such as patients, where that is known."""
        return self.predictions.get("test_group")

    @property
    def key(self) -> str:
        """The dataset, as names of files and links have it."""
        return safe_name(self.record.dataset)

    @cached_property
    def confusion(self) -> NDArray[np.int64] | None:
        """Counts by true class (rows) and predicted class; None where several labels may hold."""
        from sklearn.metrics import confusion_matrix

        if self.cases.task == MULTI_LABEL:
            return None
        every = range(len(self.record.classes))
        counts: NDArray[np.int64] = confusion_matrix(
            self.cases.true[:, 0], self.cases.predicted[:, 0], labels=list(every)
        )
        return counts

    def reliability(self, *, scaled: bool = False) -> Reliability:
        """Return how often probabilities come true: of what was predicted, or of all labels.

        It needs the panels of all classes.
        """
        scores = np.stack([one.probability(scaled) for one in self.classes], axis=1)
        if self.cases.task == MULTI_LABEL:
            return reliability(self.cases.targets.ravel(), scores.ravel())
        right = scores.argmax(axis=1) == self.cases.true[:, 0]
        return reliability(right, scores.max(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        record = self.record
        return {
            "run": record.path,
            "dataset": record.dataset,
            "backbone": record.backbone,
            "size": record.size,
            "protocol": record.protocol,
            "n_test": self.cases.n_samples,
            "positive": self.positive,
            "prevalence": self.prevalence,
            "class_names": record.classes,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "temperature": self.temperature,
            "calibration": {name: dict(found) for name, found in self.calibration.items()},
            "classes": [one.to_dict() for one in self.classes],
            "notes": list(self.notes),
        }


def panel(run: str | Path, positive: str | None = None, prevalence: float | None = None) -> Panel:
    """Return what a clinician asks of a run, from its record and its predictions alone.

    Parameters
    ----------
    run : str or Path
        The folder of a run, of any protocol, or of an evaluation.
    positive : str, optional
        The class that matters, by name. It is never assumed: without it every class is shown.
    prevalence : float, optional
        Of the positive class, between 0 and 1, in the population that PPV and NPV are for; by
        default that of the test images.

    Raises
    ------
    RunError
        If the run cannot be read, or keeps no predictions of test.
    UsageError
        If there is no such class, or the prevalence is not one, or of no class.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.knn(store, k=5)
    >>> found = medplus.panel(run.path, positive="malignant", prevalence=0.02)
    >>> 0 <= found.classes[0].points["as predicted"].sensitivity.value <= 1
    True
    """
    folder = Path(run)
    return panel_of(read_record(folder), read_predictions(folder), positive, prevalence)


def panel_of(
    record: RunRecord,
    predictions: Mapping[str, NDArray[Any]],
    positive: str | None = None,
    prevalence: float | None = None,
) -> Panel:
    """Return the panel of a record and its predictions; as `panel`."""
    chosen = _chosen(record, positive)
    _check_prevalence(record, positive, prevalence)
    if "test_score" not in predictions:
        raise RunError(f"{record.path} keeps no predictions of test; score test with it first")
    task = record.task
    test = _of_split(predictions, "test", task)
    assert test is not None
    val = _of_split(predictions, "val", task)
    temperature, calibration = None, {AS_PREDICTED: _calibration(test, class_scores(test))}
    scaled = None
    if val is not None:
        temperature = fit_temperature(predictions["val_true"], predictions["val_score"], task)
        scaled = scale(predictions["test_score"], task, temperature)
        calibration["scaled"] = _calibration(test, scaled)
    groups = predictions.get("test_group")
    classes = tuple(
        class_panel(record.classes[i], i, test, val, scaled, prevalence, groups) for i in chosen
    )
    notes = _notes(record, positive, classes, test, val, temperature)
    return Panel(
        record, test, predictions, positive, prevalence, classes, temperature, calibration, notes
    )


def _chosen(record: RunRecord, positive: str | None) -> list[int]:
    if positive is None:
        return list(range(len(record.classes)))
    if positive not in record.classes:
        what = "label" if record.task == MULTI_LABEL else "class"
        raise UsageError(
            f"--positive '{positive}': {record.dataset} has no such {what} "
            f"(it has {_listed(record)}){nearest(positive, record.classes)}"
        )
    return [record.classes.index(positive)]


def _check_prevalence(record: RunRecord, positive: str | None, prevalence: float | None) -> None:
    if prevalence is None:
        return
    if not 0 < prevalence < 1:
        raise UsageError(f"--prevalence {prevalence:g} must lie between 0 and 1, as 0.02 does")
    if positive is None:
        raise UsageError(
            f"--prevalence {prevalence:g} is that of one class; name it with --positive "
            f"({_listed(record)})"
        )


def _listed(record: RunRecord) -> str:
    """Return the classes in quotes: their names may have commas."""
    return ", ".join(f"'{name}'" for name in record.classes)


def _of_split(
    predictions: Mapping[str, NDArray[Any]], split: str, task: Task
) -> Predictions | None:
    if f"{split}_score" not in predictions:
        return None
    return check(predictions[f"{split}_true"], predictions[f"{split}_score"], task)


def _calibration(cases: Predictions, probability: NDArray[np.float64]) -> dict[str, float]:
    true = cases.true
    return {
        "brier": brier(true, probability, cases.task),
        "ece": ece(true, probability, cases.task),
    }


def _notes(
    record: RunRecord,
    positive: str | None,
    classes: tuple[ClassPanel, ...],
    test: Predictions,
    val: Predictions | None,
    temperature: float | None,
) -> tuple[str, ...]:
    notes = []
    if positive is None and record.task == "binary-class":
        notes.append(
            "Which class matters is not assumed, so that both are shown: --positive "
            f"'{record.classes[0]}' or --positive '{record.classes[1]}' names it."
        )
    if len(classes) > 2:
        notes.append("Thresholds chosen on val are shown with --positive, which names one class.")
    if val is None:
        notes.append(
            "The run keeps no predictions of val to choose thresholds or a temperature on."
        )
    else:
        notes += _notes_on_val(classes, val, [record.classes.index(one.name) for one in classes])
    if absent := [one.name for one in classes if not one.defined]:
        notes.append(f"Test has no images of {', '.join(absent)}, or no others: no numbers for it.")
    n_values = len(np.unique(test.scores))
    if n_values <= min(_COARSE, test.scores.size // 2):
        notes.append(
            f"Scores take only {n_values} values, as votes do: thresholds and curves are coarse."
        )
    if temperature is not None and not RANGE[0] * 1.01 < temperature < RANGE[1] / 1.01:
        notes.append(
            "The temperature is the last that was tried; val asks for a still further one."
        )
    return tuple(notes)


def _notes_on_val(
    classes: tuple[ClassPanel, ...], val: Predictions, indices: list[int]
) -> list[str]:
    if few := [one.name for one in classes if len(one.points) == 1]:
        return [
            f"No thresholds for {', '.join(few)}: val has fewer than {FEWEST} images of it, or of "
            "the others."
        ]
    positives = [int(one_against_rest(val, i)[0].sum()) for i in indices]
    fewest = min(min(n, val.n_samples - n) for n in positives)
    if fewest >= _COARSE:
        return []
    return [
        f"Thresholds rest on as few as {fewest} of the {val.n_samples} val images: the rate that "
        "they keep there they may miss elsewhere."
    ]
