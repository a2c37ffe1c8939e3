"""Heads and networks are scored on what a plain computation makes of corrupted images."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import medplus
from medplus.analysis.drawing.style import look
from medplus.analysis.load import benchmark_of
from medplus.analysis.results.runs import read_runs
from medplus.analysis.robustness import robustness
from medplus.backbones import build
from medplus.corruptions import Corruption
from medplus.corruptions.apply import corrupt
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.transform import Transform
from medplus.errors import RunError, StoreError, UsageError
from medplus.heads.folded import Folds
from medplus.run.ledger import read_head
from medplus.run.robustness import read_robustness

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def made(write_npz, tmp_path):
    """Return a dataset of blobs, its pixels' store, and a folder for runs."""
    rng = np.random.default_rng(1)
    images, labels = {}, {}
    for split, n in (("train", 60), ("val", 30), ("test", 40)):
        y = np.arange(n) % 2
        base = rng.normal(110, 25, (n, 12, 12)) + 25 * y[:, None, None] * (np.arange(12) > 5)
        images[f"{split}_images"] = base.clip(0, 255).astype(np.uint8)
        labels[f"{split}_labels"] = y[:, None].astype(np.uint8)
    npz = write_npz("blobs", n=(60, 30, 40), size=12, classes=2, **images, **labels)
    store = medplus.extract(str(npz), backbone="pixels", store=tmp_path / "stores", device="cpu")
    return npz, store, tmp_path / "runs"


def test_images(npz):
    with np.load(npz) as file:
        return file["test_images"], file["test_labels"][:, 0]


test_images.__test__ = False


def test_probe_is_scored_on_corrupted_pixels(made):
    npz, store, runs = made
    [record] = medplus.probe(store, seeds=[1], lr=[0.01], epochs=20, runs=runs, device="cpu")
    [scored] = medplus.robust(record.path, ["noise", "contrast"], [2, 5], device="cpu")
    images, labels = test_images(npz)
    head = {name: tensor.numpy() for name, tensor in read_head(Path(record.path)).items()}
    assert scored.computed == len(scored.found.points) == 12
    clean = scored.found.clean
    assert clean.balanced_error == pytest.approx(1 - record.metrics["test"]["balanced_accuracy"])
    for point in scored.found.points:
        worse = corrupt(images, Corruption(*point.key), np.arange(40))
        logits = worse.reshape(40, -1) / np.float32(255) @ head["weight"].T + head["bias"]
        error = 1 - balanced_accuracy_score(labels, logits.argmax(1))
        assert point.balanced_error == pytest.approx(error)
        assert point.cost == pytest.approx(error - clean.balanced_error)
        assert point.balanced_error_ci95[0] <= error <= point.balanced_error_ci95[1]


def test_neighbours_are_those_in_the_clean_train_split(made):
    npz, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    [scored] = medplus.robust(record.path, "gaussian_noise", 4, device="cpu")
    images, labels = test_images(npz)
    model = KNeighborsClassifier(5).fit(store.embeddings("train"), store.labels("train")[:, 0])
    worse = corrupt(images, Corruption("gaussian_noise", 4, "grey"), np.arange(40))
    guessed = model.predict(worse.reshape(40, -1) / np.float32(255))
    [point] = scored.found.points
    assert point.balanced_error == pytest.approx(1 - balanced_accuracy_score(labels, guessed))


def test_network_is_scored_on_corrupted_images(made, tmp_path):
    npz, _, runs = made
    record = medplus.finetune(
        str(npz), backbone="pixels", epochs=2, lr=0.01, runs=runs, device="cpu", precision="fp32"
    )[0]
    names = ["brightness_down"]
    [scored] = medplus.robust(record.path, names, [1, 5], device="cpu")
    worse = tmp_path / "worse" / "blobs.npz"
    worse.parent.mkdir()
    with np.load(npz) as file:
        arrays = dict(file)
    for point in scored.found.points:
        arrays["test_images"] = corrupt(
            np.load(npz)["test_images"], Corruption(*point.key), np.arange(40)
        )
        np.savez(worse, **arrays)
        again = medplus.evaluate(record.path, str(worse), splits=["test"], device="cpu")
        found = again.metrics["test"]["balanced_accuracy"]
        assert point.balanced_error == pytest.approx(1 - found)


def test_what_is_known_is_not_computed_again_and_the_backbone_is_loaded_once(made):
    _, store, runs = made
    [record] = medplus.probe(store, seeds=[1], lr=[0.01], epochs=2, runs=runs, device="cpu")
    with patch.object(build, "load", wraps=build.load) as load:
        [first] = medplus.robust(record.path, ["blur"], [1, 2], device="cpu")
        assert load.call_count == 1
        [second] = medplus.robust(record.path, ["blur"], [1, 2], device="cpu")
        assert load.call_count == 1
    assert (first.computed, second.computed) == (6, 0)
    assert first.found == second.found
    [third] = medplus.robust(record.path, ["blur"], [2, 3], device="cpu")
    assert third.computed == 3
    assert {point.severity for point in third.found.points} == {2, 3}
    kept = read_robustness(Path(record.path))
    assert len(kept.points) == 9


