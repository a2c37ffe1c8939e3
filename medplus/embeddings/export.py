"""Taking embeddings elsewhere: npz, Arrow and parquet, the whole store in one zip archive."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medplus.embeddings.container import ARCHIVE, open_container
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.layout import METADATA
from medplus.embeddings.store import EmbeddingStore, remedy
from medplus.errors import StoreError, UsageError, explained, optional
from medplus.vocabulary import Split

if TYPE_CHECKING:
    import pyarrow


def export_store(store: EmbeddingStore, target: Path) -> None:
    """Write a store's embeddings, labels, index and names to one file.

    Parameters
    ----------
    store : EmbeddingStore
    target : Path
        ``.zarr.zip``: the store itself, which opens as one. ``.npz``: arrays
        ``{split}_embeddings``, ``{split}_labels``, ``{split}_index``, ``{split}_names``,
        ``{split}_groups`` where there are groups, and the attributes as JSON in ``medplus``.
        ``.parquet``: one row per sample, with columns ``split``, ``index``, ``name``, ``group``
        where there are groups, ``label`` (or ``label_0`` …) and ``embedding`` (a list of D
        floats).

    Raises
    ------
    UsageError
        If the ending is none of these, pyarrow is missing, or the file exists.
    StoreError
        If the store is damaged, or the file cannot be written.
    """
    writers = {".npz": _write_npz, ".parquet": _write_parquet, ARCHIVE: _write_archive}
    ending = ARCHIVE if target.name.endswith(ARCHIVE) else target.suffix
    if ending not in writers:
        raise UsageError(
            f"cannot export to {target}: the file must end in .npz, .parquet or {ARCHIVE}"
        )
    if target.exists():
        raise UsageError(f"{target} exists already; delete it, or name another file")
    remedy = "free space or name another file"
    with explained(StoreError, f"{target} cannot be written", remedy):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            temporary = Path(folder) / target.name
            writers[ending](store, temporary)
            temporary.replace(target)


def _write_npz(store: EmbeddingStore, target: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for split in store.info.splits:
        arrays[f"{split}_embeddings"] = store.embeddings(split)
        for name in store.info.arrays[1:]:
            arrays[f"{split}_{name}"] = np.array(store.column(split, name))
    attributes = np.array(json.dumps(store.info.model_dump(mode="json")))
    np.savez(target, allow_pickle=False, medplus=attributes, **arrays)


def _write_parquet(store: EmbeddingStore, target: Path) -> None:
    table = store.to_arrow()
    import pyarrow.parquet as pq

    pq.write_table(table, target)


def _write_archive(store: EmbeddingStore, target: Path) -> None:
    damage = store.verify()
    if damage:
        raise StoreError(
            f"{store.path} is damaged (first: {damage[0].array}); {remedy(store.path, store.info)}"
        )
    container = open_container(store.path)
    with zipfile.ZipFile(target, "w") as file:
        for key in _keys(store.info):
            entry = zipfile.ZipInfo(key)  # without a date: equal stores, equal archives
            entry.external_attr = 0o644 << 16
            file.writestr(entry, container.read(key))


def _keys(info: StoreInfo) -> Iterator[str]:
    """Yield the name of every file of a store."""
    yield METADATA
    for split in info.splits:
        yield f"{split}/{METADATA}"
    for layout in info.all_layouts():
        yield f"{layout.path}/{METADATA}"
        for chunk in range(layout.n_chunks):
            yield layout.chunk_key(chunk)


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
