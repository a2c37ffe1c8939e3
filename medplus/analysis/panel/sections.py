"""What the report says of the best run of each dataset: its panel, its subgroups, its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.format import p_equals
from medplus.analysis.panel import curves, tables
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.errors import Case, confident_mistakes, random_cases
from medplus.analysis.panel.measures import FEWEST
from medplus.analysis.panel.one_class import AS_PREDICTED, ClassPanel
from medplus.analysis.panel.pictures import images_of, neighbours_of, thumbnail
from medplus.analysis.panel.subgroups import Subgroups
from medplus.analysis.panel.wording import between, one_decimal, percent
from medplus.analysis.section import Figure, Gallery, Picture, Section
from medplus.errors import MedplusError
from medplus.naming import counted, in_percent

_LEVEL = 0.05


def panel_section(found: Panel) -> Section:
    """Return the section that shows a panel."""
    dataset = found.record.dataset
    figures = [
        Figure(
            f"panel_{found.key}_curves",
            "Curves: ROC with the run's own decision as a point, precision over recall, and net "
            "benefit by threshold probability beside that of treating everybody.",
            partial(curves.draw_curves, found),
        ),
        Figure(
            f"panel_{found.key}_calibration",
            "Points: how often probabilities come true, as predicted and after temperature "
            "scaling; the diagonal is perfect.",
            partial(curves.draw_calibration, found),
        ),
    ]
    if found.confusion is not None:
        summary = "Matrix: images by true and predicted class."
        draw = partial(curves.draw_confusion, found)
        figures.append(Figure(f"panel_{found.key}_confusion", summary, draw))
    return Section(
        name=f"panel_{found.key}",
        title=f"Clinical panel: {dataset}",
        short=f"Panel: {dataset}",
        text=_text(found),
        tables=(tables.classes_table(found), tables.points_table(found)),
        figures=tuple(figures),
        sentences=tuple(sentences_of(found)),
        notes=found.notes,
    )


def _text(found: Panel) -> str:
    record = found.record
    at = (
        "the prevalence of these images"
        if found.prevalence is None
        else f"a prevalence of {found.positive} of {one_decimal(found.prevalence)} %"
    )
    over = "images"
    if found.groups is not None:
        over = f"{len(np.unique(found.groups))} groups of images, such as patients"
    seed = "" if record.seed is None else f", seed {record.seed}"
    return (
        f"{label_of(record.backbone)} at {record.size} px ({PROTOCOL_LABELS[record.protocol]}"
        f"{seed}), on {found.cases.n_samples} test images; each class against the rest. "
        "Thresholds are the probabilities from which on an image is called positive, chosen on val "
        f"and applied to test. PPV and NPV are for {at}. Intervals are 95 % over {over}. Net "
        "benefit is at the prevalence of these images, with the scaled probabilities."
    )


def sentences_of(found: Panel) -> list[str]:
    """Return what a panel says, in sentences."""
    told = []
    defined = [one for one in found.classes if one.defined]
    if found.positive and defined:
        told += _sentences_on(found, defined[0])
    elif defined:
        least = min(defined, key=lambda one: one.points[AS_PREDICTED].sensitivity.value)
        point = least.points[AS_PREDICTED]
        told.append(
            f"Least often found is {least.name}: {point.tp} of {least.n_positive}, "
            f"{percent(point.sensitivity)}."
        )
    before = found.calibration[AS_PREDICTED]
    told.append(
        f"Calibration error (ECE) {in_percent(before['ece'])}, Brier score {before['brier']:.3f}"
    )
    if found.temperature is not None:
        after = found.calibration["scaled"]
        told[-1] += (
            f"; at the temperature {found.temperature:.2f}, fitted on val, "
            f"{in_percent(after['ece'])} and {after['brier']:.3f}"
        )
    told[-1] += "."
    return told


def _sentences_on(found: Panel, one: ClassPanel) -> list[str]:
    point = one.points[AS_PREDICTED]
    told = [
        f"As predicted, {point.tp} of {one.n_positive} images of {one.name} are found, "
        f"{percent(point.sensitivity)}, with {counted(point.fp, 'false alarm')} among "
        f"{point.fp + point.tn} others: specificity {percent(point.specificity)}."
    ]
    if found.prevalence is not None:
        shares = [
            f"{percent(rate)} {meaning}"
            for rate, meaning in (
                (point.ppv, f"of those called {one.name} are so"),
                (point.npv, "of the others are not"),
            )
            if not math.isnan(rate.value)
        ]
        told.append(
            f"At a prevalence of {one_decimal(found.prevalence)} %, {' and '.join(shares)}."
        )
    return told


def subgroup_section(found: Panel, groups: Sequence[Subgroups]) -> Section:
    """Return the section that shows groups of the test images."""
    dataset = found.record.dataset
    small = [
        f"{one.by}: {', '.join(f'{name} ({n})' for name, n in one.too_small)}"
        for one in groups
        if one.too_small
    ]
    notes = []
    if small:
        notes.append(f"Groups below {FEWEST} images are not shown as numbers: {'; '.join(small)}.")
    if found.groups is not None:
        notes.append(
            "p takes images for independent; those of one patient are not, so that it is too small."
        )
    return Section(
        name=f"subgroups_{found.key}",
        title=f"Subgroups: {dataset}",
        short=f"Subgroups: {dataset}",
        text=(
            "The test images by columns of their table. The gap is that between the best and the "
            "worst group, which even chance sets apart: p is how often random groups of the same "
            "sizes and classes lie as far apart, corrected for all gaps shown (Holm)."
        ),
        tables=tuple(tables.groups_tables(found.key, groups)),
        sentences=tuple(_on_gaps(groups)),
        notes=tuple(notes),
    )


def _on_gaps(groups: Sequence[Subgroups]) -> list[str]:
    """Return the gaps that chance hardly makes, or that there are none."""
    gaps = [(one.by, gap) for one in groups for gap in one.gaps]
    told = [
        f"{gap.measure} by {by}: {gap.worst} lies {one_decimal(gap.difference.value)} points below "
        f"{gap.best} ({between(gap.difference)}); chance seldom sets random groups so far apart "
        f"({p_equals(gap.p_holm)})."
        for by, gap in gaps
        if gap.p_holm < _LEVEL
    ]
    if gaps and not told:
        told.append(
            f"None of the {len(gaps)} gaps is larger than chance makes between random groups of "
            "these sizes; that does not show that there is none."
        )
    return told


def error_section(found: Panel, data_root: str | Path | None = "data", seed: int = 0) -> Section:
    """Return the section that shows mistakes, and cases of every kind drawn at random.

    Parameters
    ----------
    found : Panel
    data_root : str, Path or None
        Where the images of MedMNIST's datasets lie; None shows no images, but their names.
    seed : int
        Of what is drawn.
    """
    dataset = found.record.dataset
    mistakes, drawn = confident_mistakes(found), random_cases(found, seed=seed)
    how_many = f"{len(mistakes)} most confident mistakes" if len(mistakes) > 1 else "only mistake"
    groups = {f"The {how_many}": mistakes, **drawn}
    groups = {caption: cases for caption, cases in groups.items() if cases}
    near: dict[Case, list[str]] = {}
    galleries: list[Gallery] = []
    notes: list[str] = []
    if data_root is not None:
        cases = list(dict.fromkeys(case for group in groups.values() for case in group))
        try:
            near = dict(zip(cases, neighbours_of(found, cases), strict=True))
        except MedplusError as error:
            notes.append(f"Nearest train images are not shown: {error}.")
        try:
            images = images_of(found, cases, data_root)
            seen = dict(zip(cases, map(thumbnail, images), strict=True))
            galleries = [_gallery(name, group, seen, near) for name, group in groups.items()]
        except MedplusError as error:
            notes.append(f"The images are not shown: {error}.")
    return Section(
        name=f"errors_{found.key}",
        title=f"Mistakes: {dataset}",
        short=f"Mistakes: {dataset}",
        text=(
            "Test images as the network saw them: the mistakes it was most sure of, and of every "
            "kind some at random, so that what is shown is not only the worst."
        ),
        tables=(tables.cases_table(found.key, groups, near, named=not galleries),),
        galleries=tuple(galleries),
        notes=tuple(notes),
    )


def _gallery(
    caption: str, group: Sequence[Case], seen: dict[Case, bytes], near: dict[Case, list[str]]
) -> Gallery:
    return Gallery(caption, tuple(_picture(one, seen[one], near.get(one, [])) for one in group))


def _picture(case: Case, png: bytes, near: Sequence[str]) -> Picture:
    said = f"predicted {case.predicted} ({one_decimal(case.score)} %)"
    lines = [f"true: {case.true}", said]
    if near:
        lines.append(f"nearest: {'; '.join(near)}")
    return Picture(png, case.name, tuple(lines))
