"""The extraction pipeline: every image once, in order, and no work lost whatever happens."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from medplus import lock
from medplus.backbones.build import Backbone
from medplus.backbones.inference import Embedder
from medplus.cli.main import main
from medplus.embeddings import extract as extraction
from medplus.embeddings import pipeline
from medplus.embeddings.extract import extract, extract_all
from medplus.embeddings.store import open_store, read_info, write_info
from medplus.embeddings.writer import StoreWriter, open_writer
from medplus.errors import BackboneError, DatasetError, StoreError, UsageError
from medplus.preprocess import PreprocessSpec
from medplus.vocabulary import SPLITS

NETWORK = "lcnet_035"
N_CHUNKS = 4  # of `npz`: 2 + 1 + 1


@pytest.fixture(scope="module")
def npz(write_npz):
    """1,100 + 40 + 30 images of 8 px: two chunks of train, one each of val and test."""
    return write_npz("toy", n=(1100, 40, 30), size=8, classes=3)


def images_of(npz):
    with np.load(npz) as file:
        return {split: file[f"{split}_images"] for split in SPLITS}


def run(npz, root, backbones=("pixels",), **options):
    return extract_all([str(npz)], [None], backbones, weights="none", store=root, **options)


def chunk_files(path):
    """Return every file of a store but its attributes, which tell when it was made."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file != path / "zarr.json"
    }


def leftovers(root):
    return [p for p in root.rglob("*") if ".tmp-" in p.name or p.name.endswith(".lock")]


