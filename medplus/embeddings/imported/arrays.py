"""One file of named arrays: npz, HDF5 or torch's ``.pt``."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from medplus.datasets import npzfile
from medplus.datasets.cache import check_room
from medplus.datasets.files import split_of
from medplus.embeddings.imported import source
from medplus.embeddings.imported.source import Kind, Source
from medplus.embeddings.imported.tensors import load_torch
from medplus.embeddings.info import StoreInfo
from medplus.errors import UsageError, first_line, optional
from medplus.jsonfile import parse_json
from medplus.naming import counted, some
from medplus.vocabulary import SPLITS, Split

HDF5 = (".h5", ".hdf5")
_ATTRIBUTES = "medplus"

Part = dict[Kind, str]
"""The arrays of a split, or of all rows, by what they hold."""


@contextmanager
def open_arrays(path: Path, scratch: Path) -> Iterator[Source]:
    """Open a file of arrays; `scratch` is an empty folder for what has to be unpacked.

    Raises
    ------
    UsageError, DatasetError
        If the file cannot be read, holds a pickle, or no embeddings.
    """
    if path.suffix == ".npz":
        yield _describe(path, _npz(path, scratch))
    else:
        with open_named(path) as named:
            yield _describe(path, {name: _plain(path, array) for name, array in named.items()})


@contextmanager
def open_named(path: Path) -> Iterator[dict[str, Any]]:
    """Open the arrays of an HDF5 file, or the tensors and lists of a file of torch, by name.

    What a file of torch holds without a name is called ``embeddings``.

    Raises
    ------
    UsageError
        If h5py is missing, or the file cannot be read.
    """
    if path.suffix in HDF5:
        with _open_hdf5(path) as file:
            # Of groups there is no shape, and of datasets without any data None.
            yield {n: file[n] for n in file if getattr(file[n], "shape", None) is not None}
        return
    found = load_torch(path)
    named = found if isinstance(found, dict) else {"embeddings": found}
    yield {
        str(name): value
        for name, value in named.items()
        if hasattr(value, "shape") or isinstance(value, list | tuple)
    }


def _open_hdf5(path: Path) -> Any:
    h5py = optional("h5py", f"to read {path}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UsageError(f"{path} is no HDF5 file that can be read: {first_line(error)}") from None


def _plain(path: Path, value: Any) -> Any:
    """Return an array as it is, or in memory where it is a list, or HDF5's text."""
    if isinstance(value, list | tuple):
        if any(hasattr(one, "shape") for one in value):
            raise UsageError(f"{path} holds a list of tensors; save a tensor, or a dict of them")
        try:
            return np.array(value)
        except ValueError:
            raise UsageError(f"{path} holds a list of rows that differ in length") from None
    is_text = hasattr(value, "id") and value.dtype.kind not in "fiub"
    return np.array(value[...].tolist()) if is_text else value


