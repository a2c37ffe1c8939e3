"""What a verdict says, one sentence for each thing that a reader has to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medplus.analysis.verdict_candidates import Candidate
from medplus.metrics.intervals import proportion_interval
from medplus.naming import duration, in_percent
from medplus.spec import PIXELS

if TYPE_CHECKING:
    from medplus.analysis.verdict import Verdict

ALL = "all"
"""The dataset of the verdict over all of them."""

POWER = 1.959964 + 0.841621
"""Standard errors that a difference must have to be seen at 5 % in four of five cases."""

_NAMED = 4


def sentences_of(verdict: Verdict, others: Sequence[Candidate], spread: float) -> tuple[str, ...]:
    """Return the sentences of a verdict.

    Parameters
    ----------
    verdict : Verdict
    others : sequence of Candidate
        All but the best.
    spread : float
        Standard deviation over images (or datasets) of the difference to the one that is nearest.
    """
    return (
        *_on_the_best(verdict), *_on_the_choice(verdict.best, others),
        *_on_the_others(verdict, others), *_on_the_cost(verdict), *_on_the_power(verdict, spread),
    )  # fmt: skip


def _on_the_best(verdict: Verdict) -> list[str]:
    best = verdict.best
    low, high = (in_percent(end) for end in best.test_acc_ci95)
    seeds = f", mean of {best.n_seeds} seeds" if best.n_seeds > 1 else ""
    groups = ""
    if best.groups is not None:
        groups = f" in {len(np.unique(best.groups)):,} groups such as patients"
    scored = (
        f"Test ACC {in_percent(best.test_acc)}, 95 % interval {low} to {high} ({verdict.n_test:,} "
        f"test images{groups}{seeds})."
    )
    if verdict.dataset == ALL:
        scored = (
            f"Mean test ACC over {verdict.n_test} datasets {in_percent(best.test_acc)} "
            f"({in_percent(best.hits.min())} to {in_percent(best.hits.max())}{seeds})."
        )
    told = [f"Only {best.name} was tried. {scored}"]
    if verdict.n_candidates > 1:
        take = "Take" if verdict.beats_majority else "By ACC none is recommended, not even"
        rule = "by AUC among those within a standard error of the best ACC"
        if math.isnan(best.val_auc):
            rule = "by ACC alone, as the AUC on val is undefined"
        told = [
            f"{take} {best.name}: of {verdict.n_candidates} candidates it is the best on val "
            f"({rule}). {scored}"
        ]
    if verdict.baseline_acc is not None:
        gain = best.test_acc - verdict.baseline_acc
        ranked = ""
        if not math.isnan(best.test_auc):
            ranked = f" How well it ranks images is its test AUC, {in_percent(best.test_auc)}."
        if verdict.beats_majority:
            told.append(
                f"That is {100 * gain:.1f} points above always saying the most frequent class "
                f"({in_percent(verdict.baseline_acc)})."
            )
        else:
            told.append(
                f"It cannot be told from always saying the most frequent class "
                f"({in_percent(verdict.baseline_acc)}): do not rely on it.{ranked}"
            )
    if verdict.pixels_acc is not None and best.backbone != PIXELS:
        gain = best.test_acc - verdict.pixels_acc
        where = "above" if gain >= 0 else "below"
        told.append(
            f"The best on raw pixels, chosen on val too, has {in_percent(verdict.pixels_acc)}, so "
            f"the network is {abs(100 * gain):.1f} points {where} it."
        )
    return told


def _on_the_choice(best: Candidate, others: Sequence[Candidate]) -> list[str]:
    """Say where val is too small to choose on."""
    right = np.arange(best.n_val)[:, None] < round(best.val_acc * best.n_val)
    low = proportion_interval(right)[0]
    near = [one for one in others if one.val_acc >= low]
    if 2 * len(near) <= len(others):
        return []
    who = "the other one has"
    if len(others) > 1:
        who = f"{len(near)} of the {len(others)} others have"
    told = [
        f"Val has {best.n_val:,} images, too few to choose on: {who} "
        f"a val ACC within the interval of the best ({in_percent(low)} and more)."
    ]
    if not math.isnan(best.fixed_acc):
        fixed = "k = 11" if best.protocol == "knn" else "learning rate 0.0001"
        told.append(
            f"By the paper's fixed choice ({fixed}) instead of val's it has "
            f"{in_percent(best.fixed_acc)} on test."
        )
    return told


def _on_the_others(verdict: Verdict, others: Sequence[Candidate]) -> list[str]:
    if not others:
        return []
    alike = verdict.not_distinguishable
    over = "test images" if verdict.dataset != ALL else "datasets"
    if not alike:
        who = "The other one is" if len(others) == 1 else f"All {len(others)} others are"
        return [f"{who} worse on these {over} (p < 0.05 after Holm)."]
    named = ", ".join(f"{one.name} {in_percent(one.test_acc)}" for one in alike[:_NAMED])
    more = f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
    who = "The other one" if len(others) == 1 else f"{len(alike)} of the {len(others)} others"
    return [f"{who} cannot be told from it on these {over}: {named}{more}."]


def _on_the_cost(verdict: Verdict) -> list[str]:
    best, cheapest = verdict.best, verdict.cheapest
    if math.isnan(best.device_seconds):
        return []
    if cheapest is best:
        if not verdict.not_distinguishable:
            return []
        return [f"It is also the cheapest of these ({duration(best.device_seconds)})."]
    share = best.device_seconds / max(cheapest.device_seconds, 1e-9)
    return [
        f"The cheapest of these is {cheapest.name}: {duration(cheapest.device_seconds)} against "
        f"{duration(best.device_seconds)}, {share:.1f} times cheaper."
    ]


def _on_the_power(verdict: Verdict, spread: float) -> list[str]:
    smallest = verdict.smallest_detectable_difference
    if smallest is None or not verdict.not_distinguishable:
        return []
    if smallest >= 1:
        return [f"{verdict.n_test:,} {'datasets' if verdict.dataset == ALL else 'test images'} are "
                "too few to see any difference."]  # fmt: skip
    if verdict.dataset == ALL:
        return [
            f"Over {verdict.n_test} datasets a difference of less than {100 * smallest:.1f} points "
            "typically goes unnoticed in one of five cases or more; more datasets would settle it."
        ]
    needed = math.ceil((POWER * spread / (smallest / 2)) ** 2)
    return [
        f"With {verdict.n_test:,} test images a difference of less than {100 * smallest:.1f} "
        "points typically goes unnoticed in one of five cases or more; to see half of it takes "
        f"{needed:,} images."
    ]
