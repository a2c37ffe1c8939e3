"""What a file of embeddings holds, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medplus.datasets.columns import word
from medplus.errors import UsageError
from medplus.memory import release_pages
from medplus.naming import counted, some
from medplus.vocabulary import MULTI_LABEL, Task

Rows = Literal["slides", "patches"]
Kind = Literal["embedding", "label", "name", "split", "group", "index", "classes"]

LABEL = "label"
BLOCK = 1024
"""Rows that are read at a time."""
_WORDS: dict[Kind, tuple[str, ...]] = {
    "embedding": ("embeddings", "embedding", "features", "feature", "feats", "x"),
    "label": ("labels", "label", "targets", "target", "y"),
    "name": (
        "path", "paths", "name", "names", "filename", "filenames", "file_name", "slide_id",
        "slide", "slides", "origin",
    ),
    "split": ("split", "splits"),
    "group": ("group", "groups"),
    "index": ("index",),
    "classes": ("classes", "class_names"),
}  # fmt: skip
_REAL = re.compile(r"[<>]?(b?float|half|double|u?int|bool|[fiu]\d)")
_KINDS = {name: kind for kind, names in _WORDS.items() for name in names}


@dataclass(frozen=True)
class Source:
    """Embeddings in a file or folder, before they are read.

    Items are what has a label: images, or slides.

    Attributes
    ----------
    path : Path
        The file or folder.
    names : list of str
        Of the items, in the order of their rows.
    columns : dict of str to list of str
        What the file itself tells of the items, as a table does; missing values are empty.
    dim : int
        Number of embedding dimensions D.
    dtype : dtype
        float16 or float32, as they are to be stored.
    blocks : callable
        Yields all rows in order, shape (n, D), few at a time.
    images : str
        What was read, in words.
    counts : ndarray of int, shape (n_items,), or None
        Rows of each item; one by default.
    row_names : callable or None
        Returns the names of an item's rows, where it has several.
    index : ndarray of int64, shape (n_items,), or None
        Each item's position in its source split.
    ordered : bool
        Whether the order of the items has a meaning; else they go by their names, as the files of
        a folder do, so that encoders that saw them in other orders agree.
    said : dict
        What the file says of the labels, by the names of `Description`'s fields.
    size : int or None
        Of the images in pixels.
    unused : list of str
        What plays no part.
    """

    path: Path
    names: list[str]
    columns: dict[str, list[str]]
    dim: int
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]
    images: str
    counts: npt.NDArray[np.int64] | None = None
    row_names: Callable[[int], list[str]] | None = None
    index: npt.NDArray[np.int64] | None = None
    ordered: bool = False
    said: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    unused: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The folder that a `dataset.yaml` or a table may lie in."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def has_labels(self) -> bool:
        """Whether a column of the file's own can be labels."""
        known = {"split", "group", self.said.get("group_column")}
        return LABEL in self.columns or not known.issuperset(self.columns)

    @property
    def n_rows(self) -> int:
        """Number of rows of embeddings."""
        return len(self.names) if self.counts is None else int(self.counts.sum())


def kind_of(name: str) -> Kind | None:
    """Return what an array, a column or a key holds, by its name.

    >>> kind_of("Features"), kind_of("y"), kind_of("age")
    ('embedding', 'label', None)
    """
    return _KINDS.get(name.casefold())


def only(path: Path, names: Iterable[str], kind: Kind) -> str | None:
    """Return the one name that means a kind, or None.

    Raises
    ------
    UsageError
        If several do.
    """
    found = [name for name in names if kind_of(name) == kind]
    if len(found) > 1:
        raise UsageError(
            f"{path} holds several that may be its {kind} {some(found)}; keep one of them"
        )
    return found[0] if found else None


def as_words(values: Iterable[Any]) -> list[str]:
    """Return values as text, as a table has them."""
    return [
        word(value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value)
        for value in (values.tolist() if isinstance(values, np.ndarray) else values)
    ]


def label_columns(
    path: Path, labels: np.ndarray, classes: Sequence[str], task: Task | None = None
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return labels as columns of a table, and what is known of them.

    Parameters
    ----------
    labels : ndarray, shape (n,), (n, 1) or (n, L)
        Classes by name or number, or 0 and 1 for every label.
    classes : sequence of str
        Names in order, where the file tells them; integers are then places among them.
    task : Task, optional
        Where the file tells it.

    Raises
    ------
    UsageError
        If a number has no name.
    """
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or labels.shape[1] == 0:
        raise UsageError(f"{path}: labels of shape {labels.shape} must be (n,), (n, 1) or (n, L)")
    n_labels = labels.shape[1]
    said: dict[str, Any] = {"task": task} if task else {}
    if len(classes):
        said["classes"] = tuple(classes)
    if n_labels > 1 or task == MULTI_LABEL:
        if len(classes) not in (0, n_labels):
            raise UsageError(
                f"{path} names {counted(len(classes), 'class')} {some(classes)}, but its labels "
                f"have {counted(n_labels, 'column')}"
            )
        columns = {f"{LABEL}_{i}": as_words(labels[:, i]) for i in range(n_labels)}
        return columns, {**said, "label_columns": tuple(columns)}
    words = as_words(labels[:, 0])
    if len(classes) and labels.dtype.kind in "iub":
        beyond = [int(n) for n in labels[:, 0] if not 0 <= n < len(classes)]
        if beyond:
            raise UsageError(
                f"{path}: the label {beyond[0]} is none of its {len(classes)} classes "
                f"{some(classes)}"
            )
        words = [classes[int(n)] for n in labels[:, 0]]
    return {LABEL: words}, {**said, "label_columns": (LABEL,)}


def stored_dtype(path: Path, dtype: Any) -> np.dtype:
    """Return the type in which embeddings are stored: float16 as it is, all else as float32.

    Raises
    ------
    UsageError
        If they are no real numbers.
    """
    name = str(dtype).rpartition(".")[2]  # of numpy, h5py, torch or pyarrow
    if not _REAL.match(name):
        raise UsageError(f"{path}: what it holds as embeddings is of type {name}, no real numbers")
    return np.dtype("<f2" if name in ("float16", ">f2", "halffloat") else "<f4")


def width_of(path: Path, what: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and dimensions of an array of embeddings, (n, D) or (1, n, D).

    Raises
    ------
    UsageError
        If it has another shape, or nothing in it.
    """
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise UsageError(f"{path}: {what} has shape {tuple(shape)}, but embeddings must be (n, D)")
    return int(shape[0]), int(shape[1])


def slices(array: Any, n: int) -> Iterator[np.ndarray]:
    """Yield the rows of an array of numpy, h5py or torch, few at a time."""
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        yield as_rows(array[0, rows] if len(array.shape) == 3 else array[rows])
        release_pages(array)


def as_rows(values: Any) -> np.ndarray:
    """Return an array of numpy or torch as numpy's; bfloat16, which it lacks, as float32."""
    if hasattr(values, "detach"):
        values = values.detach()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
        return np.asarray(values.numpy())
    return np.asarray(values)


def check_lengths(path: Path, n_rows: int, of: Mapping[str, int]) -> None:
    """Refuse columns that have another number of rows than the embeddings.

    Raises
    ------
    UsageError
    """
    for name, n in of.items():
        if n != n_rows:
            raise UsageError(f"{path}: {name} has {n:,} rows, the embeddings {n_rows:,}")
