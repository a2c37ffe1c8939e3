"""Backbones as a transformer: the embeddings of `medplus.extract`, each image embedded once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import medplus
from medplus.errors import DatasetError, StoreError, UsageError
from medplus.reading import Reading
from medplus.sklearn import EmbeddingTransformer, KNNProbe

COUNTED = '''
"""A backbone that notes the images it was given."""

from pathlib import Path

from torch import nn


class Counted(nn.Module):
    def forward(self, x):
        if len(x):
            with Path({log!r}).open("a") as file:
                file.write("".join(f"{{float(value)}}\\n" for value in x.mean((1, 2, 3))))
        return x.mean(1).flatten(1)


def backbone():
    return Counted(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 8
'''


def images(n=12, size=8, channels=(3,), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size, *channels), dtype=np.uint8)


def plain():
    """60 images of one colour each."""
    return np.repeat(np.arange(1, 61, dtype=np.uint8), 192).reshape(60, 8, 8, 3) * 4


@pytest.fixture
def counted(tmp_path):
    """Return a backbone, and a function that counts how often it was given each of `plain`."""
    log = tmp_path / "log"
    (tmp_path / "counted.py").write_text(COUNTED.format(log=str(log)))

    def given():
        values = np.array(log.read_text().split(), float)
        near = np.abs(values[:, None] - plain().mean((1, 2, 3)) / 255) < 1e-6
        return near.sum(0).tolist()

    return str(tmp_path / "counted.py"), given


@pytest.fixture
def files(tmp_path):
    paths = []
    for number, image in enumerate(images()):
        paths.append(tmp_path / "images" / f"{number}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(paths[-1])
    return paths


@pytest.mark.parametrize("backbone", ["pixels", "mobilenetv3_small_050"])
def test_arrays_embed_as_a_dataset_of_them_does(backbone, write_npz, tmp_path):
    data = write_npz("toy", n=(12, 3, 3), channels=3)
    store = medplus.extract(str(data), backbone=backbone, weights="none", store=tmp_path / "stores")
    with np.load(data) as arrays:
        x = arrays["train_images"]
    transformer = EmbeddingTransformer(backbone, weights="none", store=tmp_path / "stores")
    found = transformer.fit_transform(x)
    np.testing.assert_allclose(found, store.embeddings("train"), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(transformer.transform(x[::-1]), found[::-1])
    assert found.dtype == np.float32


def test_files_embed_as_the_arrays_that_they_hold(files, tmp_path):
    expected = EmbeddingTransformer("pixels", store=None).fit_transform(images())
    named = [files, [str(path) for path in files], pd.Series(map(str, files))]
    for paths in [*named, pd.DataFrame({"path": map(str, files)})]:
        transformer = EmbeddingTransformer("pixels", size=8, store=tmp_path / "stores")
        np.testing.assert_array_equal(transformer.fit_transform(paths), expected)


def test_files_are_read_as_a_dataset_reads_them(files, tmp_path):
    for number, path in enumerate(files):  # a folder by class
        folder = path.parent / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.open(path).convert("L").resize((9, 7)).save(folder / path.name)
        path.unlink()
    data = medplus.load_dataset(str(files[0].parent), 6)
    assert data.reading.channels == "grey"
    paths = [files[0].parent / name for name in data.splits["train"].names]
    found = EmbeddingTransformer("pixels", reading=data.reading, store=tmp_path).fit_transform(
        paths
    )
    expected = EmbeddingTransformer("pixels", store=None).fit_transform(data.splits["train"].images)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.extensive)])
def test_cross_validation_embeds_every_image_once(n_jobs, counted, tmp_path):
    backbone, given = counted
    x, y = plain(), np.arange(60) % 2
    embed = EmbeddingTransformer(backbone, image_fit="native", store=tmp_path / "stores")
    model = make_pipeline(embed, KNNProbe(3))
    scores = cross_val_score(model, x, y, cv=4, n_jobs=n_jobs, error_score="raise")
    assert given() == [1] * 60
    flat = embed.transform(x)
    np.testing.assert_array_equal(scores, cross_val_score(KNNProbe(3), flat, y, cv=4))
    search = GridSearchCV(model, {"knnprobe__k": [1, 5]}, error_score="raise").fit(x, y)
    assert search.predict(x[:3]).shape == (3,)
    assert given() == [1] * 60


def test_an_interrupted_call_goes_on_and_what_is_damaged_is_embedded_again(counted, tmp_path):
    backbone, given = counted
    x = plain()
    embed = EmbeddingTransformer(backbone, image_fit="native", store=tmp_path / "stores")
    embed.fit(x).transform(np.concatenate([x[:20], x[:20]]))
    assert given() == [1] * 20 + [0] * 40
    [file] = (tmp_path / "stores").rglob("*.sqlite")
    with sqlite3.connect(file) as kept:
        [(image, row)] = kept.execute("SELECT * FROM embeddings LIMIT 1").fetchall()
        kept.execute("UPDATE embeddings SET embedding = ? WHERE image = ?",
                     (bytes([row[0] ^ 1]) + row[1:], image))  # fmt: skip
    found = embed.transform(x)
    assert sorted(given()) == [1] * 59 + [2]
    expected = EmbeddingTransformer(backbone, image_fit="native", store=None).transform(x)
    np.testing.assert_array_equal(found, expected)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match=r"is damaged .*delete it"):
        embed.transform(x)


def test_choices_that_change_embeddings_are_kept_apart(tmp_path):
    x = images()
    for size in (None, 4):
        embed = EmbeddingTransformer("pixels", size=size, store=tmp_path)
        assert embed.fit_transform(x).shape == (12, 3 * (size or 8) ** 2)
        assert embed.fit_transform(x[:, :6]).shape == (12, 3 * 16) if size else True


def test_a_data_frame_has_the_names_of_the_features():
    embed = EmbeddingTransformer("pixels", store=None).set_output(transform="pandas")
    table = embed.fit_transform(images(channels=()))
    assert list(table) == list(embed.get_feature_names_out())
    assert (table.columns[63], table.shape) == ("embeddingtransformer63", (12, 64))


@pytest.mark.parametrize(
    ("x", "parameters", "message"),
    [(images().astype(float), {}, "must be uint8 .*not float64 of shape"),
     (images(channels=(2,)), {}, r"not uint8 of shape \(n, 8, 8, 2\)"),
     ([*images(1), *images(1, size=9)], {"size": 8}, "of several shapes"),
     (images()[:0], {}, "there are no images"),
     (images()[:, :6], {}, "name the size of the images in pixels: these are not square"),
     (["a.png"], {}, "name the size .*files"),
     (["a.png"], {"size": 8}, "a.png cannot be read: No such file"),
     (images(), {"reading": Reading(size=8)}, "a reading says auto"),
     (images(), {"reading": Reading(size=8, channels="rgb"), "size": 9}, "size = 9 is not"),
     (images(size=300), {"backbone": "resnet18", "weights": "none"}, "cannot be padded"),
     (images(), {"image_fit": "stretch"}, "fit 'stretch' is none of pad, resize, native"),
     (images(), {"batch_size": 0}, "batch_size must be at least 1"),
     (images(), {"backbone": "resnet81"}, "resnet81"),
     (images(), {"store": __file__}, "cannot be made: Not a")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(x, parameters, message, tmp_path):
    known = {"backbone": "pixels", "store": tmp_path}
    with pytest.raises((UsageError, DatasetError, StoreError), match=message):
        EmbeddingTransformer(**(known | parameters)).fit_transform(x)


def test_an_image_that_is_none_is_named(files, tmp_path):
    files[3].write_text("no image")
    with pytest.raises(DatasetError, match=r"1 image cannot be used: .*3\.png"):
        EmbeddingTransformer("pixels", size=8, store=tmp_path).fit_transform(files)


def test_nothing_is_kept_where_nothing_is_to_be_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EmbeddingTransformer("pixels", store=None).fit_transform(images())
    assert list(Path.cwd().iterdir()) == []
