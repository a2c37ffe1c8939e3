"""A saved head is scored on stored embeddings: its own, or others made in the same way."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import medplus
from medplus.errors import RunError, StoreError, UsageError
from medplus.run.ledger import HEAD_FILE, read_predictions, read_record
from medplus.tensorfile import write_tensors
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

CPU = {"device": "cpu"}
TASKS = ("multi-class", "binary-class", "ordinal-regression", MULTI_LABEL)
SIZES = (40, 25, 30)


def clouds(task="multi-class", seed=0, dim=6):
    """Embeddings of three splits, their labels, and the classes, numbered as a file's are."""
    rng = np.random.default_rng(seed)
    classes = 2 if task == "binary-class" else 3
    labels = [
        rng.integers(0, 2, (n, classes), dtype="u1")
        if task == MULTI_LABEL
        else (np.arange(n)[:, None] % classes).astype("u1")
        for n in SIZES
    ]
    values = [rng.normal(size=(n, dim)).astype("f4") + y.mean(1)[:, None] / 2
              for n, y in zip(SIZES, labels, strict=True)]  # fmt: skip
    return [v.astype("f4") for v in values], labels, [str(i) for i in range(classes)]


@pytest.fixture
def roots(tmp_path):
    """Where stores and runs lie."""
    return {"root": tmp_path / "embeddings"}, {"runs": tmp_path / "runs"}


@pytest.fixture
def store_of(write_store, roots):
    """Return a function that writes a store of random embeddings under the root."""

    def write(task="multi-class", seed=0, dim=6, **more):
        values, labels, classes = clouds(task, seed, dim)
        if more.get("dtype") == "float16":
            values = [v.astype("f2") for v in values]
        fields = {"classes": classes, **roots[0], **more}
        return write_store(values, labels, task=task, **fields)

    return write


@pytest.fixture
def probed(roots):
    """Return a function that trains one head on a store, and returns its record."""

    def probe(store, **more):
        [record] = medplus.probe(store, 3, lr=0.05, epochs=4, device="cpu", **roots[1], **more)
        return record

    return probe


def plain_scores(run, store, split="test"):
    state = load_file(Path(run.path) / HEAD_FILE)
    logits = store.embeddings(split).astype("f8") @ state["weight"].astype("f8").T + state["bias"]
    logits = torch.from_numpy(logits)
    return (logits.sigmoid() if run.task == MULTI_LABEL else logits.softmax(1)).numpy()


# --- its own embeddings -----------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_on_its_own_embeddings_a_head_scores_what_was_recorded(task, store_of, probed):
    run = probed(store_of(task))
    found = medplus.evaluate(run.path, **CPU)
    for split in ("val", "test"):
        assert found.metrics[split].keys() == run.metrics[split].keys()
        for name, value in run.metrics[split].items():
            assert found.metrics[split][name] == pytest.approx(value, abs=1e-6)
        assert found.metrics[split]["acc"] == run.metrics[split]["acc"]
    before, after = (read_predictions(Path(p)) for p in (run.path, found.path))
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-6)
    assert found.store == run.store


def test_what_a_head_left_out_is_not_scored_either(store_of, probed, tmp_path):
    table = tmp_path / "suspects.csv"
    rows = ["train,3", "test,0", "test,7"]
    table.write_text(
        "name,split,index,kind,verdict\n" + "".join(f",{r},label,exclude\n" for r in rows)
    )
    run = probed(store_of(), exclude=table)
    found = medplus.evaluate(run.path, **CPU)
    before, after = (read_predictions(Path(p)) for p in (run.path, found.path))
    assert set(range(SIZES[2])) - set(after["test_index"]) == {0, 7}
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-6)


