"""`medplus compare`: from a folder of images to a verdict, and on where it was left."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from medplus.comparison import compare, default_backbones, default_sizes
from medplus.datasets.sources import resolve
from medplus.errors import UsageError
from medplus.reporting import build

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def folder(tmp_path):
    """Ninety images of two classes that raw pixels tell apart."""
    rng = np.random.default_rng(0)
    for i in range(90):
        shade = rng.integers(0, 128, (12, 12)) + 100 * (i % 2)
        path = tmp_path / f"mine/{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade.astype(np.uint8)).save(path)
    return tmp_path / "mine"


@pytest.fixture
def no_figures(monkeypatch):
    """Leave the figures' files out: one test has them."""
    monkeypatch.setattr(build, "write_figures", lambda figures, folder: [])


def test_a_verdict_in_one_call_and_nothing_twice(folder, tmp_path):
    told: list[str] = []
    options = {"backbones": ["pixels"], "sizes": [8], "out": tmp_path / "out", "device": "cpu"}
    first = compare(str(folder), **options, tell=told.append)
    [verdict] = first.verdicts
    assert verdict.dataset == "mine"
    assert verdict.best.test_acc > 0.9
    assert verdict.baseline_acc == pytest.approx(0.5)
    assert {record.protocol for record in first.records} == {"knn", "probe"}
    assert first.report.files[0].is_file()
    assert "1 store of embeddings in about" in told[0]
    again = compare(str(folder), **options)
    assert [one.status for one in again.extractions] == ["skipped"]
    assert [r.created for r in again.records] == [r.created for r in first.records]


def test_what_the_budget_does_not_reach_is_named(folder, tmp_path, no_figures):
    done = compare(
        str(folder), ["pixels", "test_resnet"], [8], weights="none", budget_s=1e-6,
        out=tmp_path / "out", device="cpu",
    )  # fmt: skip
    assert done.left == (f"knn and probe of {folder} at 8 px with test_resnet",)
    assert done.verdicts[0].best.backbone == "pixels"


def test_embeddings_are_computed_at_the_precision_asked_for(folder, tmp_path, no_figures):
    done = compare(
        str(folder), "test_resnet", 8, weights="none", precision="bf16", protocols="knn",
        out=tmp_path / "out", device="cpu",
    )  # fmt: skip
    assert [one.store.info.spec.precision for one in done.extractions] == ["bf16"]
    with pytest.raises(UsageError, match="precision 'half' is none of"):
        compare(str(folder), ["pixels"], [8], precision="half", out=tmp_path / "out")


def test_the_command_line_says_the_verdict_and_has_it_as_json(folder, tmp_path, cli, no_figures):
    words = ("compare", folder, "--backbone", "pixels", "--size", 8, "--out", tmp_path / "out")
    ran = cli(*words)
    assert ran.code == 0, ran.err
    assert "Verdict on mine:" in ran.out and "binary-class" in ran.err
    document = cli(*words, "--json").document
    best = document["verdict"][0]["best"]
    assert best["backbone"] == "pixels"
    assert f"package take: {best['runs'][0]}\n" in ran.out
    assert cli("panel", best["runs"][0]).code == 0
    assert cli(*words, "--budget", "soon").code == 2


@pytest.mark.extensive
def test_an_earlier_comparison_in_the_same_folder_takes_no_part(folder, tmp_path):
    options = {"backbones": ["pixels"], "sizes": [8], "out": tmp_path / "out", "device": "cpu"}
    compare(str(folder), **options)
    other = folder.with_name("other")
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns(".medplus-cache"))
    assert [verdict.dataset for verdict in compare(str(other), **options).verdicts] == ["other"]


def test_results_do_not_go_among_the_images(folder):
    with pytest.raises(UsageError, match="lies in the dataset's folder"):
        compare(str(folder), ["pixels"], [8], out=folder / "out")
    assert not (folder / "out").exists()
    with pytest.raises(UsageError, match="at least one dataset"):
        compare([], ["pixels"], [8], out=folder.parent / "out")


def test_networks_are_taken_whose_weights_are_at_hand_wherever_they_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert "alexnet" in default_backbones()


@pytest.mark.parametrize(("side", "sizes"), [(20, [28]), (40, [28]), (100, [64]), (300, [64, 224])])
def test_folders_are_compared_at_sizes_that_their_images_have(tmp_path, side, sizes):
    (tmp_path / "d/a").mkdir(parents=True)
    Image.new("L", (side, side + 9)).save(tmp_path / "d/a/0.png")
    assert default_sizes(resolve(str(tmp_path / "d")), tmp_path) == sizes


def test_trained_and_random_weights_are_compared_but_random_ones_are_no_answer(
    folder, tmp_path, no_figures
):
    made = compare(
        str(folder), ["efficientnet_lite0"], [8], weights=["pretrained", "none"],
        protocols=["knn"], out=tmp_path / "out", device="cpu",
    )  # fmt: skip
    assert {record.weights for record in made.records} == {"pretrained", "none"}
    assert made.verdicts[0].best.weights == "pretrained"


@pytest.mark.extensive
def test_random_embeddings_do_not_stand_for_trained_ones_in_the_plan(folder, tmp_path):
    told: list[str] = []
    options = {"protocols": ["knn"], "out": tmp_path / "out", "device": "cpu", "tell": told.append}
    for weights in ("none", None, None):
        compare(str(folder), ["efficientnet_lite0"], [8], weights=weights, **options)
    assert ["in about 0.0 s" in plan for plan in told] == [False, False, True]
