"""Which test images to look at: the most confident mistakes, and some of every kind at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.one_class import class_scores, one_against_rest
from medplus.vocabulary import MULTI_LABEL

N_MISTAKES = 20
N_AT_RANDOM = 40
_PER_CELL = 6
_NO = "no "


@dataclass(frozen=True)
class Case:
    """A test image, and what the run said of it.

    Attributes
    ----------
    row : int
        Among the test images of the run.
    name : str
        Its file's, or its place in the split.
    true, predicted : str
        Classes; of several labels, ``LABEL`` or ``no LABEL``.
    score : float
        The probability of what was predicted.
    """

    row: int
    name: str
    true: str
    predicted: str
    score: float

    @property
    def wrong(self) -> bool:
        """Whether it is a mistake."""
        return self.true != self.predicted

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        said = {"true": self.true, "predicted": self.predicted, "probability": self.score}
        return {"image": self.name, **said}


def confident_mistakes(panel: Panel, n: int = N_MISTAKES) -> list[Case]:
    """Return the mistakes that the run was most sure of, the surest first."""
    wrong = [case for case in _cases(panel) if case.wrong]
    return sorted(wrong, key=lambda case: (-case.score, case.row))[:n]


def random_cases(panel: Panel, n: int = N_AT_RANDOM, seed: int = 0) -> dict[str, list[Case]]:
    """Draw cases from every cell of the confusion matrix, up to `n` in all.

    Parameters
    ----------
    panel : Panel
    n : int
        Each cell gives equally many, six at most; where there are more cells than that, the
        fullest give one each.
    seed : int

    Returns
    -------
    dict of str to list of Case
        By cell, in words: those of a true class together.
    """
    cells: dict[tuple[str, str], list[Case]] = {}
    for case in _cases(panel):
        if not (case.true == case.predicted and case.true.startswith(_NO)):
            cells.setdefault((case.true, case.predicted), []).append(case)
    kept = sorted(cells, key=lambda cell: -len(cells[cell]))[:n]
    each = min(_PER_CELL, n // max(len(kept), 1))
    rng = np.random.default_rng(seed)
    drawn = {}
    for true, predicted in sorted(kept):
        members = cells[true, predicted]
        picked = rng.choice(len(members), size=min(each, len(members)), replace=False)
        what = "rightly predicted" if true == predicted else f"predicted as '{predicted}'"
        caption = f"'{true}', {what}: {len(picked)} of {len(members)}, drawn at random"
        drawn[caption] = [members[i] for i in sorted(picked)]
    return drawn


def case_names(predictions: Any) -> list[str]:
    """Return the name of every test image: its path in the folder, or ``test/INDEX``."""
    if "test_name" in predictions:
        names: list[str] = predictions["test_name"].tolist()
        return names
    return [f"test/{index}" for index in predictions["test_index"]]


def _cases(panel: Panel) -> Iterator[Case]:
    names, classes = case_names(panel.predictions), panel.record.classes
    if panel.cases.task == MULTI_LABEL:
        for one in panel.classes:
            yield from _of_label(panel, one.name, names)
        return
    scores = class_scores(panel.cases)
    true, predicted = panel.cases.true[:, 0], panel.cases.predicted[:, 0]
    for row, name in enumerate(names):
        said = int(predicted[row])
        score = float(scores[row, said])
        yield Case(row, name, classes[int(true[row])], classes[said], score)


def _of_label(panel: Panel, label: str, names: list[str]) -> Iterator[Case]:
    said: tuple[str, str] = (f"{_NO}{label}", label)
    target, score, called = one_against_rest(panel.cases, panel.record.classes.index(label))
    sure: NDArray[np.float64] = np.where(called, score, 1 - score)
    for row, name in enumerate(names):
        yield Case(row, name, said[int(target[row])], said[int(called[row])], float(sure[row]))
