"""A parquet file: a column of lists or columns of numbers, and a table beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medplus.embeddings.imported import source
from medplus.embeddings.imported.arrays import read_attributes
from medplus.embeddings.imported.source import Source
from medplus.embeddings.info import StoreInfo
from medplus.errors import UsageError, first_line, optional
from medplus.naming import counted, some


def open_parquet(path: Path) -> Source:
    """Return what a parquet file holds; embeddings are read when they are used.

    Raises
    ------
    UsageError
        If pyarrow is missing, or the file cannot be read, or holds no embeddings.
    """
    pq = optional("pyarrow.parquet", f"to read {path}")
    try:
        file = pq.ParquetFile(path)
    except Exception as error:
        raise UsageError(
            f"{path} is no parquet file that can be read: {first_line(error)}"
        ) from None
    schema = file.schema_arrow
    exported = read_attributes(path, (schema.metadata or {}).get(b"medplus", ""))
    chosen = _embedding_columns(path, schema)
    n = file.metadata.num_rows
    lists = schema.field(chosen[0]).type if _is_list(schema.field(chosen[0]).type) else None
    dim = len(chosen) if lists is None else _list_width(path, file, chosen[0])
    others = [name for name in schema.names
              if name not in chosen and not name.startswith("__index_level_")]  # fmt: skip
    table = file.read(columns=others)
    columns = {name: source.as_words(table[name].to_pylist()) for name in others}
    name = source.only(path, columns, "name")
    names = columns.pop(name) if name else [f"row/{i:0{len(str(n - 1))}}" for i in range(n)]
    place = columns.pop("index", None) if exported else None
    index = None if place is None else np.array(place, np.int64)
    columns, said = _labels(path, columns, exported)
    if "group" in columns:
        said["group_column"] = "group"
    told = f"the column {chosen[0]}" if lists else f"{len(chosen)} columns {some(chosen)}"
    return Source(
        path=path,
        names=names,
        columns=columns,
        dim=dim,
        dtype=source.stored_dtype(
            path, lists.value_type if lists else schema.field(chosen[0]).type
        ),
        blocks=lambda: _blocks(path, file, chosen, dim),
        images=f"{counted(n, 'embedding')} of {dim} dimensions in {told}",
        index=index,
        ordered=index is not None or name is None,
        said=said,
        size=exported.size if exported else None,
    )


def _labels(
    path: Path, columns: dict[str, list[str]], exported: StoreInfo | None
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return columns with labels as a folder's table has them, and what is known of those."""
    own = [name for name in columns if name.startswith(source.LABEL)]
    if exported is not None and own:
        labels = np.array([columns.pop(name) for name in own]).T.astype(np.int64)
        found, said = source.label_columns(path, labels, exported.classes, exported.task)
        return {**columns, **found}, said
    label = source.only(path, columns, "label")
    if label is not None:
        columns[source.LABEL] = columns.pop(label)
    return columns, {}


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
                or pa.types.is_large_list(kind))  # fmt: skip


def _embedding_columns(path: Path, schema: Any) -> list[str]:
    """Return the one column of lists, or all columns of floats."""
    import pyarrow as pa

    lists = [field.name for field in schema if _is_list(field.type)]
    if len(lists) > 1:
        lists = [name for name in lists if source.kind_of(name) == "embedding"] or lists
    if len(lists) > 1:
        raise UsageError(f"{path} has several columns of lists {some(lists)}; keep one of them")
    found = lists or [
        field.name
        for field in schema
        if pa.types.is_floating(field.type) and source.kind_of(field.name) is None
    ]
    if not found:
        raise UsageError(
            f"{path} has neither a column of lists nor columns of floats (it has "
            f"{some(schema.names)}), so there are no embeddings in it"
        )
    return found


def _list_width(path: Path, file: Any, name: str) -> int:
    for batch in file.iter_batches(1, columns=[name]):
        first = batch.column(0)[0].as_py()
        if first:
            return len(first)
        break
    raise UsageError(f"{path}: the column {name} has no embedding in its first row")


def _blocks(path: Path, file: Any, chosen: list[str], dim: int) -> Iterator[np.ndarray]:
    first = 0
    for batch in file.iter_batches(source.BLOCK, columns=chosen):
        if len(chosen) == 1 and _is_list(batch.schema.field(0).type):
            column = batch.column(0)
            flat = column.flatten()
            lengths = np.diff(column.offsets.to_numpy()) if hasattr(column, "offsets") else dim
            if column.null_count or not np.all(lengths == dim) or len(flat) != len(column) * dim:
                raise UsageError(
                    f"{path}: in the column {chosen[0]} not every row has {dim} numbers (rows "
                    f"{first:,} to {first + len(column) - 1:,})"
                )
            yield flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
        else:
            yield np.stack([c.to_numpy(zero_copy_only=False) for c in batch.columns], 1)
        first += batch.num_rows
