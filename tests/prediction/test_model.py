"""A model gives the scores of the run that it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import medplus
from medplus.errors import BackboneError, UsageError
from medplus.metrics.temperature import fit_temperature
from medplus.prediction.decision import decide
from medplus.prediction.model import load_model
from medplus.run.ledger import read_predictions

pytestmark = pytest.mark.usefixtures("fast_disk")

KINDS = ("knn", "weighted", "joined knn", "probe", "two", "labels", "joined", "finetune")


def model_of(house, name, **options):
    return load_model(house.runs[name].path, store=house.store, device="cpu", **options)


def pixels(house, name, split="test"):
    return torch.from_numpy(np.load(house.npz(name))[f"{split}_images"])


def evaluated(house, name):
    """What `medplus.evaluate` makes of test; of kNN, which it does not take, what the run has."""
    run = house.runs[name]
    if run.protocol != "knn":
        given = {"dataset": str(house.npz(name))} if run.protocol == "finetune" else {}
        run = medplus.evaluate(run.path, splits=["test"], store=house.store, device="cpu", **given)
    return read_predictions(Path(run.path))["test_score"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch", [64, 7])
def test_scores_are_those_of_evaluate_to_the_last_bit(name, batch, house):
    model = model_of(house, name)
    if name == "finetune" and batch != 64:
        pytest.skip("a network computes by batches")
    parts = [model.score(model.embed(x)) for x in torch.split(pixels(house, name), batch)]
    np.testing.assert_array_equal(np.concatenate(parts), evaluated(house, name))


def test_heads_of_folds_are_averaged(house):
    model = model_of(house, "folds")
    test = pixels(house, "folds")
    each = [
        torch.softmax(
            torch.from_numpy(model.embed(test)[0]).double() @ head.weight.T.double() + head.bias, 1
        )
        for head in model.scorer.heads
    ]
    np.testing.assert_allclose(
        model.score(model.embed(test)), torch.stack(each).mean(0).numpy(), atol=1e-6
    )
    assert len(each) == 3
    np.testing.assert_array_equal(model.score(model.embed(test)), evaluated(house, "folds"))


@pytest.mark.parametrize("name", ["knn", "weighted", "probe", "finetune"])
def test_distances_are_those_to_the_nearest_train_images(name, house):
    if name == "finetune":
        medplus.extract(
            str(house.npz(name)), None, house.runs[name].path, store=house.store, device="cpu"
        )
    model = model_of(house, name)
    train, val, test = (
        model.embed(pixels(house, name, split))[0].astype("f8")
        for split in ("train", "val", "test")
    )
    metric = "cosine" if name == "weighted" else "euclidean"
    expected = cdist(test, train, metric)
    found = model.reference.find([test.astype("f4")], 3)
    np.testing.assert_allclose(found.distances, np.sort(expected)[:, :3], rtol=1e-4, atol=1e-6)
    assert found.indices[:, 0].tolist() == expected.argmin(1).tolist()
    assert model.reference.names[int(found.indices[0, 0])] == f"train/{expected[0].argmin()}"
    limit = cdist(val, train, metric).min(1).max()
    assert model.reference.limit == pytest.approx(limit, rel=1e-4)
    beyond = np.array([0.9, 1.1]) * limit
    assert model.reference.is_unlike(beyond).tolist() == [False, True]


def test_of_folds_the_limit_is_that_of_images_among_one_another(house):
    model = model_of(house, "folds")
    every = np.concatenate([model.embed(pixels(house, "folds", s))[0] for s in ("train", "val")])
    distances = cdist(every, every)
    np.fill_diagonal(distances, np.inf)
    assert model.reference.limit == pytest.approx(distances.min(1).max(), rel=1e-4)


def test_without_embeddings_of_train_the_command_that_makes_them_is_named(house, tmp_path):
    model = load_model(house.runs["finetune"].path, store=tmp_path, device="cpu")
    assert model.reference is None
    assert "medplus extract --dataset" in model.missing
    assert house.runs["finetune"].path in model.missing


def test_temperature_and_thresholds_are_those_of_val(house):
    model = model_of(house, "two")
    saved = read_predictions(Path(house.runs["two"].path))
    true, score = saved["val_true"][:, 0], saved["val_score"].astype("f8")
    assert model.temperature == fit_temperature(true, score, model.task)
    found = decide(model, "0", sensitivity=0.8)
    of_class = np.sort((1 - score[:, 1])[true == 0])
    needed = int(np.ceil(0.8 * len(of_class)))
    assert found.threshold == of_class[len(of_class) - needed]
    called = found.calls(saved["val_score"], model.task)
    assert called[true == 0].mean() >= 0.8
    assert decide(model, "1", threshold=0.3).threshold == 0.3


@pytest.mark.parametrize(
    ("positive", "given", "told"),
    [
        ("none", {}, "no such class (it has '0', '1')"),
        ("1", {"threshold": 0.5, "sensitivity": 0.9}, "contradict one another"),
        ("1", {"sensitivity": 95}, "between 0 and 1"),
    ],
)
def test_decisions_that_mean_nothing_are_refused(positive, given, told, house):
    with pytest.raises(UsageError, match="--") as refusal:
        decide(model_of(house, "two"), positive, **given)
    assert told in str(refusal.value)


def test_a_backbone_with_other_weights_is_refused(house, write_npz, tmp_path):
    other = write_npz("far", (20, 12, 12), 8, folder=tmp_path)
    store = medplus.extract(
        str(other), None, "resnet10t", weights="none", fit="native", precision="fp32",
        store=tmp_path, device="cpu",
    )  # fmt: skip
    [run] = medplus.knn(store, 1, runs=tmp_path / "runs", device="cpu")
    with pytest.raises(BackboneError, match="with other weights"):
        load_model(run.path, backbone="resnet14t", device="cpu")


def test_policies_are_for_data_that_do_not_tell(house, pictures, tmp_path):
    assert model_of(house, "probe", policy="crop").reading.policy == "crop"
    store = medplus.extract(str(pictures), 8, "pixels", store=tmp_path, device="cpu")
    [run] = medplus.knn(store, 1, runs=tmp_path / "runs", device="cpu")
    with pytest.raises(UsageError, match="leave --policy out"):
        load_model(run.path, policy="crop", device="cpu")
