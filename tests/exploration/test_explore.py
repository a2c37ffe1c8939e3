"""The page as a file: what it holds, against scikit-learn and the runs themselves."""

import csv

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from medplus.datasets.sources import load_dataset
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.extract import extract
from medplus.embeddings.transform import Transform
from medplus.errors import RunError, UsageError
from medplus.exploration.explore import explore
from medplus.heads.knn import knn
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL, SPLITS
from tests.exploration.toys import N, column, data_of, toy, unpacked

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture(scope="module")
def made(write_npz, new_folder):
    folder = new_folder()
    npz = toy(write_npz, folder)
    store = extract(str(npz), backbone="pixels", store=folder / "embeddings")
    records = knn(store, k=[1, 5], runs=folder / "runs")
    table = folder / "suspects.csv"
    rows = [("toy", "test", 3, "label"), ("", "train", 2, "copy"), ("", "train", 2, "outlier")]
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "split", "index", "kind", "verdict"])
        writer.writerows([(f"{s}/{i}", s, i, kind, "") for _, s, i, kind in rows])
    return folder, store, records, table


@pytest.fixture(scope="module")
def data(made):
    folder, store, records, table = made
    runs = [record.path for record in records]
    return data_of(explore(store, out=folder / "page", runs=runs, suspects=table).path)


def test_neighbours_are_the_nearest_over_all_splits(made, data):
    every = np.concatenate([made[1].embeddings(split) for split in SPLITS]).astype(np.float64)
    search = NearestNeighbors(n_neighbors=12).fit(every)
    distances, rows = search.kneighbors()  # of each row, without itself
    np.testing.assert_array_equal(unpacked(data["neighbours"]).reshape(-1, 12), rows)
    np.testing.assert_allclose(unpacked(data["distances"]).reshape(-1, 12), distances, rtol=1e-5)


def test_predictions_stand_beside_the_images_they_are_of(made, data):
    begin = {"val": N[0], "test": N[0] + N[1]}
    assert [run["path"] for run in data["runs"]] == [record.path for record in made[2]]
    for number, run in enumerate(data["runs"], start=1):
        predicted, errors = unpacked(run["predicted"]), column(data, f"error_{number}")
        assert not predicted[: N[0]].any()
        assert set(errors[: N[0]]) == {"not scored"}
        saved = read_predictions(made[0] / run["path"])
        for split in ("val", "test"):
            rows = begin[split] + saved[f"{split}_index"]
            guess = saved[f"{split}_score"].argmax(1)
            np.testing.assert_array_equal(predicted[rows] - 1, guess)
            wrong = guess != saved[f"{split}_true"][:, 0]
            assert (errors[rows] == "wrong").tolist() == wrong.tolist()
            score = unpacked(run["score"])[rows] / 250
            np.testing.assert_allclose(score, saved[f"{split}_score"].max(1), atol=0.0021)


def test_audit_flags_are_those_of_the_table(data):
    flags = column(data, "audit")
    assert flags[N[0] + N[1] + 3] == "label"
    assert flags[2] == "copy + outlier"
    assert (flags != "nothing").sum() == 2
    assert data["flags"]["2"] == "copy; outlier"


def test_a_table_of_other_images_is_refused(made, tmp_path):
    other = tmp_path / "suspects.csv"
    other.write_text("name,split,index,kind,verdict\nelse.png,train,2,copy,\n")
    with pytest.raises(UsageError, match=r"else\.png is not number 2 of train"):
        explore(made[1], out=tmp_path, suspects=other, runs=[made[0] / "runs"])


def test_a_root_gives_the_best_on_val_of_each_kind(made, tmp_path):
    found = explore(made[1], out=tmp_path, runs=str(made[0] / "runs"), kind="pca")
    best = max(made[2], key=lambda record: record.metrics["val"]["acc"])
    assert [run.path for run in found.collection.runs] == [best.path]
    assert any("best on val" in note for note in found.collection.notes)


def test_runs_of_other_images_are_refused(made, write_store, tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, 3)).astype("f4") for n in N]
    other = write_store(values, [np.arange(n) % 3 for n in N])
    with pytest.raises(RunError, match="other images"):
        explore(other, out=tmp_path, runs=[made[2][0].path])


def test_without_images_it_says_so_and_has_no_thumbnails(write_store, tmp_path):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, (n, 3)) for n in N]
    store = write_store([rng.normal(size=(n, 4)).astype("f4") for n in N], labels, task=MULTI_LABEL)
    found = explore(store, out=tmp_path, runs=[], kind="pca")
    data = data_of(found.path)
    assert data["thumbnails"] is None
    assert any("without thumbnails" in note for note in found.collection.notes)
    # Several labels: each combination in words, and each label alone.
    names = np.array(store.info.classes)
    truth = np.concatenate(labels) == 1
    assert column(data, "class").tolist() == [",".join(names[row]) or "no label" for row in truth]
    assert (column(data, "label_1") == "yes").tolist() == truth[:, 1].tolist()


def test_derived_stores_have_a_page_too(made, tmp_path):
    derived = DerivedStore([made[1]], Transform.parse("pca:5"))
    assert explore(derived, out=tmp_path, runs=[], kind="pca").collection.dim == 5


def test_hostile_names_stay_names(write_store, write_npz, new_folder, tmp_path):
    evil = ['</script><script>alert("1")</script>', "a'b\"c\u2028", "\x1b[31m\u202egnp"]
    path = toy(write_npz, new_folder())
    rng = np.random.default_rng(0)
    store = write_store(
        [rng.normal(size=(n, 4)).astype("f4") for n in N], [np.arange(n) % 3 for n in N],
        classes=evil, dataset="<img src=x onerror=alert(1)>", dataset_path=str(path),
        dataset_digest=load_dataset(str(path)).digest,
    )  # fmt: skip
    page = explore(store, out=tmp_path, runs=[], kind="pca").path
    html = page.read_text(encoding="utf-8")
    assert 'alert("1")' not in html and "<img" not in html
    assert html.count("<script>") == html.count("</script>") - 1 == 4  # and the data's
    assert data_of(page)["words"] == evil


def test_too_many_images_become_parquet_for_embedding_atlas(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = explore(made[1], out=tmp_path, runs=[made[2][0].path], most_images=sum(N) - 1)
    assert found.to_dict()["show"].startswith(f"embedding-atlas {found.path}")
    table = parquet.read_table(found.path).to_pylist()
    assert [row["name"] for row in table[:2]] == ["train/0", "train/1"]
    np.testing.assert_allclose([(row["x"], row["y"]) for row in table], found.collection.places)
    assert [row["neighbors"]["ids"] for row in table] == found.collection.neighbours.tolist()
    assert table[-1]["split"] == "test" and table[0]["error_1"] == "not scored"


def test_the_command_takes_the_store_that_is_there_or_names_extract(made, cli):
    folder = made[0]
    stores = folder / "embeddings"
    done = cli("explore", folder / "toy.npz", "--store", stores, "--map", "pca", "--json")
    assert done.code == 0 and '"n_images": 52' in done.out
    none = cli("explore", folder / "toy.npz", "--store", "nowhere")
    assert none.code == 1 and "medplus extract --dataset" in none.err
    bad = cli("explore", folder / "toy.npz", "--clusters", "many")
    assert bad.code == 2 and "neither a number from 1 on nor hdbscan" in bad.err
    [one] = stores.glob("toy/*/pixels-*.zarr")
    idle = cli("explore", one, "--fit", "resize")
    assert idle.code == 2 and "--fit has nothing to choose" in idle.err
