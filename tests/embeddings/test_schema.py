"""The layout of a store: DESIGN §4, in terms that zarr itself agrees with."""

from __future__ import annotations

import itertools
import json
import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from medplus.embeddings.schema import ArrayLayout, group_metadata, split_layout

SIZES = [1, 2, 1023, 1024, 1025, 2048, 2500]
UINT8, INT64 = np.dtype("u1"), np.dtype("<i8")


@pytest.mark.parametrize("n", SIZES)
def test_embeddings_lie_in_chunks_of_at_most_1024_whole_rows(n):
    layout, _, _ = split_layout("val", n, 5, 1, "float32", UINT8)
    assert layout.path == "val/embeddings"
    assert layout.shape == (n, 5)
    assert layout.chunk_shape == (min(n, 1024), 5)
    assert layout.dtype == np.float32
    assert layout.chunk_nbytes == min(n, 1024) * 5 * 4


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("n_labels", "dtype"), [(1, UINT8), (14, UINT8), (1, INT64)])
def test_labels_and_index_lie_in_one_chunk_each(n, n_labels, dtype):
    _, labels, index = split_layout("test", n, 5, n_labels, "float32", dtype)
    assert (labels.path, labels.shape, labels.dtype) == ("test/labels", (n, n_labels), dtype)
    assert (index.path, index.shape, index.dtype) == ("test/index", (n,), np.int64)
    assert labels.n_chunks == index.n_chunks == 1


@given(n=st.integers(1, 10_000), chunk_rows=st.integers(1, 3000))
def test_chunks_partition_the_rows_in_order(n, chunk_rows):
    layout = ArrayLayout("train/embeddings", (n, 1), np.dtype("<f4"), chunk_rows)
    spans = [layout.rows(chunk) for chunk in range(layout.n_chunks)]
    assert spans[0].start == 0
    assert spans[-1].stop == n
    assert all(a.stop == b.start for a, b in itertools.pairwise(spans))
    assert all(0 < s.stop - s.start <= chunk_rows for s in spans)
    assert all(s.stop - s.start == chunk_rows for s in spans[:-1])


def zarr_array(layout):
    """Make the same array with zarr's own writer."""
    return zarr.create_array(
        MemoryStore(),
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunk_shape,
        compressors=None,
        filters=None,
        fill_value=np.nan if layout.dtype.kind == "f" else 0,
        zarr_format=3,
    )


layouts = pytest.mark.parametrize(
    "layout",
    [
        layout
        for n in (1, 1025)
        for dtype in ("float32", "float16")
        for label_dtype in (UINT8, INT64)
        for layout in split_layout("train", n, 3, 2, dtype, label_dtype)
    ],
    ids=lambda layout: f"{layout.path}-{layout.shape[0]}-{layout.dtype}",
)


@layouts
def test_array_metadata_are_what_zarr_would_write(layout):
    theirs = zarr_array(layout).metadata
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = type(theirs).from_dict(layout.metadata())
    # As JSON, since NaN does not equal itself.
    assert json.dumps(ours.to_dict()) == json.dumps(theirs.to_dict())


@layouts
def test_chunk_files_are_where_zarr_looks_for_them(layout, tmp_path):
    encoding = zarr_array(layout).metadata.chunk_key_encoding
    for chunk in range(layout.n_chunks):
        where = (chunk, 0) if len(layout.shape) == 2 else (chunk,)
        expected = tmp_path / layout.path / encoding.encode_chunk_key(where)
        assert layout.chunk_file(tmp_path, chunk) == expected


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_chunk_that_is_not_there_reads_as_nan(dtype, tmp_path):
    layout, _, _ = split_layout("train", 3, 2, 1, dtype, UINT8)
    (tmp_path / "zarr.json").write_text(json.dumps(layout.metadata()))
    assert np.isnan(zarr.open_array(tmp_path, mode="r")[:]).all()


def test_group_metadata_are_a_group_to_zarr(tmp_path):
    (tmp_path / "zarr.json").write_text(json.dumps(group_metadata({"medplus": {"a": 1}})))
    assert dict(zarr.open_group(tmp_path, mode="r").attrs) == {"medplus": {"a": 1}}
