"""Taking embeddings elsewhere: npz and parquet."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from medplus.embeddings.store import EmbeddingStore
from medplus.errors import StoreError, UsageError
from medplus.vocabulary import SPLITS


def export_store(store: EmbeddingStore, target: Path) -> None:
    """Write a store's embeddings, labels and index to one file.

    Parameters
    ----------
    store : EmbeddingStore
    target : Path
        ``.npz``: arrays ``{split}_embeddings``, ``{split}_labels``, ``{split}_index`` and the
        attributes as JSON in ``medplus``. ``.parquet``: one row per sample, with columns
        ``split``, ``index``, ``label`` (or ``label_0`` …) and ``embedding`` (a list of D floats).

    Raises
    ------
    UsageError
        If the ending is neither, pyarrow is missing, or the file exists.
    StoreError
        If the store is damaged, or the file cannot be written.
    """
    writers = {".npz": _write_npz, ".parquet": _write_parquet}
    if target.suffix not in writers:
        raise UsageError(f"cannot export to {target}: the file must end in .npz or .parquet")
    if target.exists():
        raise UsageError(f"{target} exists already; delete it, or name another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            temporary = Path(folder) / target.name
            writers[target.suffix](store, temporary)
            temporary.replace(target)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror or error}; free space or name another "
            "file"
        ) from error


def _write_npz(store: EmbeddingStore, target: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        arrays[f"{split}_embeddings"] = store.embeddings(split)
        arrays[f"{split}_labels"] = store.labels(split)
        arrays[f"{split}_index"] = store.index(split)
    attributes = np.array(json.dumps(store.info.model_dump(mode="json")))
    np.savez(target, allow_pickle=False, medplus=attributes, **arrays)


def _write_parquet(store: EmbeddingStore, target: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(
            "export to parquet needs pyarrow; run: pip install 'medplus[parquet]'"
        ) from None

    tables = []
    for split in SPLITS:
        values, labels = store.embeddings(split), store.labels(split)
        n = len(values)
        columns = {
            "split": pa.array([split] * n).dictionary_encode(),
            "index": pa.array(store.index(split)),
        }
        for i in range(labels.shape[1]):
            columns["label" if labels.shape[1] == 1 else f"label_{i}"] = pa.array(labels[:, i])
        flat = pa.array(values.reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables).replace_schema_metadata(
        {"medplus": json.dumps(store.info.model_dump(mode="json"))}
    )
    pq.write_table(table, target)
