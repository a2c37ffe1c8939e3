"""Large collections as parquet for embedding-atlas, which shows millions of points."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from medplus.errors import optional

if TYPE_CHECKING:
    from medplus.exploration.collection import Collection


def to_parquet(view: Collection) -> bytes:
    """Return a collection as a parquet file, one row per image.

    Columns ``name``, ``split``, ``index``, every category of the page, ``x`` and ``y`` of the map,
    and ``neighbors``: ``{"ids": […], "distances": […]}``, with rows of this table as ids, as
    embedding-atlas reads them.

    Raises
    ------
    UsageError
        If pyarrow is missing.
    """
    what = f"{len(view.pool):,} images are too many for a page, and parquet for embedding-atlas"
    pa, pq = (optional(name, what) for name in ("pyarrow", "pyarrow.parquet"))
    pool = view.pool
    # Of a file's name that is no Unicode, what is none is replaced.
    names = [pool.name_of(row).encode("utf-8", "replace").decode() for row in range(len(pool))]
    columns = {"name": pa.array(names), "index": pa.array(pool.index)}
    for one in view.columns:
        words = pa.array([name.encode("utf-8", "replace").decode() for name in one.names])
        columns[one.key] = pa.DictionaryArray.from_arrays(pa.array(one.values, pa.int32()), words)
    for column in ("x", "y"):
        columns[column] = pa.array(view.places[:, int(column == "y")])
    columns["neighbors"] = pa.StructArray.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            for values in (view.neighbours, view.distances)
        ],
        ["ids", "distances"],
    )
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


def command(path: object) -> str:
    """Return the command that shows such a file."""
    return f"embedding-atlas {path} --x x --y y --neighbors neighbors"
