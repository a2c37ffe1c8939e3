"""The fine-tuning protocol from Python: what is trained, what is left alone, what is recorded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from medmnist.evaluator import getACC, getAUC
from torchvision.transforms import Normalize

import medplus
from medplus import finetune
from medplus.backbones.finetuned import read_network
from medplus.config import FinetuneRecipe, finetune_recipe
from medplus.errors import RunError, UsageError
from medplus.run.ledger import read_predictions, read_record
from medplus.spec import specs
from medplus.training import crossvalidation, finetune_all, memory
from medplus.training import run as run_module
from medplus.training.network import Network
from medplus.vocabulary import MULTI_LABEL, PAPER_SEEDS

pytestmark = pytest.mark.usefixtures("fast_disk", "no_picture")

TASKS = ("binary-class", "multi-class", MULTI_LABEL)
WITH_NORM = "test_efficientnet"  # timm's smallest with batch norm


@pytest.fixture(scope="session")
def image_file(new_folder):
    """Return a function that writes noisy images of 32 px whose brightest part is their class."""

    def write(task="binary-class", n=(41, 20, 22), name="toy", **replaced):
        rng = np.random.default_rng(0)
        n_classes = 2 if task == "binary-class" else 3
        arrays = {}
        for split, count in zip(("train", "val", "test"), n, strict=True):
            if task == MULTI_LABEL:
                labels = flags = rng.integers(0, 2, (count, n_classes))
            else:
                labels = rng.integers(0, n_classes, (count, 1))
                flags = np.eye(n_classes, dtype=int)[labels[:, 0]]
            images = rng.integers(0, 180, (count, 32, 32))
            for part in range(n_classes):
                images[:, 10 * part : 10 * part + 10] += 60 * flags[:, part, None, None]
            arrays[f"{split}_images"] = images.astype(np.uint8)
            arrays[f"{split}_labels"] = labels.astype(np.uint8)
        path = new_folder() / f"{name}.npz"
        np.savez(path, **(arrays | replaced))
        return str(path)

    return write


@pytest.fixture
def train(image_file, tmp_path):
    """Return a function that fine-tunes a tiny network quickly; keywords as for `finetune`."""
    toy = image_file()

    def run(dataset=toy, **options):
        quick = {
            "backbone": WITH_NORM, "weights": "none", "fit": "native", "seeds": 7, "epochs": 2,
            "batch_size": 16, "runs": tmp_path / "runs",
        }  # fmt: skip
        return finetune(dataset, **(quick | options))

    return run


def network_of(record):
    return read_network(Path(record.path))[1]


# --- against the probe on stored embeddings -----------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_frozen_network_with_a_trained_head_is_the_probe(task, image_file, tmp_path):
    path = image_file(task)
    same = {"lr": 0.01, "epochs": 8, "batch_size": 16, "runs": tmp_path}
    network = {"backbone": WITH_NORM, "weights": "none", "fit": "native"}
    store = medplus.extract(path, precision="fp32", store=tmp_path / "embeddings", **network)
    [head] = medplus.probe(store, 7, **same)

    [whole] = finetune(path, seeds=7, trainable="head", norm_stats="frozen", **network, **same)

    assert 1 < whole.best_epoch == head.best_epoch
    assert whole.epochs_run == head.epochs_run
    assert whole.metrics["val"]["loss"] == pytest.approx(head.metrics["val"]["loss"], abs=1e-5)
    expected, found = (read_predictions(Path(run.path)) for run in (head, whole))
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=0)


# --- what learns --------------------------------------------------------------------------------


def changed(record):
    """Return which kinds of tensors differ from the network that the training began with."""
    start = timm.create_model(WITH_NORM, num_classes=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = timm.create_model(WITH_NORM)
    start.reset_classifier(0)
    state = {k.removeprefix("backbone.network."): v for k, v in network_of(record).items()}
    kinds = set()
    for name, tensor in start.state_dict().items():
        if not torch.equal(state[name], tensor):
            kinds.add("statistics" if "running_" in name or "num_batches" in name else "weights")
    return kinds


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trainable": "all"}, {"weights", "statistics"}),
        ({"trainable": "all", "norm_stats": "frozen"}, {"weights"}),
        ({"trainable": "head", "norm_stats": "update"}, {"statistics"}),
        ({"trainable": "head", "norm_stats": "frozen"}, set()),
    ],
)
def test_what_learns_is_what_was_asked_for(options, expected, train):
    [record] = train(**options)
    assert changed(record) == expected
    assert record.config["recipe"]["trainable"] == options["trainable"]


# --- what a run leaves --------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_metrics_and_predictions_follow_from_the_kept_network(task, image_file, train):
    path = image_file(task)
    [record] = train(path, lr=0.01)
    predictions = read_predictions(Path(record.path))
    state = network_of(record)
    network = timm.create_model(WITH_NORM, num_classes=record.n_classes).eval()
    network.load_state_dict(
        {k.removeprefix("backbone.network."): v for k, v in state.items() if "backbone" in k}
        | {"classifier.weight": state["head.weight"], "classifier.bias": state["head.bias"]}
    )
    normalise = Normalize(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
    with np.load(path) as data:
        for split in ("val", "test"):
            grey = torch.from_numpy(data[f"{split}_images"])[:, None].float() / 255
            with torch.no_grad():
                logits = network(normalise(grey.expand(-1, 3, -1, -1)))
            expected = logits.sigmoid() if task == MULTI_LABEL else logits.softmax(1)
            scores, truth = predictions[f"{split}_score"], predictions[f"{split}_true"]
            assert scores.dtype == np.float32
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            np.testing.assert_array_equal(truth, data[f"{split}_labels"])
            np.testing.assert_array_equal(predictions[f"{split}_index"], np.arange(len(truth)))
            metrics = record.metrics[split]
            assert metrics["acc"] == pytest.approx(getACC(truth, scores, task))
            assert metrics["auc"] == pytest.approx(getAUC(truth, scores, task))
    true = torch.from_numpy(predictions["val_true"].astype(np.int64))
    scores = torch.from_numpy(predictions["val_score"]).double()
    if task == MULTI_LABEL:
        loss = torch.nn.functional.binary_cross_entropy(scores, true.double())
    else:
        loss = -scores.gather(1, true).log().mean()
    assert record.metrics["val"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_run_leaves_its_files_where_the_design_says(train, tmp_path):
    [record] = train()
    folder = Path(record.path)
    assert folder.parent == tmp_path / "runs/finetune/toy/32" / WITH_NORM
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv", "network.safetensors", "predictions.npz", "record.json",
    ]  # fmt: skip  # the picture is left out here
    assert list(folder.parent.iterdir()) == [folder]
    assert read_record(folder) == record


def test_record_says_what_was_trained_and_how(train):
    [record] = train(recipe="modern", precision="fp32", lr=0.02)
    assert FinetuneRecipe.model_validate(record.config["recipe"]) == finetune_recipe(
        "modern", precision="fp32", lr=0.02, epochs=2, batch_size=16
    )
    assert (record.protocol, record.seed, record.lr) == ("finetune", 7, 0.02)
    assert (record.weights, record.weight_decay, record.k) == ("none", 0.05, None)
    assert record.store is None
    assert record.store_key is None
    assert (record.tag, record.weights_sha256, record.dataset_digest) == (
        record.config["backbone"], record.config["weights_sha256"], record.config["dataset_digest"],
    )  # fmt: skip
    spec = record.spec
    assert (spec.backbone, spec.weights, spec.fit) == (WITH_NORM, "none", "native")
    assert (spec.size, spec.feature, spec.precision) == (32, "prelogits", "fp32")
    plain = timm.create_model(WITH_NORM, num_classes=0)
    assert record.network.dim == plain.num_features
    assert record.network.n_parameters == sum(p.numel() for p in plain.parameters())
    how = record.training
    assert (how.devices, how.compiled, how.resumed, how.batch_norm) == (1, False, 0, "one")
    assert how.deterministic.startswith("no")
    assert record.cost.keys() == {
        "seconds", "device_seconds", "device", "peak_memory_bytes", "images_per_second",
    }  # fmt: skip
    assert record.cost["seconds"] == record.cost["device_seconds"] == record.seconds > 0
    assert record.cost["peak_memory_bytes"] > 1e6
    assert record.cost["images_per_second"] > 0


def test_the_paper_recipe_is_deterministic_and_says_so(train, tmp_path):
    [first] = train(runs=tmp_path / "a")
    [second] = train(runs=tmp_path / "b")
    assert first.training.deterministic == "yes"
    assert first.metrics == second.metrics
    a, b = network_of(first), network_of(second)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_auto_precision_is_settled_before_the_run_is_named(train, monkeypatch):
    monkeypatch.setattr("medplus.device.cpu_has_native_bf16", lambda: False)
    [auto] = train(precision="auto")
    [named] = train(precision="fp32")
    assert auto.run_id == named.run_id
    assert auto.config["recipe"]["precision"] == auto.spec.precision == "fp32"


# --- which runs ---------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_first_seed_and_recipe(image_file, tmp_path):
    [record] = finetune(image_file(), backbone="pixels", runs=tmp_path)
    assert record.seed == PAPER_SEEDS[0]
    assert FinetuneRecipe.model_validate(record.config["recipe"]) == FinetuneRecipe()
    assert record.epochs_run <= 100
    assert record.run_id.startswith(f"paper-seed{PAPER_SEEDS[0]}-ep100-")


def modified(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_a_finished_run_is_left_alone(train, tmp_path, monkeypatch):
    [first] = train(seeds=[7])
    before = modified(tmp_path)

    # Not even loaded: Fabric takes seconds to import.
    monkeypatch.setitem(sys.modules, "medplus.training.run", None)
    assert train(seeds=7) == [first]
    assert modified(tmp_path) == before


def test_a_seed_may_be_numpys_and_one_that_no_record_takes_is_refused_at_once(train):
    assert [record.seed for record in train(seeds=np.arange(7, 8))] == [7]
    for wrong in (-1, 1.5, []):
        with pytest.raises(UsageError, match="seeds = "):
            train(seeds=wrong)
    with pytest.raises(UsageError, match="keep 'none' is none of best, all"):
        train(keep="none")


def test_images_left_out_by_verdicts_take_no_part(train, tmp_path):
    table = tmp_path / "suspects.csv"
    table.write_text("name,split,index,kind,verdict\ntest/1,test,1,twin,exclude\n")
    [whole], [rest] = train(), train(exclude=str(table))
    assert (rest.run_id, rest.dataset_digest) != (whole.run_id, whole.dataset_digest)
    assert read_predictions(Path(rest.path))["test_index"].tolist() == [0, *range(2, 22)]


def test_a_run_that_another_process_has_just_finished_is_left_alone(train, tmp_path, monkeypatch):
    [first] = train()
    before = modified(tmp_path)
    monkeypatch.setattr(crossvalidation, "find_run", lambda folder: None)  # it was not there yet
    assert train() == [first]
    assert modified(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 8},
        {"epochs": 1},
        {"lr": 2e-4},
        {"label_smoothing": 0.1},
        {"trainable": "head"},
        {"fit": "pad"},
        {"recipe": "modern", "precision": "fp32"},
    ],
)
def test_every_choice_is_another_run(change, image_file, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(
        run_module, "make_run", lambda plan, run, *more: plans.append(run) or run.run_id
    )
    base = {"backbone": "test_vit", "weights": "none", "fit": "native", "runs": tmp_path}
    for options in (base, base | change):
        finetune(image_file(), **options)
    assert plans[0].identity != plans[1].identity
    assert plans[0].folder != plans[1].folder


def test_a_recipe_file_and_its_changes(train, tmp_path):
    file = tmp_path / "my recipe.yaml"
    file.write_text("lr: 0.03\nepochs: 9\nflip: horizontal\n")
    [record] = train(recipe=str(file), epochs=1)
    recipe = FinetuneRecipe.model_validate(record.config["recipe"])
    assert (recipe.lr, recipe.epochs, recipe.flip) == (0.03, 1, "horizontal")
    assert record.run_id.startswith("my_recipe-seed7-ep1-")


def test_a_fine_tuned_run_may_be_trained_on(train):
    [first] = train(lr=0.01)
    [second] = train(backbone=first.path, weights="pretrained", fit=None, seeds=8)
    assert second.backbone == f"{WITH_NORM}@{first.run_id}"
    assert second.weights_sha256 != first.weights_sha256
    assert second.spec.fit == "native"  # as it was trained


# --- the batch size -----------------------------------------------------------------------------


@pytest.fixture
def room_for(monkeypatch):
    """Return a function that leaves room for so many images at once in training, and in all."""
    forward = Network.forward
    monkeypatch.setattr(memory.gc, "collect", lambda: 0)  # longer than a tiny step

    def limit(n):
        def limited(self, x):
            if len(x) > (n if self.training else 2 * n):  # without gradients, there is more
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
            return forward(self, x)

        monkeypatch.setattr(Network, "forward", limited)

    return limit


@pytest.mark.parametrize(("limit", "expected"), [(100, 64), (64, 64), (63, 32), (3, 2)])
def test_auto_batch_size_is_the_largest_half_that_fits(limit, expected, train, room_for):
    room_for(limit)
    [record] = train(backbone="pixels", fit=None, batch_size="auto")
    assert record.config["recipe"]["batch_size"] == expected


def test_auto_batch_size_is_found_per_part_of_a_step(train, room_for):
    room_for(11)
    [record] = train(backbone="pixels", fit=None, batch_size="auto", accumulate=3)
    recipe = record.config["recipe"]
    assert (recipe["batch_size"], recipe["accumulate"]) == (33, 3)  # a third of 64 is 22, or 11


def test_running_out_of_memory_says_what_to_do_and_that_works(train, room_for, tmp_path):
    room_for(5)
    with pytest.raises(RunError) as error:
        train(backbone="pixels", fit=None)
    message = str(error.value)
    assert "ran out of memory with 16 images at a time" in message
    assert "--accumulate 2" in message
    assert "--batch-size auto" in message
    assert list((tmp_path / "runs").rglob("*.partial")) == []
    train(backbone="pixels", fit=None, accumulate=4)
    [smaller] = train(backbone="pixels", fit=None, batch_size="auto")
    assert smaller.config["recipe"]["batch_size"] == 4


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"recipe": "papr"}, "unknown recipe 'papr'; did you mean 'paper'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"devices": 999}, "--devices 999"),
        ({"devices": 0}, "--devices 0"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a CUDA device"),
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19'; did you mean 'resnet18'"),
        ({"dataset": "brestmnist"}, "did you mean 'breastmnist'"),
    ],
)
def test_impossible_options_are_refused_before_any_work(options, says, train, tmp_path):
    with pytest.raises(UsageError, match=says):
        train(**options)
    assert not (tmp_path / "runs").exists()


def test_all_names_are_checked_before_the_first_is_trained(image_file, tmp_path):
    with pytest.raises(UsageError, match="resnet19"):
        finetune_all(specs([image_file()], [None], ["pixels", "resnet19"]), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
