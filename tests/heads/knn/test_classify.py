"""The kNN protocol: from a store to records, equal to scikit-learn on the same embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from scipy.stats import mode
from sklearn.neighbors import NearestNeighbors

from medplus.errors import RunError, UsageError
from medplus.heads.knn import knn
from medplus.heads.knn import search as knn_search
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL

pytestmark = pytest.mark.usefixtures("fast_disk")

SIZES = (300, 60, 80)
TASKS = ("multi-class", "binary-class", "ordinal-regression", MULTI_LABEL)


@pytest.fixture(scope="module")
def task_store(write_store):
    """Return a function that writes a store for a task whose classes lie in overlapping clouds."""

    def write(task="multi-class", dtype="float32", seed=0, rounded=True, **more):
        rng = np.random.default_rng(seed)
        n_classes = 2 if task == "binary-class" else 4
        n_labels = n_classes if task == MULTI_LABEL else 1
        centres = rng.normal(size=(n_classes, 5))
        embeddings, labels = [], []
        for n in SIZES:
            if n_labels == 1:
                y = rng.integers(0, n_classes, (n, 1))
                x = centres[y[:, 0]]
            else:
                y = rng.integers(0, 2, (n, n_labels))
                x = y @ centres
            x = x + rng.normal(size=x.shape)
            # A coarse grid brings ties in distance, and so ties in votes.
            embeddings.append((x.round() if rounded else x).astype(dtype))
            labels.append(y.astype("u1"))
        return write_store(
            embeddings, labels, task=task, classes=n_classes, dtype=dtype, **more
        )  # fmt: skip

    return write


def truth_and_neighbours(store, k, metric="euclidean"):
    """Return train labels and, per split, scikit-learn's neighbours with ties ordered by row."""
    train = store.embeddings("train").astype("f8")
    brute = NearestNeighbors(algorithm="brute", metric=metric).fit(train)
    found = {}
    for split in ("val", "test"):
        queries = store.embeddings(split).astype("f8")
        distances, rows = brute.kneighbors(queries, len(train))
        order = np.lexsort((rows, distances.round(9)), axis=1)
        found[split] = np.take_along_axis(rows, order, 1)[:, :k]
    return store.labels("train"), found


def decide(scores, task):
    if task == MULTI_LABEL:
        return scores > 0.5
    return scores[:, -1] > 0.5 if task == "binary-class" else scores.argmax(1)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_scikit_learns_search_with_scipys_vote(
    task, metric, backend, task_store, tmp_path
):
    store = task_store(task, rounded=metric == "l2")
    records = knn(store, [1, 4, 11], metric=metric, backend=backend, device="cpu", runs=tmp_path)
    for record, k in zip(records, (1, 4, 11), strict=True):
        assert (record.k, record.metric, record.cost["backend"]) == (k, metric, backend)
        predictions = read_predictions(Path(record.path))
        name = {"l2": "euclidean", "cosine": "cosine"}[metric]
        labels, neighbours = truth_and_neighbours(store, k, name)
        for split in ("val", "test"):
            votes = labels[neighbours[split]].astype(int)
            expected = votes.mean(1) > 0.5 if task == MULTI_LABEL else mode(votes[..., 0], 1).mode
            found = decide(predictions[f"{split}_score"], task)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
@pytest.mark.parametrize("vote", ["majority", "distance"])
def test_several_k_from_one_search_equal_separate_searches(task, vote, task_store, tmp_path):
    store = task_store(task)
    together = knn(store, [11, 1, 5], vote=vote, runs=tmp_path / "together")
    for record in together:
        [alone] = knn(store, record.k, vote=vote, runs=tmp_path / "alone")
        a, b = (read_predictions(Path(r.path)) for r in (record, alone))
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert record.run_id == alone.run_id
        assert record.metrics == alone.metrics
    assert [record.k for record in together] == [11, 1, 5]


def test_cost_is_that_of_the_search_which_the_runs_share(task_store, tmp_path):
    store = task_store("multi-class")
    records = knn(store, [1, 5], device="cpu", runs=tmp_path)
    for record in records:
        cost, queries = record.cost, len(store.labels("val")) + len(store.labels("test"))
        assert cost.keys() == {
            "seconds", "device_seconds", "device", "peak_memory_bytes", "images_per_second",
            "backend", "shared_by", "queries",
        }  # fmt: skip
        assert cost["seconds"] == cost["device_seconds"] == record.seconds > 0
        assert cost["peak_memory_bytes"] > 1e6
        assert (cost["shared_by"], cost["queries"]) == (2, queries)
        assert cost["images_per_second"] == queries / record.seconds


def test_one_search_serves_every_k(task_store, tmp_path, monkeypatch):
    searches = []
    search = knn_search.search

    def watch(train, queries, k, **more):
        searches.append((len(queries), k))
        return search(train, queries, k, **more)

    monkeypatch.setattr(knn_search, "search", watch)
    knn(task_store(), [1, 3, 11], runs=tmp_path)
    assert searches == [(60 + 80, 11)]


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_medmnists_on_the_saved_predictions(task, task_store, tmp_path):
    [record] = knn(task_store(task), 5, runs=tmp_path)
    predictions = read_predictions(Path(record.path))
    for split in ("val", "test"):
        truth, scores = predictions[f"{split}_true"], predictions[f"{split}_score"]
        assert record.metrics[split]["acc"] == pytest.approx(getACC(truth, scores, task))
        assert record.metrics[split]["auc"] == pytest.approx(getAUC(truth, scores, task))