def test_embeddings_that_have_moved_are_found_by_their_key(store_of, probed, roots, tmp_path):
    run = probed(store_of())
    moved = tmp_path / "moved"
    shutil.move(roots[0]["root"], moved)
    found = medplus.evaluate(run.path, store=moved, **CPU)
    assert found.metrics["test"]["acc"] == run.metrics["test"]["acc"]
    assert Path(found.store.path).is_relative_to(moved)
    assert found.store_key == run.store_key


def test_embeddings_that_are_gone_are_told(store_of, probed, roots, tmp_path):
    store = store_of()
    run = probed(store)
    shutil.rmtree(store.path)
    with pytest.raises(StoreError) as caught:
        medplus.evaluate(run.path, store=tmp_path / "none", **CPU)
    for words in (str(store.path), str(tmp_path / "none"), store.key[:8], "--store"):
        assert words in str(caught.value)


def test_damaged_embeddings_are_named_with_their_repair(store_of, probed):
    store = store_of()
    run = probed(store)
    (store.path / "test/embeddings/c/0/0").write_bytes(b"")
    with pytest.raises(StoreError, match="medplus extract"):
        medplus.evaluate(run.path, **CPU)


# --- other embeddings -------------------------------------------------------------------------


def test_a_head_is_scored_on_other_data_through_the_same_backbone(store_of, probed, roots):
    run = probed(store_of())
    other = store_of(seed=1, dataset="other", dataset_digest="e" * 64, data_source="phantom")
    found = medplus.evaluate(run.path, "other", store=roots[0]["root"], **CPU)
    kept = read_predictions(Path(found.path))
    np.testing.assert_allclose(kept["test_score"], plain_scores(run, other), atol=1e-6)
    np.testing.assert_array_equal(kept["test_true"], other.labels("test"))
    assert Path(found.path) == Path(run.path) / "evaluations" / "other-28-eeeeeeee"
    assert (found.run_id, found.seed, found.lr) == (run.run_id, run.seed, run.lr)
    assert (found.dataset, found.data_source) == ("other", "phantom")
    assert found.store_key == other.key
    assert read_record(Path(run.path)) == run.model_copy(update={"selected": None})


def test_all_of_other_data_are_one_test_set(store_of, probed, roots, caplog):
    run = probed(store_of())
    other = store_of(
        seed=1, dataset="other", dataset_digest="e" * 64, baseline_acc=dict.fromkeys(SPLITS, 0.4)
    )
    on_other = {"dataset": "other", "store": roots[0]["root"], **CPU}
    medplus.evaluate(run.path, **on_other)
    assert "--split all scores all of its images" in caplog.text
    found = medplus.evaluate(run.path, splits="all", **on_other)
    kept = read_predictions(Path(found.path))
    scores = np.concatenate([plain_scores(run, other, split) for split in SPLITS])
    true = np.concatenate([other.labels(split) for split in SPLITS])
    np.testing.assert_allclose(kept["test_score"], scores, atol=1e-6)
    np.testing.assert_array_equal(kept["test_split"], np.repeat(SPLITS, SIZES))
    right = scores.argmax(1) == true.ravel()
    assert (list(found.metrics), found.metrics["test"]["acc"]) == (["test"], right.mean())
    assert found.baseline_acc == {"test": pytest.approx(0.4)}
    with pytest.raises(UsageError, match="has learned from"):
        medplus.evaluate(run.path, splits="all", **CPU)


@pytest.mark.parametrize(("seed", "n"), [(0, SIZES[0]), (1, 0)])
def test_other_data_that_the_head_has_learned_from_are_told(
    store_of, probed, roots, caplog, seed, n
):
    run = probed(store_of())
    store_of(seed=seed, dataset="other", dataset_digest="e" * 64)
    medplus.evaluate(run.path, "other", splits="all", store=roots[0]["root"], **CPU)
    told = f"{n} images of other in train cannot be told from images that {run.run_id} has"
    assert (told in caplog.text) == ("cannot be told" in caplog.text) == (n > 0)


