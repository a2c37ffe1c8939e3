"""The extraction pipeline: every image once, in order, each store what its key says."""

from __future__ import annotations

import time

import numpy as np
import pytest
import timm
import torch

from medplus.embeddings import extract as extraction
from medplus.embeddings.extract import extract, extract_all
from medplus.embeddings.info import read_info, write_info
from medplus.embeddings.store import open_store
from medplus.errors import UsageError
from medplus.spec import specs
from medplus.vocabulary import SPLITS
from tests.embeddings.extractions import (
    N_CHUNKS,
    NETWORK,
    Scaled,
    chunk_files,
    images_of,
    leftovers,
    run,
)

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


def test_the_same_weights_by_another_path_are_told_by_the_name_that_finds_them(
    npz, tmp_path, caplog
):
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def backbone():\n"
        "    layers = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)\n"
        "    return nn.Sequential(*layers), (0.5,) * 3, (0.5,) * 3, 28\n"
    )
    state = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(12, 4))
    first, second = tmp_path / "w.pth", tmp_path / "w.pt"
    for path in (first, second):
        torch.save(state.state_dict(), path)
        found = extract(npz, None, code, weights=path, store=tmp_path, device="cpu")
    assert found.info.spec.weights == str(first)
    assert f"--weights {first}; later commands find it" in caplog.text


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


def test_a_store_tells_how_its_images_were_computed(npz, tmp_path, use_backbone):
    use_backbone(Scaled())
    [given] = run(npz, tmp_path / "given", batch_size=48, compiled=False)
    assert given.store.info.cost["batch_size"] == 48
    [found] = run(npz, tmp_path / "found")
    assert found.store.info.cost["batch_size"] in (8, 16, 32, 64)
    assert not found.store.info.cost["compiled"]
    assert chunk_files(given.store.path) == chunk_files(found.store.path)


def test_a_compiled_extraction_fills_the_same_store(npz, tmp_path, use_backbone, monkeypatch):
    compiled = []
    # In the place of a compiler, which would take a minute.
    monkeypatch.setattr(torch, "compile", lambda module, **_: (compiled.append(module), module)[1])
    use_backbone(Scaled())
    [plain] = run(npz, tmp_path / "plain", compiled=False)
    [found] = run(npz, tmp_path / "compiled", compiled=True)
    assert len(compiled) == 1
    assert found.store.info.cost["compiled"]
    assert found.store.info.key == plain.store.info.key
    assert chunk_files(found.store.path) == chunk_files(plain.store.path)


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
    assert found.store.path == tmp_path / "toy/8" / f"pixels-{info.key[:8]}.zarr"
    assert (info.task, info.classes, info.dim) == ("multi-class", ["0", "1", "2"], 64)
    assert info.spec.precision is None  # which means nothing for pixels
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


def test_an_interrupted_session_counts_among_the_costs(npz, tmp_path, use_backbone):
    class Interrupted(Scaled):
        def forward(self, x):
            time.sleep(0.01)
            if len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(len(x))
            return super().forward(x)

    calls: list[int] = []
    use_backbone(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        run(npz, tmp_path, batch_size=256)
    [path] = tmp_path.glob("*/*/*.zarr")
    interrupted = read_info(path).cost["seconds"]
    calls.clear()
    use_backbone(Scaled())
    [again] = run(npz, tmp_path, batch_size=256)
    assert interrupted > 0.01
    assert again.store.info.cost["seconds"] == pytest.approx(interrupted + again.seconds)


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
    load = extraction.datasets.load_spec

    def watch(spec, *arguments, **options):
        loaded.append(spec.dataset)
        return load(spec, *arguments, **options)

    monkeypatch.setattr(extraction.datasets, "load_spec", watch)
    files = [str(write_npz(name, n=(3, 2, 2), size=32)) for name in ("a", "b")]
    asked = specs(files, backbones=["pixels", NETWORK], weights="none", fit="native")
    found = extract_all(asked, store=tmp_path)
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
        (["toy.npz"], ["pixels"], {"device": "abacus"}),
    ],
)
def test_every_name_is_checked_before_any_work(datasets, backbones, options, write_npz, tmp_path):
    folder = write_npz(n=(3, 2, 2)).parent
    datasets = [str(folder / name) if name == "toy.npz" else name for name in datasets]
    with pytest.raises(UsageError):
        asked = specs(datasets, backbones=backbones, weights="none")
        extract_all(asked, store=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_images_larger_than_the_canvas_are_refused(write_npz, tmp_path):
    npz = write_npz(n=(2, 1, 1), size=230)
    with pytest.raises(UsageError, match="--fit resize"):
        run(npz, tmp_path, [NETWORK])


def test_one_file_read_as_two_tasks_fills_two_stores(write_npz, tmp_path):
    path = write_npz("retinamnist", size=28, channels=3, classes=5)
    by_path = extract(str(path), backbone="pixels", store=tmp_path)
    by_flag = extract("retinamnist", 28, "pixels", data_root=path.parent, store=tmp_path)
    assert (by_path.info.task, by_flag.info.task) == ("multi-class", "ordinal-regression")
    assert by_path.path != by_flag.path


class Cancelling(torch.nn.Module):
    """A linear layer whose outputs are small differences of large numbers, or none of it."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 4, bias=False)
        self.layer.weight.data = torch.full((4, 64), weight)
        self.offset = weight

    def forward(self, x):
        x = x.flatten(1).float()
        return self.layer(x) - (0.99 * self.offset if self.offset > 1 else 0) * x.sum(1, True)


@pytest.mark.parametrize(("weight", "precision", "told"), [
    (1.005, "bf16", True), (1.005, "fp32", False), (0.5, "bf16", False),
])  # fmt: skip
def test_where_rounding_moves_embeddings_much_it_is_told(
    weight, precision, told, npz, tmp_path, use_backbone, caplog
):
    use_backbone(Cancelling(weight))
    run(npz, tmp_path, ["resnet18"], fit="native", precision=precision)
    said = "use --precision fp32 for them" in caplog.text
    assert said == told, caplog.text
