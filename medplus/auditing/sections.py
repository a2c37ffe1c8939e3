"""What the audit found, as sections of its page: sentences, galleries to judge by, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medplus.analysis.format import first_upper, p_equals
from medplus.analysis.panel.pictures import thumbnail
from medplus.analysis.panel.wording import one_decimal, rate
from medplus.analysis.section import Gallery, Picture, Section
from medplus.analysis.table import Kind, Table
from medplus.auditing.pool import Pool
from medplus.auditing.shortcuts import TOGETHER
from medplus.metrics.operating_points import Estimate
from medplus.naming import counted
from medplus.vocabulary import SPLITS

if TYPE_CHECKING:
    from medplus.auditing.audit import Audit

_SHOWN = 60
_MEMBERS = 6
_NEAR = 4


def sections_of(audit: Audit) -> tuple[Section, ...]:
    """Return what was found, the gravest first; what does not apply is left out."""
    parts = [_twins(audit), _labels(audit), _shift(audit), _outliers(audit)]
    if audit.consequences:
        parts.insert(0, _consequences(audit))
    if audit.shortcuts:
        parts.insert(-1, _shortcuts(audit))
    return tuple(parts)


def _consequences(audit: Audit) -> Section:
    rows = [
        {
            "run": f"{one.protocol} {one.backbone} ({Path(one.run).name})",
            "left_out": f"{one.n_left_out} of {one.n_test} {one.what}",
            "acc": one_decimal(one.acc.everything),
            "without": _rate(one.acc.without, one.acc.interval),
            "change": _rate(one.acc.change, one.acc.change_interval),
            "auc": one_decimal(one.auc.everything),
            "auc_without": one_decimal(one.auc.without),
        }
        for one in audit.consequences
        if one.is_chosen
    ]
    return Section(
        "cost", "What it costs", "What it costs",
        "Of each protocol and backbone the run that is best on val, scored again without the test "
        "images that were found; --json has all runs.",
        tables=(_table("cost", "Runs with and without what was found, in percent", rows, "text"),),
    )  # fmt: skip


def _rate(value: float, ends: tuple[float, float] | None) -> str:
    return one_decimal(value) if ends is None else rate(Estimate(value, *ends))


def _table(name: str, caption: str, rows: Sequence[dict[str, Any]], auc: Kind = "percent") -> Table:
    kinds = dict.fromkeys(("acc", "auc"), auc)
    return Table.of(name, caption, pd.DataFrame(rows), " ".join(rows[0]), kinds=kinds)


def _twins(audit: Audit) -> Section:
    pool, twins = audit.pool, audit.twins
    compared = "pixels" if twins.by == "pixels" else "embeddings alone, as no images are at hand"
    source = "set by you" if twins.given else "from the data"
    clusters = sorted(twins.clusters, key=lambda rows: (-_graveness(pool, rows), -len(rows)))
    return _gallery(
        "twins", "Copies and twins",
        f"Compared by {compared}; alike by at least {twins.threshold:.3f}, {source}. Those across "
        "splits come first, then those with different labels.",
        [_cluster(pool, rows) for rows in clusters[:_SHOWN]], len(clusters),
        (*_on_leaks(audit), _on_clusters(pool, clusters)), audit.notes,
    )  # fmt: skip


def _on_leaks(audit: Audit) -> list[str]:
    leaked, pool = audit.leaked, audit.pool
    if not len(leaked):
        return []
    have = "has" if len(leaked) == 1 else "have"
    why = "a twin" if pool.groups is None else "a twin, or another image of the same group,"
    n_test = int((pool.split == SPLITS.index("test")).sum())
    return [
        f"{counted(len(leaked), 'image')} of {n_test:,} in test {have} {why} in train: test scores "
        "are too good."
    ]


def _on_clusters(pool: Pool, clusters: Sequence[np.ndarray]) -> str:
    if not clusters:
        return "No image is there twice."
    torn = sum(_differ(pool.labels, rows) for rows in clusters)
    unlike = f"; {counted(torn, 'cluster')} with different labels" if torn else ""
    inside = counted(sum(map(len, clusters)), "image")
    return f"{inside} form {counted(len(clusters), 'cluster')} of copies or twins{unlike}."


def _differ(values: np.ndarray, rows: np.ndarray) -> bool:
    return len(np.unique(values[rows], axis=0)) > 1


def _graveness(pool: Pool, rows: np.ndarray) -> int:
    return 2 * _differ(pool.split, rows) + _differ(pool.labels, rows)


def _cluster(pool: Pool, rows: np.ndarray) -> Gallery:
    splits = " + ".join(dict.fromkeys(pool.split_of(int(row)) for row in rows))
    title = f"{len(rows)} images, {splits}"
    title += ", different labels" if _differ(pool.labels, rows) else ""
    title += ", different groups" if pool.groups is not None and _differ(pool.groups, rows) else ""
    return Gallery(title, tuple(_picture(pool, int(row)) for row in rows[:_MEMBERS]))


def _labels(audit: Audit) -> Section:
    pool, labels = audit.pool, audit.labels
    n_found, n_backbones = int(labels.issue.sum()), len(audit.backbones)
    by = f"{counted(n_backbones, 'backbone')} and {labels.n_folds} folds"

    def gallery(row: int) -> Gallery:
        given, suggested = pool.label_of(row), pool.in_words(labels.suggested[row])
        title = f"given {given or 'none'} · suggested {suggested or 'none'}"
        title += f" · {labels.agreement[row]} of {n_backbones} backbones"
        return _with_neighbours(audit, title, row)

    return _gallery(
        "labels", "Doubtful labels",
        "The image, and its nearest neighbours with their labels. First what most backbones find.",
        [gallery(int(row)) for row in labels.ranking[:_SHOWN]], n_found,
        [f"{counted(n_found, 'label')} of {len(pool):,} doubtful by {by}."],
    )  # fmt: skip


def _shift(audit: Audit) -> Section:
    rows = [
        {"splits": f"{one.first} and {one.second}", "auc": 100 * one.auc, "p_value": one.p_value,
         "n": one.n}
        for one in audit.shifts
    ]  # fmt: skip
    caption = "How well held-out images of two splits are told apart, AUC in percent"
    return Section(
        "shift", "Shift between splits", "Shift",
        "A classifier is trained to tell two splits apart; an AUC of 50 % says that it cannot. p "
        "is of Mann and Whitney's test on the held-out images.",
        tables=(_table("shift", caption, rows),) if rows else (),
        sentences=tuple(
            f"{one.first} and {one.second} differ: a classifier tells them apart with an AUC of "
            f"{100 * one.auc:.1f} % ({p_equals(one.p_value)})."
            for one in audit.shifts
            if one.p_value < 0.01
        ),
    )  # fmt: skip


def _shortcuts(audit: Audit) -> Section:
    rows = [
        {"fact": one.name, "auc": 100 * one.auc, "low": 100 * one.low, "high": 100 * one.high,
         "above_chance": "yes" if one.usable else "no"}
        for one in audit.shortcuts
    ]  # fmt: skip
    return Section(
        "shortcuts", "Shortcuts", "Shortcuts",
        "How well a small tree predicts the label from facts that are no medicine; an AUC of 50 % "
        "is chance.",
        tables=(_table("shortcuts", "AUC of the label from each kind of fact, in percent", rows),),
        sentences=tuple(
            f"{first_upper(one.name)} predict{'' if one.name == TOGETHER else 's'} the label with "
            f"an AUC of {100 * one.auc:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f}): a "
            "network can cheat by it."
            for one in audit.shortcuts
            if one.usable
        ),
    )  # fmt: skip


def _outliers(audit: Audit) -> Section:
    outliers = audit.outliers
    rows = outliers.ranking
    return _gallery(
        "outliers", "Unlike the others",
        "Isolated in their class, or odd in their pixels or files.",
        [
            _with_neighbours(
                audit, f"{outliers.reasons[row]} · score {outliers.score[row]:.1f}", row
            )
            for row in rows[:_SHOWN]
        ],
        len(rows),
        [f"{counted(len(rows), 'image')} {'is' if len(rows) == 1 else 'are'} unlike the others."],
    )  # fmt: skip


def _gallery(
    name: str, title: str, text: str, galleries: Sequence[Gallery], n_found: int,
    sentences: Iterable[str], notes: Iterable[str] = (),
) -> Section:  # fmt: skip
    if n_found > len(galleries):
        text += f" The first {len(galleries)} of {n_found:,}; suspects.csv has all."
    return Section(
        name, title, title, text, galleries=tuple(galleries), sentences=tuple(sentences),
        notes=tuple(notes),
    )  # fmt: skip


def _with_neighbours(audit: Audit, title: str, row: int) -> Gallery:
    near = [_picture(audit.pool, int(one), "neighbour") for one in audit.neighbours[row][:_NEAR]]
    return Gallery(title, (_picture(audit.pool, row, "this image"), *near))


def _picture(pool: Pool, row: int, role: str = "") -> Picture:
    png = b"" if pool.images is None else thumbnail(pool.image(row))
    name = f"{pool.split_of(row)} · {pool.name_of(row)}"
    return Picture(png, pool.label_of(row), (role, name) if role else (name,))
