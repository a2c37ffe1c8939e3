"""A saved network is scored as a plain forward of it would be."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from medmnist.evaluator import getACC, getAUC
from torchvision import transforms

import medplus
from medplus.backbones.finetuned import NETWORK_FILE
from medplus.errors import BackboneError, DatasetError, RunError, UsageError
from medplus.run.ledger import read_predictions, read_record
from medplus.vocabulary import MULTI_LABEL

pytestmark = pytest.mark.usefixtures("fast_disk")

NAME = "mobilenetv3_small_050"
CPU = {"device": "cpu"}
TASKS = {
    "multi-class": {"classes": 3},
    "binary-class": {"classes": 2},
    MULTI_LABEL: {"classes": 4, "n_labels": 4},
}


@pytest.fixture
def toy(write_npz):
    """Return a function that writes the file that a run was trained on."""
    return lambda classes=3, n_labels=1, **more: write_npz(
        "toy", n=(30, 20, 25), classes=classes, n_labels=n_labels, **more
    )


def averaged_pixels(images):
    """The raw-pixel baseline's embeddings of images up to 28 px, uint8 (n, h, w[, 3])."""
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return torch.from_numpy(planes.astype("f4") / 255).flatten(1)


def plain_scores(logits, task="multi-class"):
    return (logits.sigmoid() if task == MULTI_LABEL else logits.softmax(1)).float().numpy()


# --- scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_a_plain_forward(task, toy, write_finetuned):
    npz = toy(**TASKS[task])
    folder, network = write_finetuned(task=task, classes=TASKS[task]["classes"])
    record = medplus.evaluate(folder, str(npz), **CPU)
    kept = read_predictions(Path(record.path))
    with np.load(npz) as file, torch.no_grad():
        for split in ("val", "test"):
            logits = network.head(averaged_pixels(file[f"{split}_images"]))
            expected, truth = plain_scores(logits, task), file[f"{split}_labels"]
            np.testing.assert_allclose(kept[f"{split}_score"], expected, atol=1e-6)
            np.testing.assert_array_equal(kept[f"{split}_true"], truth)
            np.testing.assert_array_equal(kept[f"{split}_index"], np.arange(len(truth)))
            metrics = record.metrics[split]
            assert metrics["acc"] == pytest.approx(getACC(truth, expected, task))
            assert metrics["auc"] == pytest.approx(getAUC(truth, expected, task))
            if split == "val":
                loss = (
                    F.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth).float())
                    if task == MULTI_LABEL
                    else F.cross_entropy(logits, torch.from_numpy(truth[:, 0]).long())
                )
                assert metrics["loss"] == pytest.approx(float(loss), abs=1e-6)


@pytest.fixture(scope="module")
def small(write_npz, write_finetuned):
    """A convolutional network with batch norms, its folder, and a few images of 28 px."""
    folder, network = write_finetuned(NAME, size=28)
    return folder, network, write_npz("toy", n=(3, 5, 6), size=28, classes=3)


