"""A store as an Arrow table: what parquet files, data frames and DuckDB are made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medplus.errors import optional
from medplus.vocabulary import Split

if TYPE_CHECKING:
    import pyarrow

    from medplus.embeddings.store import EmbeddingStore


def to_table(store: EmbeddingStore, splits: Sequence[Split]) -> pyarrow.Table:
    """Return some splits of a store, with its attributes as JSON under ``medplus``.

    As `EmbeddingStore.to_arrow` says.
    """
    pa = optional("pyarrow", "an Arrow table")
    tables = []
    for split in splits:
        # Few readers know float16; DuckDB does not.
        values = store.embeddings(split).astype(np.float32, copy=False)
        labels = store.labels(split)
        columns = {
            "split": pa.array([split] * len(values)).dictionary_encode(),
            "index": pa.array(store.index(split)),
            "name": pa.array(map(_readable, store.names(split)), pa.string()),
        }
        if store.info.group_nbytes:
            columns["group"] = pa.array(map(_readable, store.groups(split)), pa.string())
        for i in range(labels.shape[1]):
            columns["label" if labels.shape[1] == 1 else f"label_{i}"] = pa.array(labels[:, i])
        flat = pa.array(values.reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        tables.append(pa.table(columns))
    attributes = json.dumps(store.info.model_dump(mode="json"))
    return pa.concat_tables(tables).replace_schema_metadata({"medplus": attributes})


def _readable(name: str) -> str:
    """Return a name as Unicode, which the names of files need not be."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
