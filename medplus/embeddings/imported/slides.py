"""A folder of one file per slide, as TRIDENT, CLAM and eva write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from medplus.datasets.columns import PATH, read_columns, refuse_twins
from medplus.embeddings.imported import source
from medplus.embeddings.imported.arrays import HDF5, open_named
from medplus.embeddings.imported.source import Rows, Source
from medplus.embeddings.imported.tensors import TORCH
from medplus.errors import UsageError
from medplus.naming import counted, several, some

MANIFEST = "manifest.csv"
_EVA = ("origin", "embeddings", "target", "split")
_GROUPS = ("wsi_id", "slide_id")


@dataclass(frozen=True)
class _Slide:
    name: str
    path: Path
    shape: tuple[int, int]
    dtype: np.dtype


def open_slides(folder: Path, rows: Rows) -> Source:
    """Return what the files of a folder hold; embeddings are read when they are used.

    Parameters
    ----------
    rows : {"slides", "patches"}
        Whether the mean of a slide's patches is its embedding, or each patch has a row.

    Raises
    ------
    UsageError
        If there are no such files, or one cannot be used.
    """
    columns, said, paths = _listed(folder)
    slides = [_look(path, name) for name, path in paths.items()]
    widths = Counter(slide.shape[1] for slide in slides)
    dim = widths.most_common(1)[0][0]
    odd = [str(slide.path) for slide in slides if slide.shape[1] != dim]
    if odd:
        raise UsageError(
            f"{folder}: {several(odd, 'file')} of another width than {dim}; keep the features of "
            "one encoder in a folder"
        )
    counts = np.array([slide.shape[0] for slide in slides], np.int64)
    many = bool((counts > 1).any())
    apart = many and rows == "patches"
    told = f"{counted(int(counts.sum()), 'row')} of {dim} dimensions in {len(slides):,} files"
    if many:
        told += ", each its slide's (--rows slides takes their mean)" if apart else (
            ", their mean is a slide's embedding (--rows patches keeps them apart)")  # fmt: skip
    meant = many and not apart
    dtypes = [np.dtype("<f4")] if meant else [slide.dtype for slide in slides]
    return Source(
        path=folder,
        names=[slide.name for slide in slides],
        columns=columns,
        dim=dim,
        dtype=max(dtypes, key=lambda dtype: dtype.itemsize),
        blocks=lambda: _means(slides) if meant else chain.from_iterable(map(_of_slide, slides)),
        images=told,
        counts=counts if apart else None,
        row_names=(lambda item: _patch_names(slides[item])) if apart else None,
        said=said,
    )


def _listed(folder: Path) -> tuple[dict[str, list[str]], dict[str, Any], dict[str, Path]]:
    """Return what eva's manifest says, and the files by the names of their slides."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return _from_manifest(folder, manifest)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (*HDF5, *TORCH) and not path.name.startswith(".")
    )
    endings = sorted({path.suffix for path in files})
    if not files:
        raise UsageError(
            f"{folder} holds no {' or '.join((*HDF5, *TORCH))} files of embeddings; name the "
            "folder that does, or one npz or parquet file"
        )
    if len(endings) > 1:
        raise UsageError(
            f"{folder} holds {' and '.join(endings)} files, perhaps the same embeddings twice; "
            "name the folder of one kind"
        )
    return {}, {}, {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def _from_manifest(
    folder: Path, manifest: Path
) -> tuple[dict[str, list[str]], dict[str, Any], dict[str, Path]]:
    table = read_columns(manifest)
    origin, files = table.full(_EVA[0]), table.full(_EVA[1])
    inside = folder.resolve()
    paths = [folder / file for file in files]
    gone = [f for f, p in zip(files, paths, strict=True) if not p.is_file()]
    if gone:
        raise UsageError(f"{manifest} names {several(gone, 'file')} that {folder} does not hold")
    out = [file for file, path in zip(files, paths, strict=True)
           if not path.resolve().is_relative_to(inside)]  # fmt: skip
    if out:
        raise UsageError(f"{manifest} names {several(out, 'file')} outside {folder}")
    names = origin if len(set(origin)) == len(origin) else files
    refuse_twins(manifest, names, "file")
    columns = {name: words for name, words in table.columns.items() if name not in (*_EVA, PATH)}
    if any(table.columns.get("target", ())):
        columns[source.LABEL] = table.columns["target"]
    columns["split"] = table.columns.get("split", [""] * len(files))
    groups = [name for name in _GROUPS if name in columns]
    said = {"group_column": groups[0]} if groups else {}
    return columns, said, dict(zip(names, paths, strict=True))


def _look(path: Path, name: str) -> _Slide:
    with _opened(path) as parts:
        width = {part.shape[-1] for part in parts}
        if len(width) > 1:
            raise UsageError(f"{path}: its tensors differ in width {some(map(str, width))}")
        n_rows, dtype = sum(map(_n_rows, parts)), source.stored_dtype(path, parts[0].dtype)
        if n_rows == 0:
            raise UsageError(
                f"{path} holds no patch; leave the slide out, and its row in the table"
            )
        for part in filter(_n_rows, parts):
            shape = part.shape if len(part.shape) > 1 else (1, *part.shape)
            source.width_of(path, "features", shape)
    return _Slide(name, path, (n_rows, *width), dtype)


@contextmanager
def _opened(path: Path) -> Iterator[list[Any]]:
    """Open the arrays of a slide, each (n, D), (1, n, D) or (D,); eva writes a list of them."""
    with open_named(path) as named:
        name = source.only(path, named, "embedding")
        if name is None:
            raise UsageError(f"{path} has no 'features' (it has {some(named)})")
        found = named[name]
        parts = list(found) if isinstance(found, list | tuple) else [found]
        if not parts or not all(hasattr(part, "shape") and len(part.shape) for part in parts):
            raise UsageError(f"{path} holds no tensor of embeddings")
        yield parts


def _n_rows(array: Any) -> int:
    return 1 if len(array.shape) == 1 else int(array.shape[-2])


def _of_slide(slide: _Slide) -> Iterator[np.ndarray]:
    """Yield a slide's rows, few at a time."""
    with _opened(slide.path) as parts:
        for part in parts:
            if len(part.shape) == 1:
                yield source.as_rows(part[...])[None]
            else:
                yield from source.slices(part, _n_rows(part))


def _means(slides: list[_Slide]) -> Iterator[np.ndarray]:
    for slide in slides:
        total = np.zeros(slide.shape[1])
        for block in _of_slide(slide):
            total += block.sum(0, dtype=np.float64)
        yield (total / slide.shape[0])[None].astype(np.float32)


def _patch_names(slide: _Slide) -> list[str]:
    """Return the names of a slide's patches: by their coordinates where it has them."""
    n = slide.shape[0]
    with open_named(slide.path) as named:
        coords: Any = named.get("coords")
        found = np.empty(0) if not hasattr(coords, "shape") else source.as_rows(coords[...])
    found = found[0] if found.ndim == 3 and len(found) == 1 else found
    if found.ndim == 2 and len(found) == n:
        return [f"{slide.name}/{'_'.join(map(str, xy))}" for xy in list(found)]
    return [f"{slide.name}/{i}" for i in range(n)]
