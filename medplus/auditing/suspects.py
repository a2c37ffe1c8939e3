"""The table of suspects: what a person decides on, row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medplus import atomic
from medplus.auditing.labels import Labels
from medplus.auditing.outliers import Outliers
from medplus.auditing.pool import Pool
from medplus.auditing.twins import Pair, Twins
from medplus.datasets.columns import csv_text
from medplus.datasets.exclusion import read_rows

Kind = Literal["copy", "twin", "label", "outlier"]


@dataclass(frozen=True)
class Suspect:
    """One row of ``suspects.csv``.

    Attributes
    ----------
    name, split, index
        The image: its name, its split, and its position there.
    kind : {"copy", "twin", "label", "outlier"}
    score : float
        Of a copy or twin, how alike it is to its partner, at most 1; of a label, 1 − the
        probability of the given one; of an outlier, its robust standard score.
    partner, partner_split : str
        The image that it repeats; of an outlier, its nearest. Empty of a label.
    given, suggested : str
        Its label, and what it may be: of a copy or twin the partner's, where that differs.
    verdict : str
        Empty, for a person to fill in: ``exclude`` or ``keep``.
    """

    name: str
    split: str
    index: int
    kind: Kind
    score: float
    partner: str = ""
    partner_split: str = ""
    given: str = ""
    suggested: str = ""
    verdict: str = ""


COLUMNS = tuple(field.name for field in fields(Suspect))


def list_suspects(
    pool: Pool, twins: Twins, labels: Labels, outliers: Outliers, nearest: np.ndarray
) -> list[Suspect]:
    """Return the suspects: copies and twins first, then labels, then outliers, each ranked.

    Of a cluster of twins the first image stays (train before val before test), and every other
    is a suspect: its partner is the one most like it of those before it.

    Parameters
    ----------
    nearest : ndarray of int, shape (n,)
        The nearest other row.
    """
    repeats = sorted(
        _repeats(twins),
        key=lambda pair: (not pair.copy, -_badness(pool, pair), -pair.score, pair.row),
    )
    suspects = [
        Suspect(
            *_where(pool, pair.row),
            "copy" if pair.copy else "twin",
            round(pair.score, 4),
            pool.name_of(pair.partner),
            pool.split_of(pair.partner),
            *_labels(pool, pair),
        )
        for pair in repeats
    ]
    suspects += [
        Suspect(
            *_where(pool, row), "label", round(float(labels.score[row]), 4),
            given=pool.label_of(row), suggested=pool.in_words(labels.suggested[row]),
        )
        for row in map(int, labels.ranking)
    ]  # fmt: skip
    suspects += [
        Suspect(
            *_where(pool, row), "outlier", round(float(outliers.score[row]), 4),
            pool.name_of(int(nearest[row])), pool.split_of(int(nearest[row])),
            given=pool.label_of(row),
        )
        for row in outliers.ranking
    ]  # fmt: skip
    return suspects


def _badness(pool: Pool, pair: Pair) -> int:
    """Rank pairs: across splits before within; then of other labels; then of other groups."""
    across = pool.split[pair.row] != pool.split[pair.partner]
    labels = bool((pool.labels[pair.row] != pool.labels[pair.partner]).any())
    groups = pool.groups is not None and pool.groups[pair.row] != pool.groups[pair.partner]
    return 4 * int(across) + 2 * int(labels) + int(groups)


def _repeats(twins: Twins) -> list[Pair]:
    """Return, for every image but the first of each cluster, the pair that makes it a suspect."""
    of: dict[int, list[Pair]] = {}
    for pair in twins.pairs:
        of.setdefault(pair.row, []).append(pair)
        of.setdefault(pair.partner, []).append(replace(pair, row=pair.partner, partner=pair.row))
    found = []
    for rows in twins.clusters:
        for own in (of[int(row)] for row in rows[1:]):
            before = [pair for pair in own if pair.partner < pair.row] or own
            found.append(max(before, key=lambda pair: (pair.copy, pair.score, -pair.partner)))
    return found


def _where(pool: Pool, row: int) -> tuple[str, str, int]:
    return pool.name_of(row), pool.split_of(row), int(pool.index[row])


def _labels(pool: Pool, pair: Pair) -> tuple[str, str]:
    given, other = pool.label_of(pair.row), pool.label_of(pair.partner)
    return given, other if other != given else ""


def with_verdicts(suspects: Iterable[Suspect], earlier: Path) -> list[Suspect]:
    """Return suspects with the verdicts that an earlier table has for the same images.

    What was decided on, and is no longer found, stays at the end: a decision is never lost.

    Raises
    ------
    UsageError
        If the table cannot be read.
    """
    if not earlier.exists():
        return list(suspects)
    said = {
        (row["split"], row["index"], row["kind"]): row
        for row in read_rows(earlier)
        if row["verdict"].strip()
    }
    found = []
    for one in suspects:
        row = said.pop((one.split, str(one.index), one.kind), None)
        found.append(one if row is None else replace(one, verdict=row["verdict"]))
    return found + [_from_row(row) for row in said.values()]


def _from_row(row: dict[str, str]) -> Suspect:
    values: dict[str, Any] = {name: row.get(name) or "" for name in COLUMNS}
    for name, number in (("index", int), ("score", float)):
        try:
            values[name] = number(values[name])
        except ValueError:
            values[name] = number(0)
    return Suspect(**values)


def write_suspects(path: Path, suspects: Iterable[Suspect]) -> None:
    """Write the table."""
    rows = ([getattr(one, name) for name in COLUMNS] for one in suspects)
    atomic.write_bytes(path, csv_text([COLUMNS, *rows]).encode("utf-8", "surrogateescape"))