def test_corrupted_stores_are_taken_for_no_others(made, cli):
    _, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    before = {path.name for path in Path(store.path).parent.iterdir()}
    medplus.robust(record.path, ["jpeg"], [1, 5], device="cpu")
    root = Path(store.path).parents[2]
    [one, other] = [p for p in Path(store.path).parent.iterdir() if p.name not in before]
    found = medplus.find_store(root, medplus.ExtractSpec("blobs", 12, "pixels"))
    assert found.path == store.path
    worse = medplus.open_store(one)
    assert dict(worse.info.n_samples) == {"test": 40}
    assert worse.verify() == []
    assert worse.names("test") == store.names("test")
    for ask in (
        lambda: medplus.knn(worse, 5, runs=runs, device="cpu"),
        lambda: medplus.curve(worse, [1], runs=runs, device="cpu"),
        lambda: DerivedStore([worse], Transform("l2")),
    ):
        with pytest.raises(StoreError, match="no train; name a store of the clean images"):
            ask()
    listed = {
        row["path"]: row for row in cli("store", "ls", "--store", root, "--json").document["stores"]
    }
    assert listed[str(other)]["corruption"].startswith("jpeg_compression:")
    assert listed[str(store.path)]["corruption"] is None
    spec = worse.info.spec
    assert medplus.find_store(root, spec).path == one


def test_damaged_corrupted_store_is_made_again(made):
    _, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    [scored] = medplus.robust(record.path, ["jpeg"], [5], device="cpu")
    [worse] = [p for p in Path(store.path).parent.iterdir() if p != store.path]
    (worse / "test" / "embeddings" / "c" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=r"--corruption jpeg_compression:5@grey"):
        medplus.robust(record.path, ["jpeg"], [5], device="cpu", overwrite=True)
    medplus.extract_all([medplus.open_store(worse).info.spec], store=store.path.parents[2])
    [again] = medplus.robust(record.path, ["jpeg"], [5], device="cpu", overwrite=True)
    assert again.found == scored.found


def test_folder_of_runs_gives_the_best_by_val(made):
    _, store, runs = made
    records = medplus.knn(store, [1, 5, 11], runs=runs, device="cpu")
    [best] = [record.path for record in records if record.selected]
    assert [one.record.path for one in medplus.robust(runs, ["jpeg"], [1])] == [best]
    every = medplus.robust(runs, ["jpeg"], [1], every=True)
    assert [one.computed for one in every].count(0) == 1
    assert len(every) == 3


def test_what_cannot_be_scored_is_refused(made, tmp_path):
    _, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu", folds=Folds(3))
    with pytest.raises(UsageError, match="cross-validated"):
        medplus.robust(record.path)
    with pytest.raises(UsageError, match="does not exist"):
        medplus.robust(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="none of 1 to 5"):
        medplus.robust(record.path, severities=[6])


def test_other_data_under_the_name_are_refused(made, write_npz):
    npz, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    write_npz("blobs", n=(60, 30, 40), size=12, classes=2, folder=npz.parent)
    with pytest.raises(UsageError, match="holds other data"):
        medplus.robust(record.path, ["jpeg"], [1])


def test_damaged_scores_are_not_believed(made):
    _, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    medplus.robust(record.path, ["jpeg"], [1])
    file = Path(record.path) / "robustness.json"
    file.write_text(file.read_text().replace('"severity": 1', '"severity": 2'))
    with pytest.raises(RunError, match="is damaged; delete it"):
        medplus.robust(record.path, ["jpeg"], [1])


def test_command_writes_what_the_report_finds(made, cli):
    _, store, runs = made
    [record] = medplus.knn(store, 5, runs=runs, device="cpu")
    assert robustness(benchmark_of(read_runs(runs), "here")) is None
    ran = cli("robust", record.path, "--corruptions", "noise", "--severity", "1,4-5", "--json")
    [run] = ran.document["runs"]
    assert {point["severity"] for point in run["points"]} == {1, 4, 5}
    shown = cli("robust", record.path, "--corruptions", "noise", "--severity", "1,4-5")
    assert "All of it was known" in shown.out
    section = robustness(benchmark_of(read_runs(runs), "here"))
    assert list(section.sentences) == ran.document["sentences"]
    with look():
        titles = [axes.get_title(loc="left") for axes in section.figures[0].draw().axes]
    assert titles == ["gaussian noise", "speckle noise", "impulse noise", "shot noise"]
    rows = list(csv.DictReader(io.StringIO(section.tables[1].csv())))
    assert len(rows) == 12
    assert float(rows[0]["balanced_error"]) == pytest.approx(
        100 * run["points"][0]["balanced_error"], abs=0.01
    )


@pytest.mark.parametrize("protocol", ["probe", "knn"])
def test_heads_on_joined_and_transformed_embeddings_are_scored(made, tmp_path, protocol):
    npz, store, runs = made
    parts = [store, medplus.open_store(store.path)]
    joined = DerivedStore(parts, Transform.parse("pca:5"))
    if protocol == "probe":
        [record] = medplus.probe(joined, seeds=[1], lr=[0.1], epochs=20, runs=runs, device="cpu")
    else:
        [record] = medplus.knn(joined, 5, runs=runs, device="cpu")
    [scored] = medplus.robust(record.path, ["contrast_down"], [4], device="cpu")
    images, labels = test_images(npz)
    worse = corrupt(images, Corruption("contrast_down", 4, "grey"), np.arange(40))
    train = np.hstack([store.embeddings("train")] * 2)
    scaler, pca = StandardScaler(), PCA(5)
    x = pca.fit_transform(scaler.fit_transform(train))
    z = pca.transform(scaler.transform(np.hstack([worse.reshape(40, -1) / np.float32(255)] * 2)))
    if protocol == "probe":
        head = {name: tensor.numpy() for name, tensor in read_head(Path(record.path)).items()}
        signs = np.sign((pca.components_ * head["input.components"]).sum(axis=1))
        guessed = (z * signs @ head["weight"].T + head["bias"]).argmax(1)
    else:
        guessed = KNeighborsClassifier(5).fit(x, store.labels("train")[:, 0]).predict(z)
    [point] = scored.found.points
    assert point.balanced_error == pytest.approx(1 - balanced_accuracy_score(labels, guessed))
