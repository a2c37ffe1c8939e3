"""What runs predict of the images of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medplus.analysis.panel.one_class import class_scores
from medplus.auditing.pool import Pool
from medplus.errors import MedplusError, RunError
from medplus.metrics import check
from medplus.naming import counted
from medplus.run.best import select_best
from medplus.run.ledger import RECORD_FILE, read_predictions, read_record, read_runs
from medplus.run.record import RunRecord

MOST = 12
"""Runs of a folder that a page shows at most."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a run predicts of all images.

    Attributes
    ----------
    name : str
        Protocol, backbone and what was chosen.
    path : str
        The run's folder.
    labels : ndarray of int, shape (n, n_labels)
        Of what it has predicted; zeros elsewhere.
    known : ndarray of bool, shape (n,)
        Which images it has predicted: val and test, or all that were held out of a fold.
    score : ndarray of float32, shape (n,)
        Its score of the class that it predicts; NaN where it predicts none, or several labels.
    """

    name: str
    path: str
    labels: np.ndarray
    known: np.ndarray
    score: np.ndarray


def read_scored(
    pool: Pool, digest: str, places: Sequence[Path], *, by_default: bool = False
) -> tuple[list[Scored], list[str]]:
    """Read the predictions of runs on the images of a pool.

    Parameters
    ----------
    pool : Pool
    digest : str
        Of the images.
    places : sequence of Path
        Runs, which are all taken; and roots of runs, of which each backbone, protocol and weights
        gives the run that is best on val.
    by_default : bool
        Whether the places were not named, so that they need not exist.

    Returns
    -------
    list of Scored
    list of str
        What was left out.

    Raises
    ------
    RunError
        If a place that was named is missing or damaged, or a run that was named is of other images.
    """
    chosen: dict[str, RunRecord] = {}
    notes: list[str] = []
    for place in places:
        if (place / RECORD_FILE).exists():
            record = read_record(place)
            if record.dataset_digest != digest:
                raise RunError(
                    f"{place} is a run on {record.dataset} at {record.size} px, of other images"
                )
            chosen[record.path] = record
        elif place.is_dir():
            found = _best_of(place, digest, notes)
            chosen |= {record.path: record for record in found}
        elif not by_default:
            raise RunError(f"there is no folder {place}; name a run, or the folder of your runs")
    scored = []
    for name, record in _named_apart(list(chosen.values())):
        try:
            scored.append(_scored(pool, record, name))
        except MedplusError as error:
            notes.append(f"left out: {error}")
    return scored, notes


def _best_of(root: Path, digest: str, notes: list[str]) -> list[RunRecord]:
    """Return the runs on the images under a root, of each kind the best on val."""
    every, damaged = read_runs(root)
    notes += [f"left out: {reason}" for _, reason in damaged]
    records = [one for one in every if one.dataset_digest == digest and "val" in one.metrics]
    # Without their seeds, so that these compete too.
    marked = select_best([one.model_copy(update={"seed": None}) for one in records])
    best = [one for one, mark in zip(records, marked, strict=True) if mark.selected]
    if len(best) < len(records):
        notes.append(
            f"of {counted(len(records), 'run')} under {root} the best on val of each protocol and "
            "backbone; --runs RUN adds others"
        )
    if len(best) > MOST:
        best.sort(key=lambda one: -one.metrics["val"]["acc"])
        notes.append(f"of {len(best)} kinds of runs the {MOST} with the best val ACC")
    return sorted(best[:MOST], key=lambda one: one.path)


def _named_apart(records: Sequence[RunRecord]) -> list[tuple[str, RunRecord]]:
    """Return a name for every run: as short as keeps them apart."""
    words = [[*_words(record), record.run_id] for record in records]
    for end in (2, -1, None):
        names = [" · ".join(one[:end]) for one in words]
        if len(set(names)) == len(names):
            break
    return list(zip(names, records, strict=True))


def _words(record: RunRecord) -> list[str]:
    numbers = {"k": record.k, "lr": record.lr, "strength": record.strength}
    told = [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
    seed = [] if record.seed is None else [f"seed {record.seed}"]
    return [record.protocol, record.backbone, *told, *seed]


def _scored(pool: Pool, record: RunRecord, name: str) -> Scored:
    saved = read_predictions(Path(record.path))
    place = {(str(pool.split_of(row)), int(pool.index[row])): row for row in range(len(pool))}
    labels = np.zeros(pool.labels.shape, np.int64)
    known, score = np.zeros(len(pool), bool), np.full(len(pool), np.nan, np.float32)
    folded = "test_split" in saved  # out of fold: held-out images of any split
    for split in ("test",) if folded else ("val", "test"):
        if f"{split}_score" not in saved:
            continue
        index, scores = saved[f"{split}_index"], saved[f"{split}_score"]
        origin = saved["test_split"] if folded else np.repeat(split, len(index))
        cases = check(saved[f"{split}_true"], scores, record.task)
        if cases.predicted[0].size != labels[0].size:
            raise RunError(f"{record.path} predicts other labels than those of the store")
        keys = [(str(s), int(i)) for s, i in zip(origin, index, strict=True)]
        there = np.array([key in place for key in keys], np.bool_)
        rows = np.array([place[key] for key in keys if key in place], np.int64)
        labels[rows], known[rows] = cases.predicted[there], True
        if not pool.multi_label:
            score[rows] = np.take_along_axis(class_scores(cases), cases.predicted, 1)[there, 0]
    return Scored(name, record.path, labels, known, score)
