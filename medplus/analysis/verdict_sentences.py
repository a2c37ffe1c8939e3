"""What a verdict says, one sentence for each thing that a reader has to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medplus.analysis.verdict_candidates import Candidate
from medplus.naming import counted, duration, in_percent
from medplus.spec import PIXELS
from medplus.vocabulary import MULTI_LABEL

if TYPE_CHECKING:
    from medplus.analysis.verdict import Verdict

ALL = "all"
"""The dataset of the verdict over all of them."""

POWER = 1.959964 + 0.841621
"""Standard errors that a difference must have to be seen at 5 % in four of five cases."""

_NAMED = 4


def sentences_of(verdict: Verdict, others: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the sentences of a verdict.

    Parameters
    ----------
    verdict : Verdict
    others : sequence of Candidate
        All but the best.
    """
    return (
        *_on_the_best(verdict), *_on_the_choice(verdict.best, others),
        *_on_the_others(verdict, others), *_on_the_cost(verdict), *_on_the_power(verdict),
    )  # fmt: skip


def _on_the_best(verdict: Verdict) -> list[str]:
    best = verdict.best
    low, high = (in_percent(end) for end in best.test_acc_ci95)
    seeds = f", mean of {best.n_seeds} seeds" if best.n_seeds > 1 else ""
    scored = (
        f"Test ACC {in_percent(best.test_acc)}, 95 % interval {low} to {high} "
        f"({_images(best)}{seeds})."
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
            rule = "by ACC, as it has no AUC there"
        told = [
            f"{take} {best.name}: of {verdict.n_candidates} candidates it is the best on val "
            f"({rule}). {scored}"
        ]
    if verdict.baseline_acc is not None:
        gain = best.test_acc - verdict.baseline_acc
        ranked = ""
        if not math.isnan(best.test_auc):
            ranked = f" How well it ranks images is its test AUC, {in_percent(best.test_auc)}."
        said = "always saying the most frequent class"
        if best.task == MULTI_LABEL and verdict.dataset != ALL:
            said = "always saying of each label what is most frequent"
        said = f"{said} ({in_percent(verdict.baseline_acc)})"
        if verdict.beats_majority:
            told.append(f"That is {100 * gain:.1f} points above {said}.")
        elif verdict.dataset == ALL or best.test_acc_ci95[1] < verdict.baseline_acc:
            told.append(
                f"That is {abs(100 * gain):.1f} points below {said}: do not rely on it.{ranked}"
            )
        else:
            told.append(f"It cannot be told from {said}: do not rely on it.{ranked}")
    if verdict.pixels_acc is not None and best.backbone != PIXELS:
        gain = best.test_acc - verdict.pixels_acc
        where = "above" if gain >= 0 else "below"
        apart = f"{abs(100 * gain):.1f} points {where} it" if abs(gain) >= 5e-4 else "no better"
        told.append(
            f"The best on raw pixels, chosen on val too, has {in_percent(verdict.pixels_acc)}, so "
            f"the network is {apart}."
        )
    return told


def _on_the_choice(best: Candidate, others: Sequence[Candidate]) -> list[str]:
    """Say where val is too small to choose on."""
    near = [one for one in others if one.val_acc >= best.val_low]
    if 2 * len(near) <= len(others):
        return []
    who = _of(near, others, "has", "have")
    told = [
        f"Val has {counted(best.n_val, 'image')}, too few to choose on: {who} a val ACC within the "
        f"interval of the best ({in_percent(best.val_low)} and more)."
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
    over = "test images" if verdict.dataset != ALL else "datasets"
    seen = f"on these {over} (p < 0.05 after Holm)"
    told = []
    if alike := verdict.not_distinguishable:
        who = _of(alike, others, "cannot", "cannot").capitalize()
        told.append(f"{who} be told from it on these {over}: {_named(alike)}.")
    if better := verdict.better:
        who = _of(better, others, "is", "are").capitalize()
        told.append(
            f"{who} better {seen}, though val chose otherwise: {_named(better)}. Whether val and "
            "test are alike is what medplus audit looks at."
        )
    if not alike and not better:
        told.append(f"{_of(verdict.worse, others, 'is', 'are').capitalize()} worse {seen}.")
    return told


def _of(some: Sequence[Candidate], others: Sequence[Candidate], one: str, many: str) -> str:
    if len(others) == 1:
        return f"the only other {one}"
    return f"{len(some)} of the {len(others)} others {one if len(some) == 1 else many}"


def _named(some: Sequence[Candidate]) -> str:
    named = ", ".join(f"{one.name} {in_percent(one.test_acc)}" for one in some[:_NAMED])
    return f"{named} and {len(some) - _NAMED} more" if len(some) > _NAMED else named


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


def _on_the_power(verdict: Verdict) -> list[str]:
    best, smallest = verdict.best, verdict.smallest_detectable_difference
    of = f"{verdict.n_test} datasets" if verdict.dataset == ALL else _images(best)
    if verdict.shows_nothing:
        return [f"{of} cannot tell candidates apart, however they differ."]
    if smallest is None or not verdict.not_distinguishable:
        return []
    unseen = (
        f"a difference of less than {100 * smallest:.1f} points typically goes unnoticed in one of "
        "five cases or more"
    )
    if verdict.dataset == ALL:
        return [f"Over {of} {unseen}; more datasets would settle it."]
    return [f"With {of} {unseen}; to see half of it takes {_images(best, 4, '')}."]


def _images(best: Candidate, times: int = 1, kind: str = "test ") -> str:
    images = counted(times * len(best.hits), f"{kind}image")
    if best.groups is None:
        return images
    return f"{images} in {times * best.n_units:,} groups such as patients"
