"""The audit as one HTML document: what was found in sentences, and galleries to judge it by."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from medplus.analysis.panel.pictures import thumbnail
from medplus.auditing.pool import Pool
from medplus.auditing.shortcuts import TOGETHER
from medplus.auditing.suspects import Suspect
from medplus.naming import counted
from medplus.vocabulary import SPLITS

if TYPE_CHECKING:
    from medplus.auditing.audit import Audit

_SHOWN = 60
_MEMBERS = 6
_NEAR = 4


@dataclass(frozen=True)
class Tile:
    """One image of a gallery: its picture as a data URL, or none, and what stands below it."""

    picture: str
    name: str
    label: str
    role: str = ""


@dataclass(frozen=True)
class Exhibit:
    """One finding: its images side by side, and what is said of it."""

    title: str
    tiles: Sequence[Tile]
    alarming: bool = False


@dataclass(frozen=True)
class Gallery:
    """The findings of one kind."""

    id: str
    title: str
    text: str
    exhibits: Sequence[Exhibit]
    n_found: int


def render_page(audit: Audit) -> str:
    """Return the audit as one self-contained HTML document; it runs no script."""
    environment = Environment(
        loader=PackageLoader("medplus.auditing", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        audit=audit,
        sentences=sentences(audit),
        galleries=[gallery for gallery in _galleries(audit) if gallery.n_found],
        shown=_SHOWN,
        command=f"medplus probe … --exclude {shlex.quote(str(audit.out / 'suspects.csv'))}",
    )


def sentences(audit: Audit) -> list[str]:
    """Return what was found, one sentence each; the gravest first."""
    pool, twins = audit.pool, audit.twins
    told = []
    leaked = audit.leaked
    n_test = int((pool.split == SPLITS.index("test")).sum())
    if len(leaked):
        have = "has" if len(leaked) == 1 else "have"
        why = "a twin" if pool.groups is None else "a twin, or another image of the same group,"
        told.append(
            f"{counted(len(leaked), 'image')} of {n_test:,} in test {have} {why} in train: test "
            "scores are too good."
        )
    clusters = twins.clusters
    if clusters:
        inside = sum(map(len, clusters))
        torn = sum(len(np.unique(pool.labels[rows], axis=0)) > 1 for rows in clusters)
        unlike = f"; {counted(torn, 'cluster')} with different labels" if torn else ""
        form = f"{counted(inside, 'image')} form {counted(len(clusters), 'cluster')}"
        told.append(f"{form} of copies or twins{unlike}.")
    else:
        told.append("No image is there twice.")
    issues = int(audit.labels.issue.sum())
    by = f"{counted(len(audit.backbones), 'backbone')} and {audit.labels.n_folds} folds"
    told.append(f"{counted(issues, 'label')} of {len(pool):,} doubtful by {by}.")
    told += [
        f"{one.first} and {one.second} differ: a classifier tells them apart with an AUC of "
        f"{one.auc:.2f} (p = {one.p_value:.3f})."
        for one in audit.shifts
        if one.p_value < 0.01
    ]
    told += [
        f"{_capital(one.name)} predict{'' if one.name == TOGETHER else 's'} the label with an AUC "
        f"of {one.auc:.2f} ({one.low:.2f} to {one.high:.2f}): a network can cheat by it."
        for one in audit.shortcuts
        if one.usable
    ]
    found = len(audit.outliers.reasons)
    told.append(f"{counted(found, 'image')} {'is' if found == 1 else 'are'} unlike the others.")
    return told


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _galleries(audit: Audit) -> Iterable[Gallery]:
    pool, twins = audit.pool, audit.twins
    compared = "pixels" if twins.by == "pixels" else "embeddings alone, as no images are at hand"
    source = "set by you" if twins.given else "from the data"
    clusters = sorted(twins.clusters, key=lambda rows: (-_graveness(pool, rows), -len(rows)))
    yield Gallery(
        "twins", "Copies and twins",
        f"Compared by {compared}; alike by at least {twins.threshold:.3f}, {source}. Those across "
        "splits come first, then those with different labels.",
        [_cluster(pool, rows) for rows in clusters[:_SHOWN]], len(clusters),
    )  # fmt: skip
    labels = [one for one in audit.suspects if one.kind == "label"]
    ranking = audit.labels.ranking
    yield Gallery(
        "labels", "Doubtful labels",
        "The image, and its nearest neighbours with their labels. First what most backbones find.",
        [_label(audit, one, int(row)) for one, row in zip(labels[:_SHOWN], ranking, strict=False)],
        len(labels),
    )  # fmt: skip
    rows = audit.outliers.ranking
    yield Gallery(
        "outliers", "Unlike the others",
        "Isolated in their class, or odd in their pixels or files.",
        [_outlier(audit, row) for row in rows[:_SHOWN]], len(rows),
    )  # fmt: skip


def _graveness(pool: Pool, rows: np.ndarray) -> int:
    across = len(np.unique(pool.split[rows])) > 1
    return 2 * across + (len(np.unique(pool.labels[rows], axis=0)) > 1)


def _cluster(pool: Pool, rows: np.ndarray) -> Exhibit:
    splits = " + ".join(dict.fromkeys(pool.split_of(int(row)) for row in rows))
    torn = len(np.unique(pool.labels[rows], axis=0)) > 1
    groups = pool.groups is not None and len(np.unique(pool.groups[rows])) > 1
    title = f"{len(rows)} images, {splits}"
    title += ", different labels" if torn else ""
    title += ", different groups" if groups else ""
    grave = _graveness(pool, rows) > 0
    return Exhibit(title, [_tile(pool, int(row)) for row in rows[:_MEMBERS]], grave)


def _label(audit: Audit, suspect: Suspect, row: int) -> Exhibit:
    title = f"given {suspect.given or 'none'} · suggested {suspect.suggested or 'none'}"
    title += f" · {audit.labels.agreement[row]} of {len(audit.backbones)} backbones"
    return Exhibit(title, _with_neighbours(audit, row))


def _outlier(audit: Audit, row: int) -> Exhibit:
    title = f"{audit.outliers.reasons[row]} · score {audit.outliers.score[row]:.1f}"
    return Exhibit(title, _with_neighbours(audit, row))


def _with_neighbours(audit: Audit, row: int) -> list[Tile]:
    near = audit.neighbours[row][:_NEAR]
    return [
        _tile(audit.pool, row, "this image"),
        *(_tile(audit.pool, int(other), "neighbour") for other in near),
    ]


def _tile(pool: Pool, row: int, role: str = "") -> Tile:
    picture = "" if pool.images is None else _picture(pool.image(row))
    return Tile(picture, f"{pool.split_of(row)} · {pool.name_of(row)}", pool.label_of(row), role)


def _picture(image: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(thumbnail(image)).decode()}"
