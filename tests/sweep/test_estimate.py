"""What a job will cost: counted, recorded, and measured against the real thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.spec import ExtractSpec
from medplus.sweep.estimate import Estimator, outline_of
from medplus.sweep.job import Job

RESNET18_FLOPS = 3627122688
RESNET18_PARAMETERS = 11176512
N = {"train": 12, "val": 6, "test": 7}
RECIPE = {"epochs": 5, "trainable": "all"}


@pytest.fixture(scope="module")
def toy(write_npz):
    """The path of a dataset of 12, 6 and 7 images and two classes."""
    return write_npz("toy", n=tuple(N.values()), size=28)


def job(kind: Any, toy: Path, backbone: str = "resnet18", n_runs: int = 1, **options: Any) -> Job:
    chosen = {name: options.pop(name) for name in ("dtype", "fit", "feature") if name in options}
    choices = {"weights": "none", "dtype": "float32", "fit": "pad", **chosen}
    return Job(
        kind, ExtractSpec(str(toy), None, backbone, **choices), {"seed": 1, **options}, n_runs
    )


def took(job: Job, epochs: float, seconds: float, on_gpu: bool) -> tuple[Job, bool]:
    """Return a job that has ended after so many epochs and seconds."""
    options = {**job.options, "epochs": epochs}
    return replace(job, options=options, n_runs=1, seconds=seconds), on_gpu


def seconds(job: Job, *past: tuple[Job, bool], **more: Any) -> float:
    return Estimator(Path("data"), lambda: past, **more).cost(job)[0]


def factor(job: Job, past: Job, epochs: float = 1.0) -> float:
    """Return how many seconds of a job one second of a past one tells, beyond what is fixed."""
    return (seconds(job, took(past, epochs, 200.0, False))
            - seconds(job, took(past, epochs, 100.0, False))) / 100.0  # fmt: skip


# What a job computes, by hand: a forward pass per image; a backward pass costs two more; a distance
# is a product of two embeddings; a linear head sees its product forwards and twice backwards.
WORK: dict[str, tuple[dict[str, Any], int, int]] = {
    "extract": ({}, 25 * RESNET18_FLOPS, 780 * RESNET18_FLOPS),
    "knn": ({"k": [1, 3]}, 2 * 12 * 13 * 512, 2 * 546 * (78 + 156) * 512),
    "probe": ({"epochs": 5}, 5 * (36 + 6) * 2048, 7 * (3 * 546 + 78) * 2048),
    "finetune": (RECIPE, 5 * 42 * RESNET18_FLOPS, 7 * 1716 * RESNET18_FLOPS),
}


@pytest.mark.parametrize("kind", WORK)
def test_recorded_costs_are_scaled_by_the_work(kind, toy):
    options, work, of_past = WORK[kind]
    past = Job(kind, ExtractSpec("breastmnist", 28, "resnet18"), {}, 1)
    assert factor(job(kind, toy, **options), past, epochs=7) == pytest.approx(work / of_past)


@pytest.mark.parametrize(("field", "passes"), [({"trainable": "head"}, 1), ({"lora": 8}, 2)])
def test_frozen_weights_are_spared_their_gradient(field, passes, toy):
    frozen = job("finetune", toy, **{"epochs": 5, **field})
    whole = job("finetune", toy, **RECIPE)
    assert factor(frozen, whole, epochs=5) == pytest.approx((passes * 12 + 6) / (3 * 12 + 6))


def test_every_head_of_a_probe_and_every_feature_in_one_costs(toy):
    one, six = (job("probe", toy, n_runs=n, epochs=5) for n in (1, 6))
    both = job("probe", toy, epochs=5, feature="cls+avg")
    assert factor(six, one, epochs=5) == pytest.approx(6)
    assert factor(both, one, epochs=5) == pytest.approx(2)


def test_native_images_cost_by_their_area():
    padded, native = (
        Job("extract", ExtractSpec("breastmnist", 28, "resnet18", "none", fit), {}, 1)
        for fit in ("pad", "native")
    )
    assert factor(padded, native) == pytest.approx(64)


def test_the_median_of_the_backbones_own_rates_goes_before_that_of_its_kind(toy):
    asked, other = job("extract", toy), job("extract", toy, "vgg16")
    others = [took(other, 1, long, False) for long in (1e3, 1e9, 1e4, 1e4, 1e5)]
    fast = took(asked, 1, 10.0, False)
    assert seconds(asked, *others) == seconds(asked, others[2])
    assert seconds(asked, *others, fast) == seconds(asked, fast)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_cpu_and_gpu_and_kinds_are_not_mixed(on_gpu, toy):
    asked = job("extract", toy)
    without = seconds(asked, on_gpu=on_gpu)
    beside = took(asked, 1, 1e9, not on_gpu), took(job("knn", toy), 1, 1e9, on_gpu)
    assert seconds(asked, *beside, on_gpu=on_gpu) == without
    assert seconds(asked, *beside, took(asked, 1, 1e9, on_gpu), on_gpu=on_gpu) > without


@pytest.mark.parametrize(("past", "long"), [("pixels", 100.0), ("resnet18", 0.0), ("vgg16", 0.01)])
def test_record_without_work_or_hardly_any_time_tells_nothing(past, long, toy):
    asked = job("extract", toy)
    told = took(job("extract", toy, past), 1, long, False)
    assert seconds(asked, told) == seconds(asked)


def test_without_records_more_cores_a_gpu_and_smaller_networks_are_faster(toy):
    asked = job("extract", toy)
    one, two, four = (seconds(asked, cores=cores) for cores in (1, 2, 4))
    assert one - two == pytest.approx(2 * (two - four))
    assert seconds(asked, on_gpu=True) < four
    order = ["pixels", "alexnet", "efficientnet_b4", "resnet18", "densenet121", "vgg16"]
    costs = [seconds(job("extract", toy, name)) for name in order]
    assert costs == sorted(costs)


def test_past_is_asked_once_and_only_when_needed_and_the_basis_is_told(toy):
    asked = []

    def past():
        asked.append(True)
        return [took(job(kind, toy), 1, 10.0, False) for kind in ("knn", "extract")]

    estimator = Estimator(Path("data"), past)
    assert asked == []
    for _ in range(3):
        estimator.cost(job("extract", toy))
    assert asked == [True]
    assert "recorded costs of extract, knn" in estimator.basis
    assert "on 3 CPU cores, since nothing" in Estimator(Path("data"), list, cores=3).basis
    assert "a GPU" in Estimator(Path("data"), list, on_gpu=True).basis


# --- counts: the file tells, and the catalogue where there is none --------------------------------


def counts(name: str, size: int | None, data_root: Path) -> tuple[int, ...]:
    found = outline_of(name, size, data_root)
    return (*found.n_samples.values(), found.n_classes, found.n_labels)


def test_counts_of_files(toy, tmp_path, write_npz):
    assert counts(str(toy), None, tmp_path)[:3] == (12, 6, 7)
    write_npz("bloodmnist_64", n=(9, 3, 4), channels=3, folder=tmp_path)
    assert counts("bloodmnist", 64, tmp_path) == (9, 3, 4, 8, 1)
    assert sum(counts(str(tmp_path / "no.npz"), None, tmp_path)[:3]) == 0


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("breastmnist", (546, 78, 156, 2, 1)),
        ("chestmnist", (78468, 11219, 22433, 14, 14)),
        ("bloodmnist", (11959, 1712, 3421, 8, 1)),
    ],
)
def test_counts_of_a_flag_whose_file_is_not_there(flag, expected, tmp_path):
    assert counts(flag, 28, tmp_path) == expected


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_counts_of_a_damaged_file(content, tmp_path):
    (tmp_path / "breastmnist.npz").write_bytes(content)
    assert sum(counts("breastmnist", 28, tmp_path)[:3]) == 780


# --- disk -----------------------------------------------------------------------------------------


def size_on_disk(folder: Path, pattern: str = "**/*") -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_disk_of_an_extraction_is_that_of_the_stores_chunks(dtype, toy, write_store):
    rng = np.random.default_rng(0)
    embeddings = [rng.normal(size=(n, 512)).astype(dtype) for n in N.values()]
    labels = [np.zeros(n, dtype=np.uint8) for n in N.values()]
    store = write_store(embeddings, labels, dtype=dtype)
    estimate = Estimator(Path("data"), list).cost(job("extract", toy, dtype=dtype))[1]
    # Names and checksums take a little more.
    assert estimate == pytest.approx(size_on_disk(store.path, "*/*/c/**/*"), rel=0.01)


def test_disk_of_an_extraction_with_many_labels(tmp_path, write_npz, write_store):
    write_npz("chestmnist", n=tuple(N.values()), n_labels=14, folder=tmp_path)
    rng = np.random.default_rng(0)
    store = write_store(
        [rng.normal(size=(n, 512)).astype("float32") for n in N.values()],
        [rng.integers(0, 2, (n, 14), dtype=np.uint8) for n in N.values()],
        task="multi-label, binary-class",
    )
    asked = Job("extract", ExtractSpec("chestmnist", 28, "resnet18", dtype="float32"), {}, 1)
    estimate = Estimator(tmp_path, list).cost(asked)[1]
    # Names and checksums take a little more.
    assert estimate == pytest.approx(size_on_disk(store.path, "*/*/c/**/*"), rel=0.01)


@pytest.fixture(scope="module")
def larger(write_npz, write_store):
    """A dataset of many images, and a store of it."""
    n = (40, 400, 600)
    path = write_npz("larger", n=n, size=28)
    rng = np.random.default_rng(0)
    store = write_store(
        [rng.normal(size=(count, 512)).astype("float32") for count in n],
        [rng.integers(0, 2, count, dtype=np.uint8) for count in n],
        classes=2, task="binary-class",
    )  # fmt: skip
    return path, store


def test_disk_of_probes_is_about_that_of_their_runs(larger, tmp_path):
    from medplus.heads.probe import probe

    path, store = larger
    probe(store, seeds=(1, 2, 3), epochs=1, device="cpu", runs=tmp_path)
    estimate = Estimator(Path("data"), list).cost(job("probe", path, n_runs=3, epochs=1))[1]
    assert estimate == pytest.approx(size_on_disk(tmp_path), rel=0.25)


def test_disk_of_knn_is_about_that_of_its_runs(larger, tmp_path):
    from medplus.heads.knn import knn

    path, store = larger
    knn(store, (1, 3), device="cpu", runs=tmp_path)
    estimate = Estimator(Path("data"), list).cost(job("knn", path, n_runs=2, k=[1, 3]))[1]
    assert estimate == pytest.approx(size_on_disk(tmp_path), rel=0.25)


def test_disk_of_a_finetuning_is_nearly_its_networks(toy):
    estimate = Estimator(Path("data"), list).cost(job("finetune", toy, **RECIPE))[1]
    assert estimate == pytest.approx(4 * RESNET18_PARAMETERS, rel=0.01)
