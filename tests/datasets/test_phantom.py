"""Phantoms: their layout, their determinism, and how hard they are."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import medmnist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from medplus.datasets import catalog
from medplus.datasets.phantom import contact_sheet, split_counts, write_phantom, write_phantoms
from medplus.datasets.phantom.labels import (
    CHEST,
    CHEST_SICK,
    class_shares,
    draw_labels,
    least_per_split,
)
from medplus.datasets.phantom.painter import render, scenes
from medplus.errors import UsageError
from medplus.vocabulary import MULTI_LABEL, SIZES, SPLITS

SINGLE_LABEL = [flag for flag in catalog.FLAGS if catalog.info(flag).task != MULTI_LABEL]


# --- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", catalog.FLAGS)
def test_file_has_medmnist_layout_and_every_class(flag, tmp_path):
    info = catalog.info(flag)
    samples = 3 * least_per_split(flag) + 3
    path = write_phantom(flag, 28, tmp_path, samples=samples)
    assert path == tmp_path / info.filename(28)
    official = medmnist.INFO[flag]
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    parts = {f"{split}_{part}" for split in SPLITS for part in ("images", "labels")}
    assert set(arrays) == parts | {"phantom"}
    colour = (3,) if official["n_channels"] == 3 else ()
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == (len(labels), 28, 28, *colour)
        # An image that no painter touched would be flat.
        assert (images.reshape(len(images), -1).std(axis=1) > 1.0).all()
        if info.task == MULTI_LABEL:
            assert labels.shape[1] == len(official["label"])
            assert set(np.unique(labels)) == {0, 1}
            assert (labels.min(axis=0) == 0).all()
            assert (labels.max(axis=0) == 1).all()
        else:
            assert labels.shape[1] == 1
            assert np.unique(labels).tolist() == list(range(len(official["label"])))
    assert sum(len(arrays[f"{split}_labels"]) for split in SPLITS) == samples


def test_medmnist_itself_reads_a_phantom(tmp_path):
    # The official counts, which are the default here: medmnist's len() insists on them.
    write_phantoms("breastmnist", [28, 64], tmp_path)
    for size in (28, 64):
        counted = 0
        for split in SPLITS:
            official = medmnist.BreastMNIST(split=split, root=tmp_path, size=size, download=False)
            image, label = official[0]
            assert image.size == (size, size)
            assert label.shape == (1,)
            counted += len(official)
        assert counted == 780


def test_file_says_that_it_is_a_phantom(tmp_path):
    path = write_phantom("bloodmnist", 28, tmp_path, samples=30, seed=5, difficulty=0.25)
    with np.load(path, allow_pickle=False) as file:
        assert file["phantom"].shape == ()
        stated = json.loads(str(file["phantom"]))
    assert stated == {
        "generator": "medplus phantom",
        "version": 2,
        "seed": 5,
        "difficulty": 0.25,
        "samples": 30,
    }


# --- determinism ------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", catalog.FLAGS)
def test_same_seed_same_pixels_other_seed_other_pixels(flag):
    first, again, other = (
        render(scenes(flag, "test", 3, seed=seed, difficulty=0.5), [28])[28] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    # Every image differs, not just one of them.
    assert (first != other).reshape(3, -1).mean(axis=1).min() > 0.2


@settings(max_examples=25, deadline=None)
@given(
    flag=st.sampled_from(catalog.FLAGS),
    split=st.sampled_from(SPLITS),
    counts=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    seed=st.integers(0, 2**40),
)
def test_larger_phantom_begins_with_the_smaller(flag, split, counts, seed):
    few, many = sorted(counts)
    np.testing.assert_array_equal(
        draw_labels(flag, split, few, seed), draw_labels(flag, split, many, seed)[:few]
    )


def test_another_process_renders_the_same_pixels():
    described = "scenes('octmnist', 'test', 2, seed=3, difficulty=0.5)"
    script = (
        "import sys; from medplus.datasets.phantom.painter import render, scenes;"
        f"sys.stdout.buffer.write(render({described}, [28])[28].tobytes())"
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env)
    here = render(scenes("octmnist", "test", 2, seed=3, difficulty=0.5), [28])[28]
    assert done.stdout == here.tobytes()


# --- the same scenes at every size --------------------------------------------------------------


def _to_28(images):
    """Average by area in float64, the slow way: an oracle that shares no code with the canvas."""
    size = images.shape[1]
    fine = np.repeat(np.repeat(images.astype(np.float64), 7, axis=1), 7, axis=2)
    block = size * 7 // 28
    return fine.reshape(len(images), 28, block, 28, block, -1).mean(axis=(2, 4))


@pytest.mark.parametrize("flag", catalog.FLAGS)
def test_sizes_show_the_same_scenes(flag):
    described = scenes(flag, "train", 4, seed=0, difficulty=0.5)
    by_size = render(described, [28, 64, 224])
    small = by_size[28].reshape(4, 28, 28, -1).astype(np.float64)
    for size, least in ((64, 0.99), (224, 0.96)):
        for index, averaged in enumerate(_to_28(by_size[size])):
            same, other = (
                np.corrcoef(averaged.ravel(), small[shown].ravel())[0, 1]
                for shown in (index, (index + 1) % 4)
            )
            assert same > least
            assert same > other + 0.01


def test_rendering_sizes_together_equals_rendering_each_alone():
    described = scenes("retinamnist", "val", 2, seed=0, difficulty=0.5)
    together = render(described, SIZES)
    for size in SIZES:
        np.testing.assert_array_equal(together[size], render(described, [size])[size])


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", SINGLE_LABEL)
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_as_imbalanced_as_the_original(flag, split):
    labels = draw_labels(flag, split, 1000, seed=0).ravel()
    shares = np.bincount(labels, minlength=len(class_shares(flag, split))) / 1000
    expected = np.array(class_shares(flag, split))
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.012)


def test_chest_findings_are_as_rare_and_as_correlated_as_the_original():
    labels = draw_labels("chestmnist", "train", 6000, seed=0)
    np.testing.assert_allclose(labels.mean(axis=0), CHEST, atol=0.02, rtol=0.15)
    assert abs(labels.any(axis=1).mean() - CHEST_SICK) < 0.02
    correlation = np.corrcoef(labels.T)
    effusion, atelectasis, mass, nodule, infiltration, consolidation = 2, 0, 4, 5, 3, 8
    assert correlation[effusion, atelectasis] > 0.1
    assert correlation[mass, nodule] > 0.1
    assert correlation[infiltration, consolidation] > 0.1


@pytest.mark.parametrize("flag", catalog.FLAGS)
@pytest.mark.parametrize("extra", [0, 1, 7, 500])
def test_counts_add_up_and_no_split_is_starved(flag, extra):
    least = least_per_split(flag)
    counts = split_counts(flag, 3 * least + extra)
    assert sum(counts.values()) == 3 * least + extra
    assert min(counts.values()) >= least
    assert split_counts("breastmnist", None) == {"train": 546, "val": 78, "test": 156}


# --- difficulty -------------------------------------------------------------------------------


@cache
def _knn_score(flag, difficulty):
    """Score k=11 on raw 28 px pixels: balanced accuracy, or mean AUC if multi-label."""
    images, labels = [], []
    for split, count in (("train", 240), ("test", 120)):
        described = scenes(flag, split, count, seed=0, difficulty=difficulty)
        images.append(render(described, [28])[28].reshape(count, -1) / 255.0)
        labels.append(np.array([scene.labels for scene in described]))
    nearest = KNeighborsClassifier(11)
    if labels[0].shape[1] == 1:
        nearest.fit(images[0], labels[0].ravel())
        return balanced_accuracy_score(labels[1].ravel(), nearest.predict(images[1]))
    nearest.fit(images[0], labels[0])
    scores = np.stack([p[:, 1] for p in nearest.predict_proba(images[1])], axis=1)
    return roc_auc_score(labels[1], scores, average="macro")


def _chance(flag):
    info = catalog.info(flag)
    return 0.5 if info.task == MULTI_LABEL else 1 / len(info.classes)


@pytest.mark.parametrize("flag", catalog.FLAGS)
def test_knn_on_pixels_is_above_chance_and_below_perfect(flag):
    score, chance = _knn_score(flag, 0.5), _chance(flag)
    assert chance + 0.05 < score < 0.85


@pytest.mark.parametrize("flag", ["bloodmnist", "breastmnist", "chestmnist"])
def test_difficulty_makes_it_harder(flag):
    easy, default, hard = (_knn_score(flag, difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy > default + 0.03
    assert default > hard + 0.03


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_real_or_damaged_file_is_never_overwritten(content, tmp_path):
    real = tmp_path / "breastmnist.npz"
    if content is None:
        np.savez(real, train_images=np.zeros((1, 28, 28), np.uint8))
    else:
        real.write_bytes(content)
    before = real.read_bytes()
    with pytest.raises(UsageError, match=r"breastmnist\.npz exists and is not a phantom"):
        write_phantom("breastmnist", 28, tmp_path, samples=10)
    assert real.read_bytes() == before
    # Not even when it is the second of two sizes: nothing is written before all are checked.
    with pytest.raises(UsageError):
        write_phantoms("breastmnist", [64, 28], tmp_path, samples=10)
    assert [path.name for path in tmp_path.iterdir()] == ["breastmnist.npz"]


def test_phantom_is_overwritten_whole_or_not_at_all(tmp_path, monkeypatch):
    old = write_phantom("breastmnist", 28, tmp_path, samples=10, seed=1).read_bytes()
    path = write_phantom("breastmnist", 28, tmp_path, samples=10, seed=2)
    new = path.read_bytes()
    assert new != old

    def disk_full(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_phantom("breastmnist", 28, tmp_path, samples=10, seed=3)
    assert path.read_bytes() == new
    assert list(tmp_path.iterdir()) == [path]


# --- preview ----------------------------------------------------------------------------------


def test_contact_sheet_has_a_row_per_class_and_shows_the_phantom():
    sheet = contact_sheet(["breastmnist", "octmnist"], size=28, per_class=3, tile=28)
    rows = 2 + 4
    assert sheet.height >= rows * 28
    first = next(
        scene
        for scene in scenes("breastmnist", "train", 20, seed=0, difficulty=0.5)
        if scene.labels == (0,)
    )
    expected = render([first], [28])[28][0]
    pixels = np.asarray(sheet)[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (28, 28))
    assert (windows[:80, 150:250] == expected).all(axis=(2, 3)).sum() == 1
