"""The audit: every question asked of the stores of one dataset, and what came of it."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from medplus import atomic
from medplus.analysis.section import Section
from medplus.auditing.consequences import Consequence, score_runs
from medplus.auditing.facts import facts_of
from medplus.auditing.groups import groups_from
from medplus.auditing.labels import Labels, check_labels, joined
from medplus.auditing.outliers import Outliers, find_outliers
from medplus.auditing.pool import Pool, check_alike, pool_of, reduce, with_images
from medplus.auditing.shift import Shift, find_shifts
from medplus.auditing.shortcuts import Shortcut, find_shortcuts
from medplus.auditing.suspects import Suspect, list_suspects, with_verdicts, write_suspects
from medplus.auditing.twins import Twins, find_twins, nearest
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError, UsageError, writing
from medplus.heads.stored import Stores, open_stores
from medplus.progress import SAID, Progress, silent
from medplus.spec import PIXELS

log = logging.getLogger(__name__)

SUSPECTS = "suspects.csv"
PAGE = "index.html"
_NEIGHBOURS = 20
_SMALLEST = 20
_TRAIN, _TEST = 0, 2


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes
    ----------
    pool : Pool
        All samples.
    backbones : tuple of str
    twins : Twins
    labels : Labels
    outliers : Outliers
    shifts : list of Shift
    shortcuts : list of Shortcut
        Empty where no images are at hand.
    neighbours : ndarray of int, shape (n, k)
        The nearest other rows by the first store.
    notes : tuple of str
        What could not be done, and why.
    out : Path
    consequences : list of Consequence
        Empty where no runs are.
    suspects : list of Suspect
    seconds : float
    """

    pool: Pool
    backbones: tuple[str, ...]
    twins: Twins
    labels: Labels
    outliers: Outliers
    shifts: list[Shift]
    shortcuts: list[Shortcut]
    neighbours: np.ndarray
    notes: tuple[str, ...]
    out: Path
    consequences: tuple[Consequence, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    seconds: float = 0.0

    @property
    def page(self) -> Path:
        """The page with galleries."""
        return self.out / PAGE

    @property
    def leaked(self) -> np.ndarray:
        """Rows of test that have a twin in train, or whose group is in train; int64."""
        pool = self.pool
        kinds = [self.twins.cluster, *([] if pool.groups is None else [pool.groups])]
        shared = [np.isin(kind, kind[pool.split == _TRAIN]) for kind in kinds]
        return np.flatnonzero((pool.split == _TEST) & np.any(shared, axis=0))

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """What the page says."""
        from medplus.auditing.sections import sections_of

        return sections_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON."""
        kinds = [one.kind for one in self.suspects]
        return {
            "dataset": self.pool.dataset,
            "backbones": list(self.backbones),
            "n_images": len(self.pool),
            "compared_by": self.twins.by,
            "threshold": self.twins.threshold,
            "found": {kind: kinds.count(kind) for kind in ("copy", "twin", "label", "outlier")},
            "clusters": len(self.twins.clusters),
            "leaked_test_images": len(self.leaked),
            "folds": self.labels.n_folds,
            "shifts": [vars(one) for one in self.shifts],
            "shortcuts": [{**vars(one), "usable": one.usable} for one in self.shortcuts],
            "consequences": [
                {**vars(one), "acc": one.acc.to_dict(), "auc": one.auc.to_dict()}
                for one in self.consequences
            ],
            "notes": list(self.notes),
            "files": [str(self.out / SUSPECTS), str(self.page)],
            "seconds": self.seconds,
        }


def audit(
    stores: Stores,
    *,
    out: str | Path = "audit",
    data_root: str | Path | None = None,
    runs: str | Path = "runs",
    threshold: float | None = None,
    folds: int | None = None,
    groups: str | Path | None = None,
    progress: Progress = silent,
) -> Audit:
    """Look for copies, twins, doubtful labels, outliers, shifts and shortcuts in a dataset.

    Nothing is deleted or changed: ``suspects.csv`` lists what a person should decide on, and
    ``--exclude`` of the other commands heeds the decisions.

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
        Of one dataset at one size; several backbones find more, and their agreement ranks.
    out : str or Path
        Folder of ``suspects.csv`` and ``index.html``. Verdicts of an earlier table there are kept.
    data_root : str or Path, optional
        Folder of the datasets' npz files; by default where the images of the store lay. Images
        confirm twins on their pixels; without them embeddings alone decide, which is said.
    runs : str or Path
        Root of the runs that are scored again without what was found.
    threshold : float, optional
        How alike twins are, from 0 to 1; by default from the data.
    folds : int, optional
        For the out-of-fold probabilities: by default 5, or what the smallest class allows.
    groups : str or Path, optional
        A table of what belongs together, such as the images of a patient.
    progress : Progress

    Returns
    -------
    Audit

    Raises
    ------
    MedplusError
        If a store or table cannot be read, or the stores are not of the same images.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> found = medplus.audit(store)
    >>> found.out.is_dir(), len(found.suspects) > 0
    (True, True)
    """
    begin = time.monotonic()
    opened = open_stores(stores)
    if not opened:
        raise UsageError("name at least one store to audit")
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"--threshold {threshold:g} must lie above 0 and be at most 1")
    check_alike(opened)
    pool, notes = _open_pool(opened[0], data_root)
    if groups is not None:
        pool = replace(pool, groups=groups_from(Path(groups), pool))
    with progress(f"{pool.dataset} · audit", 6, "step") as advance:
        found = _look(pool, opened, threshold, folds, notes, Path(out), lambda: advance(1))
    consequences = _consequences(found, Path(runs), opened[0].info.dataset_digest)
    suspects = list_suspects(
        pool, found.twins, found.labels, found.outliers, found.neighbours[:, 0]
    )
    suspects = with_verdicts(suspects, found.out / SUSPECTS)
    seconds = time.monotonic() - begin
    found = replace(found, consequences=consequences, suspects=tuple(suspects), seconds=seconds)
    with writing(found.out, "free space, or name another --out"):
        found.out.mkdir(parents=True, exist_ok=True)
        write_suspects(found.out / SUSPECTS, suspects)
        _write_page(found, opened[0].info.warnings)
    return found


def _open_pool(store: EmbeddingStore, data_root: str | Path | None) -> tuple[Pool, list[str]]:
    """Return the samples with their images, or why there are none."""
    pool = pool_of(store)
    if len(pool) < _SMALLEST:
        raise RunError(f"{store.path}: {len(pool)} images are too few to audit")
    pool, missing = with_images(pool, store, data_root)
    if missing is None:
        return pool, []
    return pool, [f"no images at hand, so that embeddings alone decide: {missing}"]


def _look(
    pool: Pool,
    stores: list[EmbeddingStore],
    threshold: float | None,
    folds: int | None,
    notes: list[str],
    out: Path,
    advance: Callable[[], None],
) -> Audit:
    features = [reduce(store) for store in stores]
    near = [
        nearest(values, _NEIGHBOURS, "l2" if store.info.backbone == PIXELS else "cosine")
        for values, store in zip(features, stores, strict=True)
    ]
    advance()
    neighbours = [rows for rows, _ in near]
    twins = find_twins(pool, features, neighbours, threshold)
    advance()
    together = twins.cluster if pool.groups is None else joined(twins.cluster, pool.groups)
    labels = check_labels(pool, features, neighbours, together, folds)
    advance()
    facts = None if pool.images is None else facts_of(pool)
    outliers = find_outliers(pool, [distances for _, distances in near], facts)
    advance()
    shifts = find_shifts(pool, features[0], together)
    advance()
    if facts is None:
        notes.append("shortcuts need the images")
    shortcuts = [] if facts is None else find_shortcuts(pool, facts, labels.fold)
    advance()
    backbones = tuple(store.info.backbone for store in stores)
    return Audit(
        pool, backbones, twins, labels, outliers, shifts, shortcuts, neighbours[0], tuple(notes),
        out,
    )  # fmt: skip


def _consequences(found: Audit, runs: Path, digest: str) -> tuple[Consequence, ...]:
    """Score saved runs again without what was found in test."""
    pool, leaked = found.pool, found.leaked
    doubtful = np.flatnonzero(found.labels.issue & (pool.split == _TEST))
    what = {
        "that have a twin in train": pool.index[leaked],
        "with doubtful labels": pool.index[doubtful],
    }
    if len(leaked) and len(doubtful):
        what["with either"] = pool.index[np.union1d(leaked, doubtful)]
    return tuple(score_runs(runs, digest, what))


def _write_page(found: Audit, warnings: Sequence[str]) -> None:
    """Write the page beside the table, and on it what was warned of when the images were read."""
    from medplus.reporting.page import render_sections

    for note in found.notes:
        log.log(SAID, "%s: %s", found.pool.dataset, note)
    lines = [
        f"{len(found.pool):,} images · {', '.join(found.backbones)} · {found.seconds:.1f} s",
        Markup(
            "Nothing was changed. <code>suspects.csv</code> beside this page lists every image to "
            "decide on: write <code>exclude</code> or <code>keep</code> into its column "
            "<code>verdict</code>, then <code>medplus probe … --exclude {}</code> leaves out what "
            "you have decided on."
        ).format(shlex.quote(str(found.out / SUSPECTS))),
        *(f"Read with care: {text}." for text in warnings),
    ]
    title = f"Can {found.pool.dataset} be trusted?"
    page = render_sections("medplus audit", title, lines, found.sections)
    atomic.write_bytes(found.page, page.encode())
