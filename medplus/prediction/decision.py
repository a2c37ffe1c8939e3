"""Calling an image positive: a class, a threshold on its score, and where that came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medplus.analysis.panel.one_class import FEWEST, class_scores, one_against_rest
from medplus.errors import UsageError, nearest
from medplus.metrics import Predictions, check
from medplus.metrics.operating_points import threshold_at
from medplus.metrics.temperature import scale
from medplus.prediction.model import Model
from medplus.vocabulary import MULTI_LABEL, Task

Rate = Literal["sensitivity", "specificity"]
SENSITIVITY = 0.95
"""What a threshold keeps on val where nothing else is asked for."""


@dataclass(frozen=True)
class Decision:
    """When an image is called positive.

    Attributes
    ----------
    positive : str
        The class, or label, that counts as positive.
    index : int
        Its place among the classes.
    threshold : float
        An image is called positive where its score is at least this; infinite for none.
    chosen : str
        How the threshold was, in words.
    """

    positive: str
    index: int
    threshold: float
    chosen: str

    def calls(self, scores: np.ndarray, task: Task) -> np.ndarray:
        """Tell which images are called positive, bool (n,), by scores (n, n_classes)."""
        called: np.ndarray = class_scores(cases_of(scores, task))[:, self.index] >= self.threshold
        return called

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; a threshold that nobody reaches is None."""
        threshold = self.threshold if np.isfinite(self.threshold) else None
        return {"positive": self.positive, "threshold": threshold, "chosen": self.chosen}


def cases_of(scores: np.ndarray, task: Task) -> Predictions:
    """Return images by scores (n, n_classes) as runs are scored; their labels, unknown, are 0.

    Predicted is a label above 0.5, of two classes the second above 0.5, else the highest.
    """
    none = np.zeros((len(scores), scores.shape[1] if task == MULTI_LABEL else 1), np.int64)
    return check(none, scores, task)


def decide(
    model: Model,
    positive: str | None,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    threshold: float | None = None,
    calibrated: bool = False,
) -> Decision | None:
    """Choose when to call an image positive, on val as the panel does.

    Parameters
    ----------
    positive : str or None
        The class that matters; it is never assumed: without one nothing is decided.
    sensitivity, specificity : float, optional
        The least that val is to have; the other is then as high as it can be. By default a
        sensitivity of 0.95.
    threshold : float, optional
        Instead of choosing one.
    calibrated : bool
        Whether scores are taken at the model's temperature.

    Raises
    ------
    UsageError
        If there is no such class, more than one of the three is given, or val has too few images.
    """
    given = {"sensitivity": sensitivity, "specificity": specificity, "threshold": threshold}
    asked = {name: value for name, value in given.items() if value is not None}
    if positive is None:
        for name in asked:
            raise UsageError(
                f"--{name} is that of one class; name it with --positive "
                f"({', '.join(map(repr, model.classes))})"
            )
        return None
    if positive not in model.classes:
        what = "label" if model.task == MULTI_LABEL else "class"
        listed = ", ".join(f"'{name}'" for name in model.classes)
        raise UsageError(
            f"--positive '{positive}': {model.path} has no such {what} (it has {listed})"
            f"{nearest(positive, model.classes)}"
        )
    if len(asked) > 1:
        raise UsageError(f"--{' and --'.join(asked)} contradict one another; give one of them")
    for name, value in asked.items():
        if not 0 < value < 1:
            raise UsageError(f"--{name} {value:g} must lie between 0 and 1, as 0.95 does")
    index = model.classes.index(positive)
    if threshold is not None:
        return Decision(positive, index, threshold, "as given")
    rate: Rate = "specificity" if specificity is not None else "sensitivity"
    least = asked.get(rate, SENSITIVITY)
    found = _on_val(model, index, rate, least, calibrated)
    return Decision(positive, index, found, f"{rate} ≥ {100 * least:g} % on val")


def _on_val(model: Model, index: int, rate: Rate, least: float, calibrated: bool) -> float:
    predictions = model.predictions
    if "val_score" not in predictions:
        raise UsageError(
            f"{model.path} keeps no predictions of val to choose a threshold on; give --threshold"
        )
    scores = predictions["val_score"]
    if calibrated and model.temperature is not None:
        scores = scale(scores, model.task, model.temperature)
    known, own, _ = one_against_rest(check(predictions["val_true"], scores, model.task), index)
    fewest = int(min(known.sum(), (~known).sum()))
    if fewest < FEWEST:
        raise UsageError(
            f"val has {int(known.sum())} images of '{model.classes[index]}' and "
            f"{int((~known).sum())} others, but a threshold needs {FEWEST} of each to be chosen "
            "on; give --threshold"
        )
    return threshold_at(known, own, rate, least)