@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
def test_predictions_hold_scores_truth_and_index_of_val_and_test(task, task_store, tmp_path):
    store = task_store(task)
    [record] = knn(store, 5, runs=tmp_path)
    predictions = read_predictions(Path(record.path))
    assert set(predictions) == {f"{s}_{a}" for s in ("val", "test") for a in
                                ("score", "true", "index")}  # fmt: skip
    for split in ("val", "test"):
        scores = predictions[f"{split}_score"]
        assert scores.dtype == np.float32
        assert scores.shape == (len(store.index(split)), 4)
        np.testing.assert_array_equal(predictions[f"{split}_true"], store.labels(split))
        np.testing.assert_array_equal(predictions[f"{split}_index"], store.index(split))


def test_the_defaults_are_the_papers(task_store, tmp_path):
    [record] = knn(task_store(), runs=tmp_path)
    assert (record.k, record.metric, record.vote) == (11, "l2", "majority")


# --- runs -------------------------------------------------------------------------------------


def test_a_run_lies_where_the_design_says(task_store, tmp_path):
    store = task_store(size=64)
    [record] = knn(store, 3, runs=tmp_path)
    path = Path(record.path)
    assert path.parent == tmp_path / "knn/toy/64/toynet"
    assert sorted(p.name for p in path.iterdir()) == ["predictions.npz", "record.json"]
    assert record.store_key == store.key
    assert record.config["store"] == store.key


def test_runs_that_exist_are_not_computed_again(task_store, tmp_path, monkeypatch):
    store = task_store()
    first = knn(store, [1, 5], runs=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = knn(store, [1, 5], runs=tmp_path)
    assert [r.to_dict() for r in again] == [r.to_dict() for r in first]
    more = knn(store, [5, 7, 1], runs=tmp_path)
    assert [r.k for r in more] == [5, 7, 1]
    kept = [p for p in before if p.is_file()]
    assert len(kept) == 4
    assert all(p.stat().st_mtime_ns == before[p] for p in kept)
    monkeypatch.setattr(knn_search, "search", None)  # not even called
    knn(store, [1, 5, 7], runs=tmp_path)


def test_overwrite_computes_again(task_store, tmp_path):
    store = task_store()
    [first] = knn(store, 5, runs=tmp_path)
    file = Path(first.path) / "record.json"
    file.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        knn(store, 5, runs=tmp_path)
    [again] = knn(store, 5, runs=tmp_path, overwrite=True)
    assert again.metrics == first.metrics
    assert json.loads(file.read_text())["run_id"] == first.run_id


def test_every_setting_is_another_run(task_store, tmp_path):
    store = task_store()
    settings = [{}, {"metric": "cosine"}, {"vote": "distance"}]
    ids = [knn(store, 5, runs=tmp_path, **setting)[0].run_id for setting in settings]
    assert len(set(ids)) == len(ids)


def test_the_backend_makes_no_other_run_as_it_makes_no_other_result(task_store, tmp_path):
    store = task_store()
    [found] = knn(store, 5, runs=tmp_path, backend="faiss")
    [again] = knn(store, 5, runs=tmp_path, backend="torch")
    [other] = knn(store, 5, runs=tmp_path / "other", backend="torch")
    assert again == found
    assert (other.run_id, other.metrics) == (found.run_id, found.metrics)
    assert other.cost["backend"] == "torch"


def test_several_stores_are_scored_in_order(task_store, tmp_path):
    stores = [task_store(dataset=name) for name in ("b", "a")]
    records = knn([stores[0], stores[1].path], [1, 3], runs=tmp_path)
    assert [(r.dataset, r.k) for r in records] == [("b", 1), ("b", 3), ("a", 1), ("a", 3)]
    assert sum(r.selected for r in records) == 2  # one k per store


def test_k_may_be_numpys(task_store, tmp_path):
    store = task_store("multi-class")
    [one] = knn(store, np.int64(3), runs=tmp_path)
    assert one.k == 3


def test_the_same_k_twice_is_one_run(task_store, tmp_path):
    assert [r.k for r in knn(task_store(), [3, 3], runs=tmp_path)] == [3]


# --- what is refused --------------------------------------------------------------------------


def test_k_above_the_train_split_is_refused_and_nothing_is_written(task_store, tmp_path):
    with pytest.raises(RunError, match="k = 301 exceeds the 300 rows"):
        knn(task_store(), [5, 301], runs=tmp_path)
    assert list(tmp_path.rglob("record.json")) == []


@pytest.mark.parametrize("k", [0, -1, [5, 0], [], "many"])
def test_impossible_k_is_refused(k, task_store, tmp_path):
    with pytest.raises(UsageError, match="k"):
        knn(task_store(), k, runs=tmp_path)


@pytest.mark.parametrize(
    "option", [{"metric": "l1"}, {"vote": "plurality"}, {"backend": "annoy"}, {"device": "tpu"}]
)
def test_unknown_options_are_refused(option, task_store, tmp_path):
    with pytest.raises(UsageError, match=next(iter(option.values()))):
        knn(task_store(), 5, runs=tmp_path, **option)
