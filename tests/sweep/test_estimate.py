"""What a job will cost: counted, recorded, and measured against the real thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.spec import ExtractSpec
from medplus.sweep.estimate import PAPER_COSTS, Counts, Estimator, PastJob, count_images, network_of
from medplus.sweep.job import Job

RESNET18_FLOPS = 3627122688
RESNET18_PARAMETERS = 11176512
N = {"train": 12, "val": 6, "test": 7}
RECIPE = {"epochs": 5, "trainable": "all"}


@pytest.mark.parametrize("backbone", PAPER_COSTS)
def test_noted_costs_of_the_paper_are_those_of_the_networks(backbone):
    from medplus.backbones.flops import count_flops
    from medplus.backbones.sources import describe

    info = describe(backbone)
    assert PAPER_COSTS[backbone] == (info.dim, info.n_parameters, count_flops(info))


def test_costs_are_noted_for_all_of_the_paper_and_pixels():
    from medplus.backbones.catalog import PAPER

    assert set(PAPER_COSTS) == {"pixels", *PAPER}


def test_other_networks_are_counted():
    network = network_of("resnet34.a1_in1k")
    assert (network.dim, network.n_parameters) == (512, 21284672)
    assert network.flops == pytest.approx(2 * 3.664e9, rel=0.01)


def test_note_of_sam_is_the_count_by_hand():
    """At 224 px every window is the whole image: 196 tokens, and decomposed relative positions."""
    width, depth, side, head = 768, 12, 14, 64
    tokens = side**2
    positions = 2 * tokens * side * head * (width // head)
    block = tokens * 12 * width**2 + 2 * tokens**2 * width + positions
    neck = tokens * (width * 256 + 256 * 256 * 9)
    by_hand = 2 * (tokens * 3 * 16**2 * width + depth * block + neck)
    assert PAPER_COSTS["samvit_base_patch16"][2] == by_hand


def test_unknown_network_does_not_stop_an_estimate():
    assert network_of("no-such-network").flops > 0


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


def past_job(kind: Any, backbone: str, rate: float, on_gpu: bool = False) -> PastJob:
    """Return a job that took long enough to tell something, at so many operations per second."""
    return PastJob(kind, backbone, 100 * rate, 100.0, on_gpu)


def seconds(job: Job, past: Sequence[PastJob], **more: Any) -> float:
    return Estimator(Path("data"), lambda: past, **more).cost(job)[0]


def overhead(job: Job) -> float:
    """Return what a job takes on a machine that computes in no time."""
    return seconds(job, [past_job(job.kind, job.spec.backbone, 1e300)])


# What a job computes, by hand: a forward pass per image; a backward pass costs two more; a distance
# is a product of two embeddings; a linear head sees its product forwards and twice backwards.
WORK: dict[str, tuple[dict[str, Any], int]] = {
    "extract": ({}, 25 * RESNET18_FLOPS),
    "knn": ({"k": [1, 3]}, 2 * 12 * (6 + 7) * 512),
    "probe": ({"epochs": 5}, 5 * (3 * 12 + 6) * 2 * 512 * 2),
    "finetune": ({"fields": RECIPE}, 5 * (3 * 12 + 6) * RESNET18_FLOPS),
}


@pytest.mark.parametrize("kind", WORK)
@given(rate=st.floats(1e3, 1e15))
def test_recorded_rate_turns_work_into_seconds(kind, rate, toy):
    options, work = WORK[kind]
    asked = job(kind, toy, **options)
    past = [past_job(kind, "resnet18", rate)]
    expected = work / rate + overhead(asked)
    assert seconds(asked, past) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("field", "passes"), [({"trainable": "head"}, 1), ({"lora": 8}, 2)])
def test_frozen_weights_are_spared_their_gradient(field, passes, toy):
    asked = job("finetune", toy, fields={"epochs": 5, **field})
    past = [past_job("finetune", "resnet18", 1e9)]
    work = 5 * (passes * 12 + 6) * RESNET18_FLOPS
    assert seconds(asked, past) - overhead(asked) == pytest.approx(work / 1e9)


def test_every_head_of_a_probe_costs(toy):
    one, six = (job("probe", toy, n_runs=n, epochs=5) for n in (1, 6))
    past = [past_job("probe", "resnet18", 1e3)]
    assert seconds(six, past) - overhead(six) == pytest.approx(
        6 * (seconds(one, past) - overhead(one))
    )


def test_native_images_cost_by_their_area():
    past = [past_job("extract", "resnet18", 1e9)]
    padded, native = (
        Job("extract", ExtractSpec("breastmnist", 28, "resnet18", "none", fit), {}, 0)
        for fit in ("pad", "native")
    )
    ratio = (seconds(padded, past) - overhead(padded)) / (seconds(native, past) - overhead(native))
    assert ratio == pytest.approx(64)


def test_rate_of_the_backbone_goes_before_that_of_its_kind(toy):
    asked = job("extract", toy)
    others = [past_job("extract", "vgg16", 1e9)] * 5
    own = past_job("extract", "resnet18", 4e9)
    work = 25 * RESNET18_FLOPS
    assert seconds(asked, others) - overhead(asked) == pytest.approx(work / 1e9)
    assert seconds(asked, [*others, own]) - overhead(asked) == pytest.approx(work / 4e9)


def test_rate_is_the_median_of_what_was_recorded(toy):
    asked = job("extract", toy)
    past = [past_job("extract", "resnet18", rate) for rate in (1e9, 1e15, 2e9)]
    assert seconds(asked, past) - overhead(asked) == pytest.approx(25 * RESNET18_FLOPS / 2e9)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_cpu_and_gpu_are_not_mixed(on_gpu, toy):
    asked = job("extract", toy)
    without = seconds(asked, [], on_gpu=on_gpu)
    past = [past_job("extract", "resnet18", 123.0, not on_gpu)]
    assert seconds(asked, past, on_gpu=on_gpu) == without
    past.append(past_job("extract", "resnet18", 123.0, on_gpu))
    assert seconds(asked, past, on_gpu=on_gpu) > without


def test_other_kinds_tell_nothing(toy):
    asked = job("extract", toy)
    past = [past_job("finetune", "resnet18", 123.0)]
    assert seconds(asked, past) == seconds(asked, [])


@pytest.mark.parametrize(("work", "took"), [(0.0, 100.0), (1e9, 0.0), (0.0, 0.0), (1e9, 0.01)])
def test_record_without_work_or_hardly_any_time_tells_nothing(work, took, toy):
    asked = job("extract", toy)
    past = [PastJob("extract", "resnet18", work, took, False)]
    assert seconds(asked, past) == seconds(asked, [])


def test_without_records_more_cores_and_a_gpu_are_faster(toy):
    asked = job("extract", toy)
    one, four = (seconds(asked, [], cores=cores) for cores in (1, 4))
    assert one - overhead(asked) == pytest.approx(4 * (four - overhead(asked)))
    assert seconds(asked, [], on_gpu=True) < four


def test_larger_jobs_cost_more(toy):
    order = ["pixels", "alexnet", "efficientnet_b4", "resnet18", "densenet121", "vgg16"]
    costs = [seconds(job("extract", toy, name), []) for name in order]
    assert costs == sorted(costs)


def test_two_features_in_one_take_twice_the_width():
    both, one = (network_of("resnet18", feature) for feature in ("cls+avg", "avg"))
    assert (both.dim, one.dim) == (1024, 512)
    assert (both.flops, both.n_parameters) == (one.flops, one.n_parameters)


def test_past_is_asked_once_and_only_when_needed(toy):
    asked = []

    def past():
        asked.append(True)
        return [past_job("extract", "resnet18", 1e9)]

    estimator = Estimator(Path("data"), past)
    assert asked == []
    for _ in range(3):
        estimator.cost(job("extract", toy))
    assert asked == [True]


def test_basis_says_what_was_recorded(toy):
    past = [past_job(kind, "resnet18", 1e9) for kind in ("knn", "extract")]  # type: ignore[arg-type]
    assert "recorded costs of extract, knn" in Estimator(Path("data"), lambda: past).basis
    assert "nothing like it" in Estimator(Path("data"), list, cores=3).basis
    assert "3 CPU cores" in Estimator(Path("data"), list, cores=3).basis
    assert "a GPU" in Estimator(Path("data"), list, on_gpu=True).basis


class TestCounts:
    """How many images there are: the file tells, and the catalogue where there is none."""

    def test_of_a_file_by_path(self, toy, tmp_path):
        counts = count_images(str(toy), None, tmp_path)
        assert (counts.train, counts.val, counts.test, counts.total) == (12, 6, 7, 25)

    def test_of_a_flag_whose_file_is_there(self, tmp_path, write_npz):
        write_npz("bloodmnist_64", n=(9, 3, 4), channels=3, folder=tmp_path)
        counts = count_images("bloodmnist", 64, tmp_path)
        assert counts == Counts(9, 3, 4, n_classes=8, n_labels=1)

    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("breastmnist", Counts(546, 78, 156, 2, 1)),
            ("chestmnist", Counts(78468, 11219, 22433, 14, 14)),
            ("bloodmnist", Counts(11959, 1712, 3421, 8, 1)),
        ],
    )
    def test_of_a_flag_whose_file_is_not(self, flag, expected, tmp_path):
        assert count_images(flag, 28, tmp_path) == expected

    @pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
    def test_of_a_damaged_file(self, content, tmp_path):
        (tmp_path / "breastmnist.npz").write_bytes(content)
        assert count_images("breastmnist", 28, tmp_path).total == 780

    def test_of_a_missing_file_by_path(self, tmp_path):
        assert count_images(str(tmp_path / "no.npz"), None, tmp_path).total == 0


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
    asked = Job("extract", ExtractSpec("chestmnist", 28, "resnet18", dtype="float32"), {}, 0)
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
    estimate = Estimator(Path("data"), list).cost(job("finetune", toy, fields=RECIPE))[1]
    assert estimate == pytest.approx(4 * RESNET18_PARAMETERS, rel=0.01)