def torchvision_chain(images, network):
    """What the network takes, by the paper's transforms."""
    config = network.backbone.network.pretrained_cfg
    chain = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Grayscale(3),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
            transforms.Pad((224 - 28) // 2),
        ]
    )
    return torch.stack([chain(image) for image in images])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_timm_network_is_scored_in_eval_mode_at_its_precision(precision, small):
    folder, network, npz = small
    record = medplus.evaluate(folder, str(npz), precision=precision, **CPU)
    with np.load(npz) as file, torch.no_grad():
        x = torchvision_chain(file["test_images"], network)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            expected = plain_scores(network(x).float())
    found = read_predictions(Path(record.path))["test_score"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert record.config["evaluation"]["precision"] == precision


def test_precision_is_the_one_it_was_trained_at_unless_another_is_given(toy, write_finetuned):
    npz = str(toy())
    folder, _ = write_finetuned(precision="bf16")
    found = [
        medplus.evaluate(folder, npz, precision=precision, **CPU)
        for precision in (None, "bf16", "fp32")
    ]
    used = [record.config["evaluation"]["precision"] for record in found]
    assert used == ["bf16", "bf16", "fp32"]
    assert found[0].metrics == found[1].metrics
    assert found[0].metrics["val"]["loss"] != found[2].metrics["val"]["loss"]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_matter(batch_size, toy, write_finetuned):
    npz, (folder, _) = str(toy()), write_finetuned()
    expected = medplus.evaluate(folder, npz, **CPU).metrics["test"]
    found = medplus.evaluate(folder, npz, batch_size=batch_size, **CPU).metrics["test"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("splits", [("test",), ("train",), ("test", "train"), "val"])
def test_only_the_splits_asked_for_are_scored(splits, toy, write_finetuned):
    folder, _ = write_finetuned()
    record = medplus.evaluate(folder, str(toy()), splits=splits, **CPU)
    asked = {splits} if isinstance(splits, str) else set(splits)
    assert set(record.metrics) == asked
    assert {name.partition("_")[0] for name in read_predictions(Path(record.path))} == asked


# --- the record -------------------------------------------------------------------------------


def test_the_record_is_the_runs_with_the_data_and_metrics_of_the_evaluation(toy, write_finetuned):
    folder, _ = write_finetuned(dataset="elsewhere")
    before = read_record(folder)
    npz = toy()
    found = medplus.evaluate(folder, str(npz), **CPU)
    own = ("run_id", "protocol", "backbone", "weights", "seed", "lr", "epochs_run", "best_epoch")
    assert [getattr(found, name) for name in own] == [getattr(before, name) for name in own]
    digest = medplus.load_dataset(str(npz)).digest
    assert Path(found.path) == folder / "evaluations" / f"toy-8-{digest[:8]}"
    assert (found.dataset, found.size, found.data_source) == ("toy", 8, "custom")
    assert found.config == before.config | {
        "evaluation": {"dataset_digest": digest, "precision": "fp32", "epoch": 2}
    }
    assert found.cost["images"] == 45
    assert "torch" in found.environment
    assert found == read_record(Path(found.path))
    assert before == read_record(folder)


def test_evaluating_again_replaces(toy, write_finetuned):
    folder, _ = write_finetuned()
    npz = str(toy())
    first = medplus.evaluate(folder, npz, **CPU)
    again = medplus.evaluate(folder, npz, splits=["test"], **CPU)
    other = medplus.evaluate(folder, str(toy(seed=1)), **CPU)
    assert first.path == again.path != other.path
    assert set(read_record(Path(first.path)).metrics) == {"test"}
    assert len(list((folder / "evaluations").iterdir())) == 2


def test_a_disk_that_refuses_costs_nothing(toy, write_finetuned, monkeypatch):
    folder, _ = write_finetuned()
    npz = str(toy())
    first = medplus.evaluate(folder, npz, **CPU)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medplus.run.ledger.np.savez", full)
    with pytest.raises(RunError, match=r"No space left on device; free space, or make"):
        medplus.evaluate(folder, npz, splits=["test"], **CPU)
    assert read_record(Path(first.path)) == first
    assert len(list((folder / "evaluations").iterdir())) == 1


def test_a_run_under_way_is_scored_without_a_record(toy, write_finetuned):
    npz = str(toy())
    folder, _ = write_finetuned(finished=False)
    finished, _ = write_finetuned()
    found = medplus.evaluate(folder, npz, **CPU)
    assert found.metrics == medplus.evaluate(finished, npz, **CPU).metrics
    assert found.run_id == "paper-seed1-0123abcd"
    assert (found.protocol, found.backbone, found.best_epoch) == ("finetune", "pixels", 2)
    assert not (folder / "record.json").exists()


@pytest.mark.parametrize("file", ["network.safetensors", "record.json"])
def test_a_run_may_be_named_by_one_of_its_files(file, toy, write_finetuned):
    folder, _ = write_finetuned()
    npz = str(toy())
    found = medplus.evaluate(folder / file, npz, **CPU)
    assert found.path == medplus.evaluate(folder, npz, **CPU).path


# --- which data -------------------------------------------------------------------------------


def test_the_default_is_the_runs_own_dataset_and_size(write_npz, write_finetuned):
    npz = write_npz("breastmnist_64", n=(9, 8, 7), size=64)
    write_npz("breastmnist", n=(9, 6, 5), size=28, folder=npz.parent)
    folder, _ = write_finetuned(dataset="breastmnist", size=64, classes=2, task="binary-class")
    own = medplus.evaluate(folder, data_root=npz.parent, **CPU)
    assert (own.dataset, own.size, own.metrics["val"]["n"]) == ("breastmnist", 64, 8)
    small = medplus.evaluate(folder, size=28, data_root=npz.parent, **CPU)
    assert (small.size, small.metrics["val"]["n"]) == (28, 6)
    by_flag = medplus.evaluate(folder, "breastmnist", data_root=npz.parent, **CPU)
    assert by_flag.path == own.path


def test_a_file_that_is_not_named_is_not_guessed(write_finetuned):
    folder, _ = write_finetuned()
    with pytest.raises(UsageError, match=r"file of the name 'toy'.*with --dataset"):
        medplus.evaluate(folder, **CPU)


def test_a_missing_dataset_is_named(tmp_path, write_finetuned):
    folder, _ = write_finetuned(dataset="breastmnist", size=28, classes=2, task="binary-class")
    with pytest.raises(DatasetError, match=r"breastmnist\.npz does not exist"):
        medplus.evaluate(folder, data_root=tmp_path, **CPU)
    with pytest.raises(UsageError, match="did you mean 'breastmnist'"):
        medplus.evaluate(folder, "brestmnist", data_root=tmp_path, **CPU)


def test_other_data_under_the_name_of_the_runs_own_are_told(
    write_npz, write_finetuned, caplog: pytest.LogCaptureFixture
):
    npz = write_npz("breastmnist", n=(9, 8, 7), size=28)
    digest = medplus.load_dataset("breastmnist", data_root=npz.parent).digest
    options = {"dataset": "breastmnist", "size": 28, "classes": 2, "task": "binary-class"}
    for known, told in ((digest, False), ("f" * 64, True)):
        folder, _ = write_finetuned(**options, config={"dataset_digest": known})
        caplog.clear()
        with caplog.at_level(logging.WARNING, "medplus.evaluation"):
            medplus.evaluate(folder, data_root=npz.parent, **CPU)
        assert ("holds other data than" in caplog.text) == told


# --- data that do not suit --------------------------------------------------------------------

NAMED = ("benign", "malignant")


@pytest.mark.parametrize(
    ("run", "data", "says"),
    [
        ({"classes": 3}, {"classes": 2}, ("multi-class, 3 classes", "binary-class, 2 classes")),
        ({"classes": 4}, {"classes": 3}, ("4 classes", "3 classes")),
        (
            {"classes": 3, "task": MULTI_LABEL},
            {"classes": 3},
            ("multi-label, binary-class, 3 labels", "multi-class, 3 classes"),
        ),
        ({"classes": ("x", "y", "z")}, {"classes": 2}, ("'x', 'y', 'z'",)),
    ],
)
def test_other_classes_are_refused(run, data, says, toy, write_finetuned):
    folder, _ = write_finetuned(**run)
    with pytest.raises(UsageError) as caught:
        medplus.evaluate(folder, str(toy(**data)), **CPU)
    for words in (str(folder), "toy", *says):
        assert words in str(caught.value)
    assert not (folder / "evaluations").exists()


def test_files_have_no_names_for_their_classes(toy, write_finetuned):
    folder, _ = write_finetuned(classes=NAMED, task="binary-class")
    assert medplus.evaluate(folder, str(toy(classes=2)), **CPU).n_classes == 2


def test_a_file_does_not_say_that_its_classes_are_ordered(toy, write_finetuned):
    folder, _ = write_finetuned(classes=5, task="ordinal-regression")
    record = medplus.evaluate(folder, str(toy(classes=5)), **CPU)
    assert record.task == "ordinal-regression"
    assert "qwk" in record.metrics["test"]


@pytest.mark.parametrize("data", [{"size": 9}, {"channels": 3}])
def test_images_that_give_other_embeddings_are_refused(data, toy, write_finetuned):
    folder, _ = write_finetuned()
    with pytest.raises(BackboneError, match=r"does not take the images.*its head takes 64.*8 px"):
        medplus.evaluate(folder, str(toy(**data)), **CPU)


def test_images_beyond_the_canvas_are_refused(write_npz, small):
    npz = write_npz("large", n=(2, 2, 2), size=225, classes=3, val_labels=np.full((2, 1), 2, "u1"))
    with pytest.raises(UsageError, match="at most 224 px, not of 225"):
        medplus.evaluate(small[0], str(npz), **CPU)


# --- what is no run, or no longer -------------------------------------------------------------


def test_paths_that_are_no_run_are_refused(tmp_path, toy):
    npz = str(toy())
    with pytest.raises(UsageError, match=r"nothing does not exist; name the folder of a run"):
        medplus.evaluate(tmp_path / "nothing", npz, **CPU)
    with pytest.raises(UsageError, match="is no run"):
        medplus.evaluate(tmp_path, npz, **CPU)
    with pytest.raises(UsageError, match="is no run"):
        medplus.evaluate(npz, npz, **CPU)
    (tmp_path / "x.partial").mkdir()
    with pytest.raises(UsageError, match=r"has no network\.safetensors yet"):
        medplus.evaluate(tmp_path / "x.partial", npz, **CPU)


def test_a_run_without_its_network_is_refused(toy, write_finetuned):
    folder, _ = write_finetuned()
    (folder / NETWORK_FILE).unlink()
    with pytest.raises(UsageError, match=r"has no network\.safetensors"):
        medplus.evaluate(folder, str(toy()), **CPU)


def test_a_damaged_record_is_named(toy, write_finetuned):
    folder, _ = write_finetuned()
    (folder / "record.json").write_text('{"schema_version": 2, "run_id": 3}')
    with pytest.raises(RunError, match=r"record\.json is damaged"):
        medplus.evaluate(folder, str(toy()), **CPU)


def test_the_network_of_another_run_is_not_taken_for_its_own(toy, write_finetuned):
    folder, _ = write_finetuned()
    other, _ = write_finetuned(run_id="paper-seed2-4567cdef")
    shutil.copy(other / NETWORK_FILE, folder / NETWORK_FILE)
    with pytest.raises(RunError, match="is that of the run paper-seed2-4567cdef"):
        medplus.evaluate(folder, str(toy()), **CPU)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"splits": ()}, "no split to score"),
        ({"splits": ("tests",)}, "unknown split 'tests'; did you mean 'test'"),
        ({"splits": ("",)}, "unknown split ''"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"precision": "fp16"}, "needs a CUDA device"),
        ({"device": "tpu"}, "unknown device"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says, toy, write_finetuned):
    folder, _ = write_finetuned()
    with pytest.raises(UsageError, match=says):
        medplus.evaluate(folder, str(toy()), **(CPU | options))


def test_scores_that_are_not_finite_are_refused(toy, write_finetuned):
    folder, network = write_finetuned()
    from medplus.backbones.finetuned import read_description, write_network

    state = network.state_dict()
    state["head.weight"] = state["head.weight"] * torch.inf
    write_network(folder / NETWORK_FILE, state, read_description(folder))
    with pytest.raises(RunError, match=r"not finite at fp32; use --precision fp32"):
        medplus.evaluate(folder, str(toy()), **CPU)
