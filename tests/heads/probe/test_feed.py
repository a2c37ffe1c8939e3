"""Windows over features that do not fit train the same heads as resident features, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medplus.config import ProbeRecipe
from medplus.embeddings import layout
from medplus.heads import features
from medplus.heads.features import HeldFeatures, StoredFeatures
from medplus.heads.probe import feed, probe, trained
from medplus.heads.probe.feed import Feed, make_feeds
from medplus.heads.probe.stack import train_heads
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL

CPU = torch.device("cpu")
RECIPE = ProbeRecipe(
    seeds=(3, 7, 11), lr=(1e-3, 0.3), weight_decay=(0.0, 0.5), epochs=12, patience=2, batch_size=16
)


def draw(task, n, dim=13, seed=0):
    """Overlapping clouds of 4 classes or labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, 4)) if task == MULTI_LABEL else rng.integers(0, 4, (n, 1))
    centres = np.random.default_rng(99).normal(size=(4, dim))
    x = y @ centres if task == MULTI_LABEL else centres[y[:, 0]]
    return (x + 2 * rng.normal(size=x.shape)).astype("f4"), y.astype("u1")


def assert_same(a, b):
    for name in ("weight", "bias", "val_loss", "epochs_run", "best_epoch"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# One batch at a time, a window that ends within the epoch, and one larger than the epoch.
@pytest.mark.parametrize("window", [0, 3 * 40 * 13 * 4, 1 << 20])
@pytest.mark.parametrize("batch_size", [16, 9])  # batches of 9 rows begin at odd addresses
@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
def test_windowed_features_train_the_same_heads(task, batch_size, window, monkeypatch):
    monkeypatch.setattr(trained, "_BLOCK_ROWS", 10)
    (x, y), (val_x, val_y) = draw(task, 105), draw(task, 35, seed=1)
    labels, val_labels = torch.from_numpy(y), torch.from_numpy(val_y)
    multi_label = task == MULTI_LABEL
    recipe = RECIPE.model_copy(update={"batch_size": batch_size})

    def train(make):
        rows, val_rows = make(x), make(val_x)
        heads = train_heads(
            (rows, labels), (val_rows, val_labels), 4, recipe, multi_label=multi_label
        )
        return heads, heads.scores(val_rows, multi_label)

    whole, scores = train(torch.from_numpy)
    parts, part_scores = train(lambda rows: Feed(HeldFeatures(rows), CPU, window))
    assert whole.epochs_run.unique().numel() >= 3  # heads stopped and left the stack on the way
    assert_same(whole, parts)
    assert torch.equal(scores, part_scores)


@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
@pytest.mark.usefixtures("fast_disk")
def test_a_store_that_does_not_fit_is_probed_alike(task, write_store, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_ROWS", 16)
    splits = [draw(task, n, seed=n) for n in (105, 35, 40)]
    store = write_store(*zip(*splits, strict=True), task=task, classes=4)
    options = {"lr": [1e-3, 0.3], "epochs": 6, "batch_size": 16, "patience": 2}
    held = probe(store, [3, 7], runs=tmp_path / "held", device="cpu", **options)
    gathered = []
    gather = StoredFeatures.gather

    def watch(self, numbers, out):
        gathered.append(len(numbers))
        gather(self, numbers, out)

    monkeypatch.setattr(StoredFeatures, "gather", watch)
    monkeypatch.setattr(features, "spare_memory", lambda: 180 * 13 * 4 - 1)
    monkeypatch.setattr(feed, "spare_memory", lambda device: 2 * 48 * 13 * 4)
    stored = probe(store, [3, 7], runs=tmp_path / "stored", device="cpu", **options)
    assert gathered[:3] == [96, 96, 18]  # two seeds, three batches of each in a window
    for a, b in zip(held, stored, strict=True):
        assert (a.run_id, a.metrics, a.epochs_run) == (b.run_id, b.metrics, b.epochs_run)
        for read in (lambda p: load_file(p / "head.safetensors"), read_predictions):
            one, other = read(Path(a.path)), read(Path(b.path))
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_every_batch_is_the_rows_of_its_numbers_and_every_row_comes_once_a_seed():
    x, _ = draw("multi-class", 50)
    orders = torch.stack([torch.randperm(50), torch.randperm(50)])
    for source in (Feed(torch.from_numpy(x)), Feed(HeldFeatures(x), CPU, 2 * 24 * 13 * 4)):
        seen = []
        for numbers, rows in source.windows(orders, 8):
            np.testing.assert_array_equal(rows, x[numbers])
            seen += numbers.transpose(0, 1).flatten(1).unbind(1)
            assert numbers.shape[2] == 8 or len(seen) == 50
        assert torch.equal(torch.stack(seen, 1), orders)


def test_features_held_in_memory_are_resident_on_the_cpu(monkeypatch):
    monkeypatch.setattr(feed, "spare_memory", lambda device: 0)
    x = HeldFeatures(draw("multi-class", 20)[0])
    assert make_feeds({"train": x}, CPU)["train"].is_resident


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_too_large_for_the_gpu_train_the_same_heads(monkeypatch):
    (x, y), device = draw("multi-class", 105), torch.device("cuda")
    labels = torch.from_numpy(y).to(device)
    found = []
    for spare, resident in ((1 << 30, True), (5000, False)):
        monkeypatch.setattr(feed, "spare_memory", lambda device, spare=spare: spare)
        rows = make_feeds({"train": HeldFeatures(x)}, device)["train"]
        assert rows.is_resident == resident
        found.append(train_heads((rows, labels), (rows, labels), 4, RECIPE))
    assert_same(*found)
