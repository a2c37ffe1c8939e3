"""What goes wrong in an extraction is said, and what is computed is kept."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
import torch

from medplus import lock
from medplus.backbones.inference import Embedder
from medplus.embeddings import pipeline
from medplus.embeddings.writer import StoreWriter, open_writer
from medplus.errors import BackboneError, StoreError
from medplus.vocabulary import SPLITS
from tests.embeddings.extractions import (
    N_CHUNKS,
    Scaled,
    chunk_files,
    leftovers,
    run,
)
from tests.records import samples


def no_threads_left():
    return [t.name for t in threading.enumerate() if t.name.startswith("medplus-")] == []


def fail_commits_after(monkeypatch, count, error):
    commit = StoreWriter.commit
    done = []

    def limited(self, split, chunk, rows):
        if len(done) >= count:
            raise error
        done.append((split, chunk))
        commit(self, split, chunk, rows)

    monkeypatch.setattr(StoreWriter, "commit", limited)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", range(N_CHUNKS))
def test_an_error_of_the_writer_thread_ends_the_extraction_and_keeps_what_is_written(
    count, npz, tmp_path, monkeypatch
):
    [whole] = run(npz, tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_commits_after(patch, count, StoreError("the disk is full"))
        with pytest.raises(StoreError, match="the disk is full"):
            run(npz, tmp_path, batch_size=16)
    assert no_threads_left()
    assert leftovers(tmp_path) == []
    [resumed] = run(npz, tmp_path)
    assert (resumed.status, resumed.chunks_reused) == ("resumed", count)
    assert chunk_files(resumed.store.path) == chunk_files(whole.store.path)


@pytest.mark.timeout(60)
def test_an_error_of_the_reader_thread_ends_the_extraction(npz, tmp_path, monkeypatch):
    read = pipeline.as_tensor
    calls = []

    def failing(images, split, rows):
        calls.append(rows)
        if len(calls) > 36:  # in val, after 32 + 3 of train
            raise OSError("the image server is gone")
        return read(images, split, rows)

    monkeypatch.setattr(pipeline, "as_tensor", failing)
    with pytest.raises(OSError, match="image server"):
        run(npz, tmp_path, batch_size=32)
    assert no_threads_left()
    monkeypatch.setattr(pipeline, "as_tensor", read)
    [resumed] = run(npz, tmp_path)
    assert resumed.chunks_reused == 2


@pytest.mark.timeout(60)
def test_an_error_of_the_network_ends_the_extraction(npz, tmp_path, use_backbone):
    class Faulty(Scaled):
        def forward(self, x):
            if len(x) > 1:
                raise ValueError("matrices do not fit")
            return super().forward(x)

    use_backbone(Faulty())
    with pytest.raises(BackboneError, match="matrices do not fit"):
        run(npz, tmp_path)
    assert no_threads_left()
    assert leftovers(tmp_path) == []


@pytest.mark.timeout(60)
def test_an_interruption_keeps_the_chunks_that_are_computed(npz, tmp_path, use_backbone):
    class Interrupted(Scaled):
        seen = 0

        def forward(self, x):
            self.seen += len(x)
            if self.seen > 1120:  # in val, both chunks of train are computed
                raise KeyboardInterrupt
            return super().forward(x)

    use_backbone(Interrupted())
    with pytest.raises(KeyboardInterrupt) as interruption:
        run(npz, tmp_path, batch_size=10)
    assert no_threads_left(), interruption  # although its traceback is still at hand
    use_backbone(Scaled())
    [resumed] = run(npz, tmp_path)
    assert (resumed.status, resumed.chunks_computed, resumed.chunks_reused) == ("resumed", 2, 2)


class NanAt(Scaled):
    """Non-finite where an image's first pixel is 255."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        y = super().forward(x).clone()
        y[x[:, 0, 0, 0] == 1.0, 3] = self.value
        return y


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_embeddings_are_refused_naming_row_and_remedy(
    value, write_npz, tmp_path, use_backbone
):
    images = np.zeros((1100, 8, 8), np.uint8)
    images[[1050, 1077], 0, 0] = 255
    npz = write_npz(n=(1100, 2, 2), train_images=images)
    use_backbone(NanAt(value))
    with pytest.raises(BackboneError, match=r"non-finite .*train row 1050, 2 rows.*check"):
        run(npz, tmp_path, precision="fp32")
    [path] = tmp_path.glob("*/*/*.zarr")
    assert [file.parent.name for file in path.glob("train/embeddings/c/*/0")] == ["0"]


def test_non_finite_embeddings_of_half_precision_have_full_precision_as_remedy(
    write_npz, tmp_path, use_backbone
):
    images = np.full((3, 8, 8), 255, np.uint8)
    npz = write_npz(n=(3, 2, 2), train_images=images)
    use_backbone(NanAt(float("nan")))
    with pytest.raises(BackboneError, match=r"at bf16 .*use --precision fp32"):
        run(npz, tmp_path, precision="bf16")


def test_embeddings_beyond_float16_are_refused_naming_the_remedy(npz, tmp_path, use_backbone):
    use_backbone(Scaled(1e6))
    with pytest.raises(StoreError, match=r"range of float16 .*--dtype float32"):
        run(npz, tmp_path, dtype="float16")
    [full] = run(npz, tmp_path)
    assert full.store.embeddings("train").max() == pytest.approx(1e6, rel=1e-6)


def test_who_has_waited_finds_the_work_done(npz, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "SILENT_S", 0.1)
    [found] = run(npz, tmp_path)
    labels = {split: found.store.labels(split) for split in SPLITS}
    waited = []
    waiting = threading.Thread(target=lambda: waited.extend(run(npz, tmp_path)))
    with open_writer(found.store.path, found.store.info, samples(labels)):
        waiting.start()
        while "waiting for it to end" not in caplog.text:
            time.sleep(0.01)
        assert not waited
    waiting.join()
    assert [one.status for one in waited] == ["skipped"]
    assert f"process {os.getpid()}" in caplog.text


@pytest.mark.timeout(60)
def test_running_out_of_memory_in_the_middle_of_a_chunk_loses_no_row(npz, tmp_path, monkeypatch):
    [whole] = run(npz, tmp_path / "whole", batch_size=64)
    forward, seen = Embedder._forward, []

    def tight(self, images):
        seen.append(len(images))
        if len(seen) > 4 and len(images) > 24:  # after three full batches of the first chunk
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(Embedder, "_forward", tight)
    [tight_run] = run(npz, tmp_path / "tight", batch_size=64)
    assert max(seen[6:]) <= 24 < max(seen[:6])
    assert chunk_files(tight_run.store.path) == chunk_files(whole.store.path)