class Scaled(torch.nn.Module):
    """A backbone to play with: the pixels times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x.flatten(1) * self.factor


@pytest.fixture
def use_backbone(monkeypatch):
    """Let the pipeline find a module of the test's own under any backbone's name."""

    def use(module, tag="own.tag"):
        spec = PreprocessSpec(mean=(), std=(), fit="native", canvas=None, rgb=False)
        backbone = Backbone("own", tag, module.eval(), spec, "none", "0" * 64, "prelogits")
        monkeypatch.setattr(extraction, "load_backbone", lambda *rest, **more: backbone)

    return use


# --- what is stored ---------------------------------------------------------------------------


def averaged(images, side=28):
    """Scale to 0…1 and average down to at most `side` px, channels first, in plain numpy."""
    planes = images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
    size = planes.shape[-1]
    side = min(side, size)
    edges = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
    rows = [planes[:, :, a:b].mean(2, dtype=np.float64) for a, b in edges]
    cells = [np.stack(rows, 2)[:, :, :, a:b].mean(3) for a, b in edges]
    return np.stack(cells, 3).reshape(len(images), -1) / 255


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 3), (40, 3), (64, 1)])
def test_pixel_embeddings_are_the_averaged_images_in_source_order(
    size, channels, write_npz, tmp_path
):
    npz = write_npz(n=(50, 20, 30), size=size, channels=channels)
    [found] = run(npz, tmp_path, batch_size=7)
    for split, images in images_of(npz).items():
        expected = averaged(images)
        np.testing.assert_allclose(found.store.embeddings(split), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.store.index(split), np.arange(len(images)))


def test_labels_are_stored_in_source_order(npz, tmp_path):
    [found] = run(npz, tmp_path)
    with np.load(npz) as file:
        for split in SPLITS:
            np.testing.assert_array_equal(found.store.labels(split), file[f"{split}_labels"])


def test_network_embeddings_are_the_networks_own_in_source_order(write_npz, tmp_path):
    npz = write_npz(n=(30, 9, 5), size=32, channels=3)
    [found] = run(npz, tmp_path, ["test_resnet"], fit="native", precision="fp32", batch_size=7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", pretrained=False).eval()
    mean, std = (np.array(network.pretrained_cfg[name]) for name in ("mean", "std"))
    for split, images in images_of(npz).items():
        x = torch.from_numpy((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
        with torch.no_grad():
            features = network.forward_features(x)
            expected = network.forward_head(features, pre_logits=True).numpy()
        error = np.abs(found.store.embeddings(split) - expected).max()
        assert error <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("batch_size", [1, 1000, 5000])
def test_batch_size_does_not_change_embeddings(batch_size, write_npz, tmp_path):
    npz = write_npz(n=(1030, 3, 2), size=8)
    [a] = run(npz, tmp_path / "a", batch_size=64)
    [b] = run(npz, tmp_path / "b", batch_size=batch_size)
    assert chunk_files(a.store.path) == chunk_files(b.store.path)


def test_float16_stores_hold_the_rounded_embeddings(npz, tmp_path):
    [full] = run(npz, tmp_path)
    [half] = run(npz, tmp_path, dtype="float16")
    assert half.store.path != full.store.path
    for split in SPLITS:
        expected = full.store.embeddings(split).astype(np.float16)
        assert half.store.embeddings(split).dtype == np.float16
        np.testing.assert_array_equal(half.store.embeddings(split), expected)


def test_store_lies_where_the_design_says_and_tells_what_it_is(npz, tmp_path):
    [found] = run(npz, tmp_path)
    info = found.store.info
    assert found.store.path == tmp_path / "toy/8" / f"pixels-{info.key_digest[:8]}.zarr"
    assert (info.task, info.classes, info.dim) == ("multi-class", ["0", "1", "2"], 64)
    assert info.key["precision"] == "fp32"
    assert info.cost.keys() >= {"seconds", "device_seconds", "device", "peak_memory_bytes"}
    assert info.cost["images_per_second"] == found.images_per_second > 0
    assert leftovers(tmp_path) == []


def test_a_name_that_means_something_to_a_shell_stays_in_its_folder(write_npz, tmp_path):
    npz = write_npz("my $(set)", n=(3, 2, 2))
    [found] = run(npz, tmp_path)
    assert found.store.path.parent.parent.name == "my___set_"
    assert found.store.info.dataset == "my $(set)"


# --- statuses and counts ----------------------------------------------------------------------


def test_status_and_counts_of_a_new_a_complete_and_a_damaged_store(npz, tmp_path):
    [first] = run(npz, tmp_path)
    assert (first.status, first.chunks_computed, first.chunks_reused) == ("extracted", N_CHUNKS, 0)
    assert first.images_per_second == pytest.approx(1170 / first.seconds)
    [second] = run(npz, tmp_path)
    assert (second.status, second.chunks_computed, second.chunks_reused) == ("skipped", 0, N_CHUNKS)
    assert (second.seconds, second.images_per_second) == (0.0, None)
    (first.store.path / "train/embeddings/c/1/0").unlink()
    [third] = run(npz, tmp_path)
    assert (third.status, third.chunks_computed, third.chunks_reused) == ("resumed", 1, 3)
    assert third.images_per_second == pytest.approx(76 / third.seconds)
    assert third.store.verify() == []


def test_json_document_has_the_fields_of_the_contract(npz, tmp_path):
    [found] = run(npz, tmp_path)
    document = found.to_dict()
    assert set(document) == {
        "path", "key", "dataset", "size", "backbone", "dim", "splits", "status",
        "chunks_computed", "chunks_reused", "seconds", "images_per_second",
    }  # fmt: skip
    assert document["splits"] == {"train": 1100, "val": 40, "test": 30}
    assert (document["dataset"], document["size"], document["backbone"]) == ("toy", 8, "pixels")


def test_cost_adds_up_over_sessions(npz, tmp_path):
    [first] = run(npz, tmp_path)
    before = first.store.info.cost
    (first.store.path / "train/embeddings/c/1/0").unlink()
    [again] = run(npz, tmp_path)
    after = again.store.info.cost
    for name in ("seconds", "device_seconds"):
        assert after[name] == pytest.approx(before[name] + again.seconds)
    assert after["peak_memory_bytes"] >= before["peak_memory_bytes"]
    assert after["images_per_second"] == again.images_per_second


def test_energy_of_some_sessions_is_not_told_as_that_of_all(npz, tmp_path):
    [first] = run(npz, tmp_path)
    info = first.store.info
    info.cost["energy_joules"] = 12.0  # as a GPU would have told; the CPU that goes on does not
    write_info(first.store.path, info)
    (first.store.path / "train/embeddings/c/1/0").unlink()
    [again] = run(npz, tmp_path)
    assert "energy_joules" not in again.store.info.cost


def test_each_dataset_is_loaded_once_for_all_backbones(write_npz, tmp_path, monkeypatch):
    loaded = []
    load = extraction.load_dataset

    def watch(name, *arguments, **options):
        loaded.append(name)
        return load(name, *arguments, **options)

    monkeypatch.setattr(extraction, "load_dataset", watch)
    files = [str(write_npz(name, n=(3, 2, 2), size=32)) for name in ("a", "b")]
    found = extract_all(
        files, [None], ["pixels", NETWORK], weights="none", fit="native", store=tmp_path
    )
    assert loaded == files
    assert [(f.store.info.dataset, f.store.info.backbone) for f in found] == [
        ("a", "pixels"), ("a", NETWORK), ("b", "pixels"), ("b", NETWORK),
    ]  # fmt: skip


def test_extract_returns_the_store_itself(npz, tmp_path):
    store = extract(str(npz), backbone="pixels", store=tmp_path)
    assert store.path == open_store(store.path).path


def test_progress_reports_every_image_once(npz, tmp_path):
    from contextlib import contextmanager

    reports = []

    @contextmanager
    def watch(description, total, unit):
        reports.append((total, unit))
        yield reports.append

    run(npz, tmp_path, progress=watch)
    assert reports[0] == (1170, "img")
    assert sum(reports[1:]) == 1170


# --- wrong requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datasets", "backbones", "options"),
    [
        (["toy.npz", "brestmnist"], ["pixels"], {}),
        (["toy.npz"], ["pixels", "resnet81"], {}),
        (["toy.npz"], ["pixels"], {"batch_size": 0}),
        (["toy.npz"], ["pixels"], {"precision": "fp17"}),
        (["toy.npz"], ["pixels"], {"device": "abacus"}),
    ],
)
def test_every_name_is_checked_before_any_work(datasets, backbones, options, write_npz, tmp_path):
    folder = write_npz(n=(3, 2, 2)).parent
    datasets = [str(folder / name) if name == "toy.npz" else name for name in datasets]
    with pytest.raises(UsageError):
        extract_all(datasets, [None], backbones, weights="none", store=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_images_larger_than_the_canvas_are_refused(write_npz, tmp_path):
    npz = write_npz(n=(2, 1, 1), size=230)
    with pytest.raises(UsageError, match="--fit resize"):
        run(npz, tmp_path, [NETWORK])


# --- what goes wrong on the way ---------------------------------------------------------------


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
    assert list(read_info(path).checksums["train/embeddings"]) == ["0"]


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


def test_a_store_that_is_being_written_is_waited_for_as_long_as_patience_lasts(npz, tmp_path):
    [found] = run(npz, tmp_path)
    labels = {split: found.store.labels(split) for split in SPLITS}
    with (
        open_writer(found.store.path, found.store.info, labels),
        pytest.raises(StoreError, match=f"in use by process {os.getpid()}"),
    ):
        run(npz, tmp_path, patience_s=0.1)


def test_who_has_waited_finds_the_work_done(npz, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "_SILENT_S", 0.1)
    [found] = run(npz, tmp_path)
    labels = {split: found.store.labels(split) for split in SPLITS}
    waited = []
    waiting = threading.Thread(target=lambda: waited.extend(run(npz, tmp_path)))
    with open_writer(found.store.path, found.store.info, labels):
        waiting.start()
        while "waiting for it to end" not in caplog.text:
            time.sleep(0.01)
        assert not waited
    waiting.join()
    assert [one.status for one in waited] == ["skipped"]
    assert f"process {os.getpid()}" in caplog.text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing\.npz"):
        run(tmp_path / "nothing.npz", tmp_path)


# --- killed, interrupted, and how much memory -------------------------------------------------

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")


@pytest.fixture(scope="module")
def start():
    """Return a function that starts a `medplus` command in a process of its own.

    The processes are forked from a server that has imported everything, so that they are at work
    within milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medplus.cli.extract", "medplus.embeddings.extract", "timm"])
    started = []

    def start_command(*words):
        process = context.Process(target=main, args=([str(word) for word in words],))
        process.start()
        started.append(process)
        return process

    start_command("--version").join()  # the server is up, so that durations mean something
    yield start_command
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def many(write_npz):
    """2,100 + 3 + 2 images of 16 px: 3 + 1 + 1 chunks."""
    return write_npz("many", n=(2100, 3, 2), size=16, classes=3)


