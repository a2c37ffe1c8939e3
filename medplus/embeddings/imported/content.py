"""Labels, splits and groups of imported embeddings: told apart as those of a folder of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from medplus.datasets.card import Card
from medplus.datasets.columns import PATH, Table, read_columns, refuse_twins
from medplus.datasets.description import Description, read_description
from medplus.datasets.groups import with_group_column
from medplus.datasets.labels import encode
from medplus.datasets.splitfile import Splitting
from medplus.datasets.table import match_table, relative, table_path
from medplus.embeddings.imported import source
from medplus.embeddings.imported.source import Source
from medplus.errors import UsageError
from medplus.naming import several, some
from medplus.run.scoring import Samples
from medplus.vocabulary import SPLITS, Split, Task


@dataclass(frozen=True)
class Part(Samples):
    """One split of what is imported.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        The places of its embeddings in the source.
    """

    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """What is imported, before any embedding is read."""

    task: Task
    classes: tuple[str, ...]
    parts: dict[Split, Part]
    description: Description
    card: Card


def read_content(
    found: Source, table: Path | None, task: str | None, group_column: str | None
) -> Content:
    """Give every item of a source its labels, split and group.

    They come from `table`, or else from the file itself, or else from the ``labels.csv`` or
    ``labels.parquet`` beside it; a ``dataset.yaml`` there is heeded as that of a folder of images.

    Raises
    ------
    UsageError
        If there are no labels, or they or the splits cannot be used.
    """
    root = found.root
    own = table is None and found.has_labels
    description = _description(found, own, task, group_column)
    card = Card(
        split_from="given by the file",
        images=f"imported from {found.path}: {found.images}",
        unused_columns=list(found.unused),
    )
    ids = [relative(root, name) for name in found.names]
    refuse_twins(found.path, ids, "name")
    if own:
        rows = Table(found.path, {PATH: ids, **found.columns})
    else:
        place = table or table_path(root, description)
        if place is None:
            raise UsageError(
                f"{found.path} has no labels; name a table of them with --table (columns path and "
                "label)"
            )
        rows = _matched(found, read_columns(place), ids, card)
    unused = card.unused_columns
    samples, names, groups = match_table(root, rows, description, set(ids), card)
    card.unused_columns = [*unused, *card.unused_columns]
    labels = encode(root, samples, names, description)
    card.task = labels.task
    settled, _ = Splitting(root, samples, labels, description, groups, card).settle()
    item = {path: number for number, path in enumerate(ids)}
    members: dict[Split, list[tuple[int, int]]] = {split: [] for split in SPLITS}
    for row, sample in enumerate(settled):
        assert sample.split is not None  # settled
        members[sample.split].append((item[sample.path], row))
    values = labels.values
    group_of = {item[s.path]: s.group or "" for s in settled} if groups.column else None
    parts = {
        split: _part(found, sorted(pairs) if found.ordered else pairs, values, group_of)
        for split, pairs in members.items()
    }
    if found.counts is not None and group_of is None:
        card.groups = f"{len(found.names):,} slides, whose patches share a label"
    card.describe(labels.classes, {split: part.labels for split, part in parts.items()})
    return Content(labels.task, labels.classes, parts, description, card)


def _description(
    found: Source, own: bool, task: str | None, group_column: str | None
) -> Description:
    """Return what `dataset.yaml` says; the file's own word comes first for its own labels."""
    said = read_description(found.root)
    told: dict[str, Any] = dict(found.said) if own else {}
    if own and "label_columns" not in told:
        told["label_columns"] = ()
    if group_column is not None or said.group_column:
        told.pop("group_column", None)
    if task is not None:
        told["task"] = task
    return with_group_column(said.model_copy(update=told), found.root, group_column)


def _matched(found: Source, table: Table, ids: list[str], card: Card) -> Table:
    """Return a table whose paths are names of items, also where only their endings differ.

    Raises
    ------
    UsageError
        If it names what is not there.
    """
    columns = dict(table.columns)
    if PATH not in columns:
        name = source.only(table.path, columns, "name")
        if name is not None:
            columns[PATH] = columns.pop(name)
    if PATH not in columns:
        return replace(table, columns=columns)  # whoever reads it says what is missing
    known = set(ids)
    paths = [relative(found.root, text) if text else "" for text in columns[PATH]]
    if not known.intersection(paths):
        stems = {_stem(path): path for path in ids}
        fitting = [stems.get(_stem(path)) for path in paths]
        if len(stems) == len(ids) and any(fitting):
            paths = [new or old for new, old in zip(fitting, paths, strict=True)]
            card.images += f"; matched to {table.path.name} by names without endings"
    unknown = sorted({path for path in paths if path and path not in known})
    if unknown:
        raise UsageError(
            f"{table.path} has {several(unknown, 'name')} that {found.path} has no embedding of; "
            f"it has others {some(ids)}: drop these rows, or import what they name"
        )
    columns[PATH] = paths
    label = None if source.LABEL in columns else source.only(table.path, columns, "label")
    if label is not None:
        columns[source.LABEL] = columns.pop(label)
    return replace(table, columns=columns)


def _stem(path: str) -> str:
    return PurePosixPath(path).stem if path else ""


def _part(
    found: Source,
    pairs: list[tuple[int, int]],
    values: npt.NDArray[np.integer],
    group_of: dict[int, str] | None,
) -> Part:
    """Return one split, of pairs of an item and its row of labels."""
    items = np.array([item for item, _ in pairs], np.int64)
    labels = values[[row for _, row in pairs]]
    names = [found.names[item] for item in items]
    groups = [] if group_of is None else [group_of[item] for item in items.tolist()]
    index = np.arange(len(items)) if found.index is None else found.index[items]
    if found.counts is None or found.row_names is None:
        return Part(labels, index, items, names=names, groups=groups)
    counts = found.counts[items]
    starts = (np.cumsum(found.counts) - found.counts)[items]
    first = np.cumsum(counts) - counts
    rows = np.arange(counts.sum()) + np.repeat(starts - first, counts)
    groups = [g for g, n in zip(groups or names, counts.tolist(), strict=True) for _ in range(n)]
    names = [name for item in items.tolist() for name in found.row_names(item)]
    every = np.repeat(labels, counts, axis=0)
    return Part(every, np.arange(len(rows)), rows, names=names, groups=groups)