DIFFERENT = {
    "backbone": {"backbone_digest": "x" * 64},
    "precision": {"precision": "bf16"},
    "feature": {"feature": "tokens"},
    "fit": {"fit": "resize"},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_embeddings_made_otherwise_are_not_taken(what, store_of, probed, roots):
    run = probed(store_of())
    store_of(seed=1, dataset="other", dataset_digest="e" * 64, **DIFFERENT[what])
    with pytest.raises(StoreError, match=r"no store of other|is of other weights of toynet"):
        medplus.evaluate(run.path, "other", store=roots[0]["root"], **CPU)


def test_the_command_that_makes_missing_embeddings_is_named(store_of, probed, roots):
    run = probed(store_of("binary-class", size=64))
    with pytest.raises(StoreError) as caught:
        medplus.evaluate(run.path, "breastmnist", store=roots[0]["root"], **CPU)
    message = str(caught.value)
    words = shlex.split(message[message.index("medplus extract") :])
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options == {
        "--dataset": "breastmnist",
        "--size": "64",
        "--backbone": "toynet",
        "--feature": "prelogits",
        "--weights": "none",
        "--precision": "fp32",
        "--dtype": "float32",
        "--fit": "pad",
        "--store": str(roots[0]["root"]),
    }


def test_a_fine_tuned_backbone_is_named_by_its_network(store_of, probed, roots):
    network = "/runs/finetune/x/network.safetensors"
    run = probed(store_of("binary-class", backbone=network, weights="pretrained"))
    with pytest.raises(StoreError) as caught:
        medplus.evaluate(run.path, "breastmnist", store=roots[0]["root"], **CPU)
    assert f"--backbone {network} --weights pretrained" in str(caught.value)


def test_the_same_data_at_another_size(store_of, probed, roots):
    run = probed(store_of())
    store_of(seed=1, size=64, dataset_digest="e" * 64)
    found = medplus.evaluate(run.path, size=64, store=roots[0]["root"], **CPU)
    assert (found.dataset, found.size) == ("toy", 64)


def test_stores_of_either_dtype_serve_and_the_heads_own_is_preferred(store_of, probed, roots):
    run = probed(store_of())
    half = store_of(seed=1, dataset="other", dataset_digest="e" * 64, dtype="float16")
    root = roots[0]["root"]
    found = medplus.evaluate(run.path, "other", store=root, **CPU)
    assert found.store_key == half.key
    full = store_of(seed=1, dataset="other", dataset_digest="e" * 64)
    assert medplus.evaluate(run.path, "other", store=root, **CPU).store_key == full.key


def test_files_of_one_name_are_told_apart_by_their_content(
    write_npz, store_of, probed, roots, tmp_path
):
    run = probed(store_of())
    paths, stores = [], []
    for seed in (1, 2):
        paths.append(write_npz("other", n=(9, 8, 7), size=28, classes=3, seed=seed))
        digest = medplus.load_dataset(str(paths[-1])).digest
        stores.append(store_of(seed=seed, dataset="other", dataset_digest=digest))
    for path, store in zip(paths, stores, strict=True):
        found = medplus.evaluate(run.path, str(path), store=roots[0]["root"], **CPU)
        assert found.store_key == store.key


def test_datasets_of_one_flag_are_told_apart_by_the_data_root(write_npz, store_of, probed, roots):
    run = probed(store_of("binary-class"))
    npz = write_npz("breastmnist", n=(9, 8, 7), size=28)
    digest = medplus.load_dataset("breastmnist", data_root=npz.parent).digest
    options = {"task": "binary-class", "seed": 1, "dataset": "breastmnist"}
    meant = store_of(**options, dataset_digest=digest)
    store_of(**options, dataset_digest="e" * 64)
    root = roots[0]["root"]
    found = medplus.evaluate(run.path, "breastmnist", store=root, data_root=npz.parent, **CPU)
    assert found.store_key == meant.key
    with pytest.raises(StoreError, match=r"2 stores match breastmnist"):
        medplus.evaluate(run.path, "breastmnist", store=root, **CPU)


def test_other_classes_are_refused_by_name(store_of, probed, roots):
    run = probed(store_of("binary-class", classes=["malignant", "normal, benign"]))
    with pytest.raises(UsageError, match=r"'malignant', 'normal, benign'.*'normal', 'pneumonia'"):
        medplus.evaluate(run.path, "pneumoniamnist", store=roots[0]["root"], **CPU)


@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
def test_classes_in_another_order_are_matched_by_name_and_it_is_said(
    task, store_of, probed, roots, write_store, caplog
):
    names = ["benign", "malignant", "unsure"]
    run = probed(store_of(task, classes=names))
    values, labels, _ = clouds(task)
    turned = [
        label[:, ::-1].copy() if task == MULTI_LABEL else (2 - label).astype("u1")
        for label in labels
    ]
    write_store(values, turned, task=task, classes=names[::-1], dataset="turned",
                dataset_digest="e" * 64, **roots[0])  # fmt: skip
    found = medplus.evaluate(run.path, "turned", store=roots[0]["root"], **CPU)
    assert found.metrics["test"]["acc"] == run.metrics["test"]["acc"]
    assert "matched by name" in caplog.text


@pytest.mark.parametrize("other", [["1", "2", "3"], ["benign", "malignant", "unsure"]])
def test_numbers_stand_for_names_but_not_for_other_numbers(other, store_of, probed, roots):
    run = probed(store_of())
    store_of(seed=1, dataset="other", dataset_digest="e" * 64, classes=other)
    if other[0] == "1":
        with pytest.raises(UsageError, match="learned toy"):
            medplus.evaluate(run.path, "other", store=roots[0]["root"], **CPU)
    else:
        medplus.evaluate(run.path, "other", store=roots[0]["root"], **CPU)


def test_other_numbers_of_classes_are_refused(store_of, probed, roots):
    run = probed(store_of())
    store_of("binary-class", seed=1, dataset="other", dataset_digest="e" * 64)
    with pytest.raises(UsageError, match=r"multi-class, 3 classes.*binary-class, 2 classes"):
        medplus.evaluate(run.path, "other", store=roots[0]["root"], **CPU)


def test_embeddings_of_another_width_are_refused(store_of, probed, roots):
    run = probed(store_of())
    store_of(seed=1, dim=5, size=64, dataset_digest="e" * 64)
    with pytest.raises(UsageError, match=r"gives 5 dimensions.*takes 6"):
        medplus.evaluate(run.path, size=64, store=roots[0]["root"], **CPU)


# --- the head itself --------------------------------------------------------------------------


def another(path):
    write_tensors(path, {"weight": torch.zeros(3, 6), "bias": torch.zeros(3)}, {})


SPOILT = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-3]), "is damaged"),
    "text": (lambda path: path.write_text("no head"), "is damaged"),
    "another whole one": (another, "is damaged"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_head_is_named(how, store_of, probed):
    spoil, says = SPOILT[how]
    run = probed(store_of())
    spoil(Path(run.path) / HEAD_FILE)
    with pytest.raises(RunError, match=says) as caught:
        medplus.evaluate(run.path, **CPU)
    assert HEAD_FILE in str(caught.value)
    assert not (Path(run.path) / "evaluations").exists()


def test_precision_is_not_for_heads(store_of, probed):
    with pytest.raises(UsageError, match="--precision bf16 is for networks"):
        medplus.evaluate(probed(store_of()).path, precision="bf16", **CPU)


def test_a_knn_run_has_nothing_to_score(store_of, roots):
    [run] = medplus.knn(store_of(), 3, device="cpu", **roots[1])
    with pytest.raises(UsageError, match=r"is a kNN run, which saves nothing.*medplus knn"):
        medplus.evaluate(run.path, **CPU)
