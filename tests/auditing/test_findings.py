"""Outliers, shifts and shortcuts: there where they were planted, and not elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medplus.auditing.facts import facts_of
from medplus.auditing.outliers import find_outliers
from medplus.auditing.pool import Pool
from medplus.auditing.shift import find_shifts, two_sample
from medplus.auditing.shortcuts import find_shortcuts
from medplus.auditing.twins import nearest
from medplus.datasets.sources import load_dataset
from medplus.vocabulary import SPLITS
from tests.auditing.planted import scenes

SIZES = (120, 40, 40)


def pool_of_images(images):
    parts = [images.splits[split] for split in SPLITS]
    return Pool(
        images.name, images.task, images.classes,
        np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in parts]),
        np.concatenate([part.positions for part in parts]),
        [name for part in parts for name in part.names],
        np.concatenate([part.labels for part in parts]), images,
    )  # fmt: skip


@pytest.fixture
def make_pool(write_npz):
    def make(pictures, labels):
        cuts = np.cumsum(SIZES)[:2]
        columns = np.asarray(labels, np.uint8)[:, None]
        arrays = {}
        for split, some, own in zip(
            SPLITS, np.split(pictures, cuts), np.split(columns, cuts), strict=True
        ):
            arrays |= {f"{split}_images": some, f"{split}_labels": own}
        return pool_of_images(load_dataset(str(write_npz(n=SIZES, size=28, **arrays))))

    return make


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, 2, sum(SIZES))


def test_isolated_and_blank_images_stand_out_and_no_others(make_pool, labels):
    pictures = scenes(sum(SIZES))
    pictures[17] = 128
    pool = make_pool(pictures, labels)
    features = np.random.default_rng(0).normal(size=(len(pool), 16)).astype(np.float32)
    features[30] *= 10
    _, distances = nearest(features, 20, "l2")
    found = find_outliers(pool, [distances], facts_of(pool))
    assert found.reasons == {17: "blank", 30: "isolated"}
    assert found.ranking[0] == 30


def test_what_is_common_is_no_oddity(make_pool, labels):
    pictures = scenes(sum(SIZES))
    pictures[::10] = 255
    pool = make_pool(pictures, labels)
    features = np.random.default_rng(0).normal(size=(len(pool), 16)).astype(np.float32)
    assert not find_outliers(pool, [nearest(features, 20, "l2")[1]], facts_of(pool)).reasons


@pytest.mark.parametrize(("kind", "usable"), [("bright", True), ("border", True), ("none", False)])
def test_a_fact_that_tells_the_label_is_a_shortcut(make_pool, labels, kind, usable):
    pictures = scenes(sum(SIZES)) // 2
    if kind == "bright":
        pictures = pictures + 20 * labels[:, None, None].astype(np.uint8)
    if kind == "border":
        pictures[labels == 1, 0] = 200
    fold = np.arange(len(labels)) % 5
    pool = make_pool(pictures, labels)
    found = {one.name: one for one in find_shortcuts(pool, facts_of(pool), fold)}
    name = "mean brightness" if kind == "bright" else "border colour"
    assert found[name].usable is usable
    if usable:
        assert found[name].auc > 0.9


def test_files_of_a_folder_tell_their_size(tmp_path):
    rng = np.random.default_rng(0)
    for number, split in enumerate(SPLITS):
        for label, side in (("a", 40), ("b", 60)):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for k in range(12):
                noise = rng.integers(0, 256, (side, side), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{number}{k}.png")
    pool = pool_of_images(load_dataset(str(tmp_path / "images"), 28))
    found = {one.name: one for one in find_shortcuts(pool, facts_of(pool), np.arange(72) % 3)}
    assert found["image size"].auc == found["file size"].auc == 1


def test_splits_of_one_place_are_alike_and_others_are_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 10)).astype(np.float32)
    same, p_same, n = two_sample(x[:400], x[400:800])
    other, p_other, _ = two_sample(x[:400], x[400:800] + 0.5)
    assert (0.4 < same < 0.6, p_same > 0.01, n) == (True, True, 400)
    assert other > 0.8 and p_other < 1e-6


def test_every_pair_of_splits_is_tested_with_twins_counted_once():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    x[200:] += 2
    pool = Pool("toy", "binary-class", ("a", "b"), np.repeat(np.arange(3, dtype=np.int8), 100),
                np.tile(np.arange(100), 3), [""] * 300, np.zeros((300, 1), int))  # fmt: skip
    found = find_shifts(pool, x, np.arange(300))
    told = {(one.first, one.second): one.p_value < 0.01 for one in found}
    assert told == {("train", "val"): False, ("train", "test"): True, ("val", "test"): True}
    copies = replace(pool, names=[""] * 300)
    assert {one.n for one in find_shifts(copies, x, np.arange(300) // 2)} == {50}