def command(npz, root, backbone):
    return (
        "extract", "--dataset", npz, "--backbone", backbone, "--weights", "none", "--fit",
        "native", "--precision", "fp32", "--batch-size", 16, "--store", root, "-q",
    )  # fmt: skip


def n_committed(root):
    infos = [read_info(path) for path in root.glob("*/*/*.zarr") if path.name[0] != "."]
    committed = [info.checksums[f"{s}/embeddings"] for info in infos for s in SPLITS]
    return sum(len(chunks) for chunks in committed)


@linux
@pytest.mark.parametrize("backbone", ["pixels", pytest.param(NETWORK, marks=pytest.mark.extensive)])
def test_the_same_command_completes_a_store_after_kill_9_at_any_moment(
    backbone, start, many, new_folder
):
    reference = new_folder()
    begin = time.monotonic()
    whole = start(*command(many, reference, backbone))
    whole.join()
    duration = time.monotonic() - begin
    assert whole.exitcode == 0
    [path] = reference.glob("*/*/*.zarr")
    expected = chunk_files(path)
    moments = random.Random(0)
    kept = []
    for i in range(9):
        root = new_folder()
        killed = start(*command(many, root, backbone))
        if i == 8:  # once for certain after something was committed
            while n_committed(root) == 0 and killed.is_alive():
                time.sleep(0.001)
        else:
            time.sleep(0.001 if i == 0 else duration * (i + moments.random() - 0.5) / 8)
        killed.kill()
        killed.join()
        kept.append(n_committed(root))
        [found] = extract_all(
            [str(many)], [None], [backbone], weights="none", fit="native", precision="fp32",
            batch_size=16, store=root,
        )  # fmt: skip
        assert found.chunks_reused == kept[-1]
        assert found.chunks_computed == 5 - kept[-1]
        assert chunk_files(found.store.path) == expected
        assert found.store.verify() == []
        assert leftovers(root) == []
    assert kept[-1] > 0