def _npz(path: Path, scratch: Path) -> dict[str, Any]:
    """Unpack the arrays of an npz file; those of embeddings are mapped."""
    arrays: dict[str, Any] = {}
    with npzfile.open_npz(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in dict.fromkeys(names):
            header = npzfile.read_header(archive, path, name)
            blocks = npzfile.read_blocks(archive, path, header)
            if _place_of(name)[1] != "embedding":
                arrays[name] = np.load(io.BytesIO(b"".join(blocks)), allow_pickle=False)
                continue
            place = scratch / f"{len(arrays)}.npy"
            check_room(scratch, header.nbytes)
            with place.open("wb") as file:
                file.writelines(blocks)
            arrays[name] = np.load(place, mmap_mode="r", allow_pickle=False)
    return arrays


def _place_of(name: str) -> tuple[Split | None, Kind | None]:
    """Return the split and the kind that an array's name means: ``train_features``, ``X_test``."""
    if kind := source.kind_of(name):
        return None, kind
    for pattern in (r"(?P<split>[^_]+)_(?P<kind>.+)", r"(?P<kind>.+)_(?P<split>[^_]+)"):
        match = re.fullmatch(pattern, name)
        if match and split_of(match["split"]):
            return split_of(match["split"]), source.kind_of(match["kind"])
    return None, None


def _describe(path: Path, arrays: Mapping[str, Any]) -> Source:
    """Tell the arrays apart, and return what they hold."""
    parts: dict[Split | None, Part] = defaultdict(dict)
    unused = []
    for name in arrays:
        split, kind = _place_of(name)
        if kind is None:
            unused.append(name)
        elif kind in parts[split]:
            raise UsageError(
                f"{path} holds several that may be its {kind} {some([parts[split][kind], name])}; "
                "keep one of them"
            )
        else:
            parts[split][kind] = name
    shared = parts.pop(None, {})
    exported = read_attributes(path, arrays.get(_ATTRIBUTES, ""))
    if exported is not None:
        unused.remove(_ATTRIBUTES)
    given: dict[Split | None, Part] = {
        split: parts[split] for split in SPLITS if "embedding" in parts.get(split, {})
    }
    if "embedding" in shared:
        if given:
            told = some([shared["embedding"], *(part["embedding"] for part in given.values())])
            raise UsageError(f"{path} holds embeddings of splits beside others {told}; keep either")
        given = {None: shared}
    if not given:
        raise UsageError(
            f"{path} holds no embeddings (it holds {some(arrays)}); name the array embeddings, "
            "features or X, or one for each split train_embeddings, val_embeddings, test_embeddings"
        )
    return _joined(path, arrays, given, shared, exported, unused)


def _joined(
    path: Path,
    arrays: Mapping[str, Any],
    parts: Mapping[Split | None, Part],
    shared: Part,
    exported: StoreInfo | None,
    unused: list[str],
) -> Source:
    """Join the splits' arrays to one table of items."""
    read = {s: {k: _values(arrays[n]) for k, n in p.items() if k != "embedding"}
            for s, p in parts.items()}  # fmt: skip
    shapes = {s: source.width_of(path, p["embedding"], arrays[p["embedding"]].shape)
              for s, p in parts.items()}  # fmt: skip
    if len({dim for _, dim in shapes.values()}) > 1:
        told = ", ".join(f"{parts[s]['embedding']} {shape}" for s, shape in shapes.items())
        raise UsageError(f"{path}: the splits' embeddings differ in width ({told})")
    for split, part in parts.items():
        lengths = {part[k]: len(v) for k, v in read[split].items() if k != "classes"}
        source.check_lengths(path, shapes[split][0], lengths)
    columns: dict[str, list[str]] = {}
    said: dict[str, Any] = {}
    if all("label" in part for part in parts.values()):
        classes = exported.classes if exported else []
        if "classes" in shared and not exported:
            classes = source.as_words(_values(arrays[shared["classes"]]))
        labels = _stacked(path, [read[s]["label"] for s in parts])
        task = exported.task if exported else None
        columns, said = source.label_columns(path, labels, classes, task)
    for kind in ("split", "group"):
        if all(kind in part for part in parts.values()):
            columns[kind] = [text for s in parts for text in source.as_words(read[s][kind])]
    if None not in parts:
        columns["split"] = [str(s) for s in parts for _ in range(shapes[s][0])]
    if "group" in columns:
        said["group_column"] = "group"
    has_index = exported is not None and all("index" in part for part in parts.values())
    embeddings = [(arrays[part["embedding"]], shapes[s][0]) for s, part in parts.items()]

    def blocks() -> Iterator[np.ndarray]:
        for array, n in embeddings:
            yield from source.slices(array, n)

    n_rows = sum(n for n, _ in shapes.values())
    dim = next(iter(shapes.values()))[1]
    dtypes = {source.stored_dtype(path, array.dtype) for array, _ in embeddings}
    return Source(
        path=path,
        names=[name for s in parts for name in _names(s, read[s].get("name"), shapes[s][0])],
        columns=columns,
        dim=dim,
        dtype=max(dtypes, key=lambda dtype: dtype.itemsize),
        blocks=blocks,
        images=f"{counted(n_rows, 'embedding')} of {dim} dimensions in "
        f"{' + '.join(part['embedding'] for part in parts.values())}",
        index=np.concatenate([read[s]["index"] for s in parts]) if has_index else None,
        ordered=has_index or not all("name" in part for part in parts.values()),
        said=said,
        size=exported.size if exported else None,
        unused=unused,
    )


def _values(array: Any) -> np.ndarray:
    return np.atleast_1d(source.as_rows(array[...] if hasattr(array, "id") else array))


def _stacked(path: Path, values: list[np.ndarray]) -> np.ndarray:
    columns = [value[:, None] if value.ndim == 1 else value for value in values]
    if len({column.shape[1:] for column in columns}) > 1:
        told = ", ".join(str(value.shape) for value in values)
        raise UsageError(f"{path}: the splits' labels differ in width ({told})")
    return np.concatenate(columns)


def _names(split: Split | None, given: np.ndarray | None, n: int) -> list[str]:
    """Return the names of rows, or numbers as those of an npz file of images have them."""
    if given is None or not any(words := source.as_words(given)):
        width = len(str(n - 1)) if split is None else 1
        return [f"{split or 'row'}/{i:0{width}}" for i in range(n)]
    return words


def read_attributes(path: Path, text: Any) -> StoreInfo | None:
    """Return what an export of medplus says of its store, or None where there is none.

    Raises
    ------
    UsageError
        If it is damaged.
    """
    text = text.item() if hasattr(text, "item") and text.shape == () else text
    text = text.encode() if isinstance(text, str) else text
    if not isinstance(text, bytes) or not text:
        return None
    try:
        return StoreInfo.model_validate(parse_json(text))
    except (ValidationError, ValueError, AttributeError):
        raise UsageError(
            f"{path}: what it says of its store ('{_ATTRIBUTES}') is not what medplus store export "
            "writes; export it again"
        ) from None
