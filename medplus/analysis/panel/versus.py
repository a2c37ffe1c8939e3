"""Two runs on the same test images: DeLong's test of their AUCs, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medplus.analysis.format import p_equals
from medplus.analysis.holm import holm
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.wording import between, one_decimal, rate
from medplus.errors import RunError
from medplus.metrics.delong import AucDifference, compare_aucs
from medplus.metrics.operating_points import Estimate


@dataclass(frozen=True)
class Versus:
    """The AUC of one class by two runs.

    Attributes
    ----------
    name : str
        The class.
    first, second : Estimate
    found : AucDifference
        The first less the second.
    p_holm : float
        Corrected for all classes that are compared.
    """

    name: str
    first: Estimate
    second: Estimate
    found: AucDifference
    p_holm: float

    def sentence(self, other: str) -> str:
        """Return it in words; `other` names the second run."""
        difference = self.found.difference
        return (
            f"AUC for {self.name}: {rate(self.first)} against {rate(self.second)} of {other}, "
            f"{one_decimal(difference.value)} points ({between(difference)}), "
            f"{p_equals(self.p_holm)} (DeLong)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "class": self.name,
            "auc": self.first.to_dict(),
            "auc_of_other": self.second.to_dict(),
            "difference": self.found.difference.to_dict(),
            "p_value": self.found.p_value,
            "p_holm": self.p_holm,
        }


def compare_panels(first: Panel, second: Panel) -> list[Versus]:
    """Test for every class whether two runs have the same AUC.

    Of a binary task's two classes, whose AUCs are one, the first is tested; classes with fewer than
    two images or two others are not.

    Raises
    ------
    RunError
        If the runs are not of the same test images, or no class can be tested.
    """
    _check_same_images(first, second)
    pairs = list(zip(first.classes, second.classes, strict=True))
    if first.cases.task == "binary-class":
        pairs = pairs[:1]
    pairs = [(a, b) for a, b in pairs if 1 < a.n_positive < len(a.target) - 1]
    if not pairs:
        raise RunError(f"{first.record.path}: no class has two test images and two others")
    tests = [compare_aucs(a.target, a.score, b.score) for a, b in pairs]
    corrected = holm([test.p_value for test in tests])
    return [
        Versus(a.name, a.auc, b.auc, test, float(p))
        for (a, b), test, p in zip(pairs, tests, corrected, strict=True)
    ]


def _check_same_images(first: Panel, second: Panel) -> None:
    runs = (first, second)
    same = len({panel.cases.n_samples for panel in runs}) == 1 and all(
        np.array_equal(first.predictions[name], second.predictions.get(name, np.empty(0)))
        for name in ("test_true", "test_index", "test_name")
        if name in first.predictions
    )
    # The same images at another size have another digest, but the same names and labels.
    if not same or len({panel.record.dataset for panel in runs}) > 1:
        raise RunError(
            f"{first.record.path} and {second.record.path} are not of the same test images; "
            "compare runs on one dataset and its split"
        )
