"""The probe protocol: from a store to saved heads, chosen on val alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from medmnist.evaluator import getACC, getAUC
from safetensors.torch import load_file

from medplus.errors import RunError, UsageError
from medplus.heads.probe import probe, stack
from medplus.run.ledger import read_predictions, read_record
from medplus.vocabulary import MULTI_LABEL, PAPER_SEEDS

pytestmark = pytest.mark.usefixtures("fast_disk")

TASKS = ("multi-class", "binary-class", "ordinal-regression", MULTI_LABEL)
QUICK = {"epochs": 4, "lr": 0.01}


def clouds(task, sizes=(120, 50, 60), seed=0):
    """Embeddings and labels of classes that lie in overlapping clouds, and the class count."""
    rng = np.random.default_rng(seed)
    n_classes = 2 if task == "binary-class" else 4
    centres = rng.normal(size=(n_classes, 6))
    embeddings, labels = [], []
    for n in sizes:
        if task == MULTI_LABEL:
            y = rng.integers(0, 2, (n, n_classes))
            x = y @ centres
        else:
            y = rng.integers(0, n_classes, (n, 1))
            x = centres[y[:, 0]]
        embeddings.append((x + rng.normal(size=x.shape)).astype("f4"))
        labels.append(y.astype("u1"))
    return embeddings, labels, n_classes


@pytest.fixture(scope="module")
def task_store(write_store):
    """Return a function that writes a store for a task."""

    def write(task="multi-class", **more):
        embeddings, labels, n_classes = clouds(task)
        return write_store(embeddings, labels, task=task, classes=n_classes, **more)

    return write


@pytest.mark.parametrize("task", TASKS)
def test_saved_head_is_a_linear_layer_that_reproduces_the_saved_predictions(
    task, task_store, tmp_path
):
    store = task_store(task)
    [record] = probe(store, 3, runs=tmp_path, **QUICK)
    path = Path(record.path)
    state = load_file(path / "head.safetensors")
    n_classes = 2 if task == "binary-class" else 4
    layer = torch.nn.Linear(6, n_classes)
    layer.load_state_dict(state, strict=True)
    predictions = read_predictions(path)
    for split in ("val", "test"):
        with torch.no_grad():
            logits = layer(torch.from_numpy(store.embeddings(split)))
        scores = logits.sigmoid() if task == MULTI_LABEL else logits.softmax(1)
        np.testing.assert_allclose(predictions[f"{split}_score"], scores, atol=1e-6)
        np.testing.assert_array_equal(predictions[f"{split}_true"], store.labels(split))
        np.testing.assert_array_equal(predictions[f"{split}_index"], store.index(split))


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_medmnists_on_the_saved_predictions(task, task_store, tmp_path):
    [record] = probe(task_store(task), 3, runs=tmp_path, **QUICK)
    predictions = read_predictions(Path(record.path))
    for split in ("val", "test"):
        truth, scores = predictions[f"{split}_true"], predictions[f"{split}_score"]
        assert record.metrics[split]["acc"] == pytest.approx(getACC(truth, scores, task))
        assert record.metrics[split]["auc"] == pytest.approx(getAUC(truth, scores, task))


def test_recorded_val_loss_is_the_cross_entropy_of_the_saved_scores(task_store, tmp_path):
    [record] = probe(task_store(), 3, runs=tmp_path, **QUICK)
    predictions = read_predictions(Path(record.path))
    true = predictions["val_true"][:, 0]
    loss = -np.log(predictions["val_score"][np.arange(len(true)), true]).mean()
    assert record.metrics["val"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_one_record_per_seed_learning_rate_and_weight_decay_in_order(task_store, tmp_path):
    records = probe(
        task_store(), [3, 1], lr=[0.1, 0.01], weight_decay=[0.0, 0.5], epochs=2, runs=tmp_path,
    )  # fmt: skip
    assert [(r.seed, r.lr, r.weight_decay) for r in records] == [
        (seed, lr, wd) for seed in (3, 1) for lr in (0.1, 0.01) for wd in (0.0, 0.5)
    ]
    assert len({r.run_id for r in records}) == 8
    for record in records:
        assert Path(record.path).name == record.run_id
        assert 1 <= record.best_epoch <= record.epochs_run <= 2


def test_the_defaults_are_the_papers(task_store, tmp_path):
    records = probe(task_store(), runs=tmp_path)
    assert tuple(r.seed for r in records) == PAPER_SEEDS
    for record in records:
        assert (record.lr, record.weight_decay) == (1e-4, 0.01)
        assert {name: record.config[name] for name in ("epochs", "batch_size", "patience")} == {
            "epochs": 100,
            "batch_size": 64,
            "patience": 5,
        }


def test_a_run_lies_where_the_design_says(task_store, tmp_path):
    [record] = probe(task_store(size=64), 1, runs=tmp_path, **QUICK)
    path = Path(record.path)
    assert path.parent == tmp_path / "probe/toy/64/toynet"
    assert sorted(p.name for p in path.iterdir()) == [
        "head.safetensors", "predictions.npz", "record.json",
    ]  # fmt: skip


def test_cost_is_that_of_the_training_which_the_heads_share(task_store, tmp_path):
    records = probe(task_store(), [1, 2], device="cpu", runs=tmp_path, **QUICK)
    for record in records:
        cost = record.cost
        assert cost.keys() == {
            "seconds", "device_seconds", "device", "peak_memory_bytes", "shared_by",
        }  # fmt: skip
        assert cost["seconds"] == cost["device_seconds"] == record.seconds > 0
        assert cost["peak_memory_bytes"] > 1e6
        assert cost["shared_by"] == 2


# --- selection --------------------------------------------------------------------------------


def test_selection_does_not_look_at_test(write_store, tmp_path):
    embeddings, labels, n_classes = clouds("multi-class")
    grid = {"lr": [1e-4, 1e-3, 1e-2, 0.1, 1.0], "epochs": 5}
    found = []
    for poison in (False, True):
        test = (n_classes - 1 - labels[2]) if poison else labels[2]
        store = write_store(
            embeddings, [*labels[:2], test], classes=n_classes, dataset_digest=f"{poison:d}" * 64
        )
        records = probe(store, [1, 2], runs=tmp_path, **grid)
        chosen = [(r.seed, r.lr) for r in records if r.selected]
        kept = [{**r.metrics["val"], "best": r.best_epoch} for r in records]
        found.append((chosen, kept, [r.metrics["test"]["acc"] for r in records]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert found[0][2] != found[1][2]


def test_one_setting_per_seed_is_selected_the_best_on_val(task_store, tmp_path):
    records = probe(
        task_store(), [1, 2, 3], lr=[1e-4, 1e-2, 1.0], epochs=5, runs=tmp_path
    )  # fmt: skip
    for seed in (1, 2, 3):
        group = [r for r in records if r.seed == seed]
        [chosen] = [r for r in group if r.selected]
        assert chosen.metrics["val"]["acc"] == max(r.metrics["val"]["acc"] for r in group)


# --- reruns -----------------------------------------------------------------------------------


def modified(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_heads_that_exist_are_not_trained_again_and_new_ones_do_not_change_them(
    task_store, tmp_path, monkeypatch
):
    store = task_store()
    first = probe(store, [1, 2], lr=0.01, epochs=4, runs=tmp_path)
    before = modified(tmp_path)
    trained = []
    train_heads = stack.train_heads

    def watch(*arguments, seeds, **more):
        trained.append(seeds)
        return train_heads(*arguments, seeds=seeds, **more)

    monkeypatch.setattr(stack, "train_heads", watch)
    again = probe(store, [2, 3, 1], lr=[0.01, 0.1], epochs=4, runs=tmp_path)
    after = modified(tmp_path)
    assert {p: after[p] for p in before} == before
    assert [(r.seed, r.lr) for r in again] == [
        (seed, lr) for seed in (2, 3, 1) for lr in (0.01, 0.1)
    ]
    old = {(r.seed, r.lr): r.to_dict() for r in first}
    for record in again:
        if (record.seed, record.lr) in old:
            expected = old[record.seed, record.lr]
            assert {**record.to_dict(), "selected": None} == {**expected, "selected": None}
    trained.clear()
    probe(store, [1, 2, 3], lr=[0.01, 0.1], epochs=4, runs=tmp_path)
    assert trained == []


def test_a_head_is_the_same_alone_and_in_a_grid(task_store, tmp_path):
    store = task_store()
    [alone] = probe(store, 2, lr=0.01, epochs=6, runs=tmp_path / "a")
    grid = probe(store, [1, 2], lr=[0.1, 0.01], epochs=6, runs=tmp_path / "b")
    [among] = [r for r in grid if (r.seed, r.lr) == (2, 0.01)]
    assert among.run_id == alone.run_id
    a, b = (load_file(Path(r.path) / "head.safetensors") for r in (alone, among))
    for name in ("weight", "bias"):
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-5)
    assert (among.best_epoch, among.epochs_run) == (alone.best_epoch, alone.epochs_run)


def test_overwrite_trains_again_and_finds_the_same(task_store, tmp_path):
    store = task_store()
    [first] = probe(store, 1, runs=tmp_path, **QUICK)
    before = modified(tmp_path)
    [again] = probe(store, 1, runs=tmp_path, overwrite=True, **QUICK)
    assert modified(tmp_path).keys() == before.keys()
    assert all(modified(tmp_path)[p] != before[p] for p in before)
    assert again.metrics == first.metrics
    assert read_record(Path(again.path)).metrics == first.metrics


@pytest.mark.parametrize(
    "change", [{"epochs": 5}, {"batch_size": 32}, {"patience": 3}, {"lr": 0.02}, {"seeds": 9}]
)
def test_every_choice_is_another_run(change, task_store, tmp_path):
    store = task_store()
    base = {"seeds": 1, "epochs": 4, "lr": 0.01, "runs": tmp_path}
    [a] = probe(store, **base)
    [b] = probe(store, **(base | change))
    assert a.run_id != b.run_id


# --- what is refused --------------------------------------------------------------------------


def test_a_head_that_diverges_at_once_is_said_with_a_remedy(write_store, tmp_path):
    embeddings, labels, n_classes = clouds("multi-class")
    store = write_store([x * 1e30 for x in embeddings], labels, classes=n_classes)
    with pytest.raises(RunError, match=r"val loss is not finite.*smaller --lr"):
        probe(store, 1, lr=1e10, epochs=3, runs=tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 0), ("lr", -1.0), ("lr", []), ("weight_decay", -0.1), ("seeds", -1),
     ("patience", 0), ("batch_size", 0), ("lr", float("nan")), ("recipe", "papr")],
)  # fmt: skip
def test_impossible_options_are_refused_by_name(option, value, task_store, tmp_path):
    with pytest.raises(UsageError, match=option):
        probe(task_store(), runs=tmp_path, **{option: value})
