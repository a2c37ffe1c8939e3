"""What the map is coloured and filtered by: one category for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medplus.auditing.pool import Pool
from medplus.datasets.exclusion import read_rows
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import UsageError
from medplus.exploration.maps import name_clusters
from medplus.exploration.predictions import Scored
from medplus.vocabulary import SPLITS


@dataclass(frozen=True, eq=False)
class Column:
    """One category for every image.

    Attributes
    ----------
    key, label : str
        What a file calls it, and what a person reads.
    names : tuple of str
        The categories.
    values : ndarray of int, shape (n,)
        Each image's place among them.
    quiet : int or None
        The category that says nothing, such as ``not scored``: drawn in grey, below the others.
    """

    key: str
    label: str
    names: tuple[str, ...]
    values: np.ndarray
    quiet: int | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """The words that labels, given and predicted, are told in.

    Attributes
    ----------
    words : tuple of str
        Of one label per image, the classes; of several, every combination that occurs.
    given : ndarray of int, shape (n,)
        Each image's place among the words.
    predicted : tuple of ndarray of int, shape (n,)
        The same of what each run predicts; −1 where it predicts nothing.
    """

    words: tuple[str, ...]
    given: np.ndarray
    predicted: tuple[np.ndarray, ...]


def label_words(pool: Pool, runs: Sequence[Scored]) -> Labels:
    """Return labels and predictions as places in one list of words."""
    if not pool.multi_label:
        guesses = tuple(np.where(one.known, one.labels[:, 0], -1) for one in runs)
        return Labels(pool.classes, pool.labels[:, 0].astype(np.int64), guesses)
    stacked = np.concatenate([pool.labels, *(one.labels for one in runs)])
    rows, codes, counts = np.unique(stacked, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    words = tuple(pool.in_words(row) or "no label" for row in rows[order])
    given, *guessed = np.split(np.argsort(order)[codes.reshape(-1)], len(runs) + 1)
    guesses = tuple(np.where(one.known, g, -1) for one, g in zip(runs, guessed, strict=True))
    return Labels(words, given, guesses)


def label_columns(pool: Pool, labels: Labels) -> list[Column]:
    """Return the class; of several labels their combination, and each label alone."""
    whole = Column("class", "class", labels.words, labels.given)
    if not pool.multi_label:
        return [whole]
    each = [
        Column(f"label_{i}", f"label: {name}", ("no", "yes"), pool.labels[:, i].astype(int), 0)
        for i, name in enumerate(pool.classes)
    ]
    return [whole, *each]


def split_column(pool: Pool) -> Column:
    """Return the split."""
    return Column("split", "split", tuple(SPLITS), pool.split)


def group_column(store: EmbeddingStore) -> Column | None:
    """Return what images belong to, the largest first; None where that is not known."""
    groups = [name for split in SPLITS for name in store.groups(split)]
    if not groups:
        return None
    names, values, counts = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Column("group", "group", tuple(names[order].tolist()), np.argsort(order)[values])


def cluster_column(pool: Pool, clusters: np.ndarray) -> Column:
    """Return the cluster, named by what prevails in it."""
    names = name_clusters(pool, clusters)
    if (clusters >= 0).all():
        return Column("cluster", "cluster", names, clusters)
    values = np.where(clusters >= 0, clusters, len(names))
    return Column("cluster", "cluster", (*names, "in none"), values, len(names))


def run_columns(labels: Labels, runs: Sequence[Scored]) -> list[Column]:
    """Return for each run whether it errs and what it predicts; of several, how many err."""
    columns, wrong = [], np.zeros(len(labels.given), int)
    scored = np.zeros(len(labels.given), bool)
    for number, (one, guess) in enumerate(zip(runs, labels.predicted, strict=True), start=1):
        errs = one.known & (guess != labels.given)
        wrong, scored = wrong + errs, scored | one.known
        outcome = np.where(one.known, errs.astype(int), 2)
        columns.append(Column(f"error_{number}", f"error: {one.name}", _OUTCOMES, outcome, 2))
        guessed = np.where(one.known, guess, len(labels.words))
        words = (*labels.words, "not scored")
        label = f"predicted: {one.name}"
        columns.append(Column(f"predicted_{number}", label, words, guessed, len(words) - 1))
    if len(runs) > 1:
        names = (*(f"{k} of {len(runs)} wrong" for k in range(len(runs) + 1)), "not scored")
        values = np.where(scored, wrong, len(names) - 1)
        columns.insert(0, Column("errors", "errors of all runs", names, values, len(names) - 1))
    return columns


_OUTCOMES = ("right", "wrong", "not scored")


def flag_column(pool: Pool, table: Path) -> tuple[Column, dict[int, str]]:
    """Return what a ``suspects.csv`` says of the images, in a word and in full.

    Returns
    -------
    Column
        Categories such as ``copy`` or ``label + outlier``.
    dict of int to str
        Per row that is in the table, what stands there.

    Raises
    ------
    UsageError
        If the table cannot be read, or is of other images.
    """
    place = {(str(pool.split_of(row)), str(pool.index[row])): row for row in range(len(pool))}
    kinds: dict[int, list[str]] = {}
    told: dict[int, list[str]] = {}
    for entry in read_rows(table):
        row = place.get((entry["split"], entry["index"]))
        if row is None or (entry["name"] and entry["name"] != pool.name_of(row)):
            raise UsageError(
                f"{table}: {entry['name'] or 'a row'} is not number {entry['index']} of "
                f"{entry['split']} here; the table is of other images, make it anew with medplus "
                "audit"
            )
        if entry["kind"] not in kinds.setdefault(row, []):
            kinds[row].append(entry["kind"])
        told.setdefault(row, []).append(_sentence(entry))
    words = [" + ".join(kinds.get(row, ["nothing"])) for row in range(len(pool))]
    names = [*sorted(set(words) - {"nothing"}), "nothing"]
    values = np.array([names.index(word) for word in words])
    column = Column("audit", "audit", tuple(names), values, len(names) - 1)
    return column, {row: "; ".join(texts) for row, texts in told.items()}


def _sentence(entry: dict[str, str]) -> str:
    """Return one row of a table of suspects in words."""
    parts = [f"{entry['kind']} {entry.get('score', '')}".strip()]
    parts += [f"{word} {entry[key]}" for word, key in _TOLD.items() if entry.get(key)]
    return ", ".join(parts)


_TOLD = {"like": "partner", "suggested": "suggested", "verdict": "verdict"}