@linux
def test_an_interrupted_command_exits_with_130_and_keeps_its_work(start, many, new_folder):
    root = new_folder()
    process = start(*command(many, root, NETWORK))
    while n_committed(root) == 0:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    kept = n_committed(root)
    assert 0 < kept < 5
    assert leftovers(root) == []
    again = start(*command(many, root, NETWORK))
    again.join()
    assert again.exitcode == 0
    [path] = root.glob("*/*/*.zarr")
    assert open_store(path).verify() == []


def private_peak(process):
    """Return the most memory of its own that a process had, in bytes, sampled until it ends."""
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.is_alive():
        # The process may end between the question above and the reading of its file.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.002)
    return peak


@linux
def test_memory_does_not_grow_with_the_number_of_images(start, write_npz, new_folder):
    peaks = []
    for n in (10_000, 40_000):
        npz = write_npz(n=(n, 2, 2), size=28)
        process = start(
            "extract", "--dataset", npz, "--backbone", "pixels", "--store", new_folder(), "-q"
        )
        peaks.append(private_peak(process))
        assert process.exitcode == 0
    # 30,000 more images are 24 MB, and their embeddings 94 MB.
    assert peaks[1] - peaks[0] < 25e6


def test_one_file_read_as_two_tasks_fills_two_stores(write_npz, tmp_path):
    path = write_npz("retinamnist", size=28, channels=3, classes=5)
    by_path = extract(str(path), backbone="pixels", store=tmp_path)
    by_flag = extract("retinamnist", 28, "pixels", data_root=path.parent, store=tmp_path)
    assert (by_path.info.task, by_flag.info.task) == ("multi-class", "ordinal-regression")
    assert by_path.path != by_flag.path


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
