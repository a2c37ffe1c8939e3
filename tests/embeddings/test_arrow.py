"""A store as an Arrow table, and what DuckDB makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.embeddings.store import open_store
from medplus.embeddings.view import View
from medplus.embeddings.writer import open_writer
from medplus.vocabulary import SPLITS
from tests.records import samples

duckdb = pytest.importorskip("duckdb")


@pytest.fixture(scope="module", params=["float32", "float16"])
def store(request, store_info, store_path, new_folder):
    """A store of two patients, one of whose images has a name that is no Unicode."""
    rng = np.random.default_rng(0)
    info = store_info((1030, 3, 2), 4, dtype=request.param)
    path = store_path(new_folder(), info)
    labels = {s: rng.integers(0, 3, (info.n_samples[s], 1), np.uint8) for s in SPLITS}
    names = {s: [f"{s}/ä{i}.png" for i in range(info.n_samples[s])] for s in SPLITS}
    names["val"][1] = b"val/\xff.png".decode(errors="surrogateescape")
    groups = {s: [f"patient {i % 2}" for i in range(info.n_samples[s])] for s in SPLITS}
    with open_writer(path, info, samples(labels, names, groups)) as writer:
        for split in SPLITS:
            layout = info.layout(split)
            for chunk in writer.missing[split]:
                rows = layout.rows(chunk)
                values = rng.normal(size=(rows.stop - rows.start, 4)).astype(request.param)
                writer.commit(split, chunk, values)
        writer.finish({})
    return open_store(path)


def test_a_table_has_every_row_of_a_split_and_what_is_known_of_it(store):
    table = store.to_arrow("train")
    assert table.column_names == ["split", "index", "name", "group", "label", "embedding"]
    assert table["name"].to_pylist() == store.names("train")
    assert table["group"].to_pylist() == store.groups("train")
    assert table["label"].to_pylist() == store.labels("train")[:, 0].tolist()
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 4), store.embeddings("train"))
    assert store.to_arrow()["split"].to_pylist() == ["train"] * 1030 + ["val"] * 3 + ["test"] * 2
    assert store.to_arrow("val")["name"][1].as_py() == "val/\ufffd.png"


def test_duckdb_finds_the_neighbours_that_numpy_finds(store):
    embeddings = store.to_arrow()
    found = duckdb.sql("""
        SELECT n."index" FROM embeddings t, embeddings n
        WHERE t.split = 'test' AND n.split = 'train'
        QUALIFY row_number() OVER (
            PARTITION BY t."index" ORDER BY array_distance(t.embedding, n.embedding)) = 1
        ORDER BY t."index"
    """).fetchall()
    train, test = (store.embeddings(split).astype("f8") for split in ("train", "test"))
    expected = np.linalg.norm(test[:, None] - train, axis=2).argmin(1)
    assert [row for (row,) in found] == expected.tolist()
    assert len(embeddings) == 1035


def test_rows_of_a_view_are_those_that_are_left(store):
    rows = {"train": np.array([3, 1031]), "val": np.array([0]), "test": np.array([1])}
    table = View(store, rows).to_arrow()
    assert table["index"].to_pylist() == [3, 1, 0, 1]
    assert table["split"].to_pylist() == ["train", "train", "val", "test"]
