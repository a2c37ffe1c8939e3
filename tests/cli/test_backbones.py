"""`medplus backbones`: what is known of a network before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm

from medplus.backbones.build import Backbone, load_backbone
from medplus.backbones.sources import BackboneRef
from medplus.backbones.weights_folder import write_folder_weights

PAPER_DIMS = {
    "vgg16": 4096, "alexnet": 4096, "resnet18": 512, "densenet121": 1024, "efficientnet_b4": 1792,
    "vit_base_patch16_224": 768, "vit_base_patch16_clip_224": 768,
    "eva02_base_patch16_clip_224": 768, "vit_base_patch16_224.dino": 768,
    "samvit_base_patch16": 256,
}  # fmt: skip


def test_lists_the_papers_ten_and_pixels(cli: Callable) -> None:
    listed = cli("backbones", "--json").document["backbones"]

    dims = {row["name"]: row["dim"] for row in listed}
    assert dims.pop("pixels") == 28 * 28
    demo = {name: dims.pop(name) for name in list(dims) if name.startswith("efficientnet_lite")}
    assert set(demo.values()) == {1280}
    assert dims == PAPER_DIMS


def test_any_timm_name_is_described(cli: Callable) -> None:
    [row] = cli("backbones", "lcnet_035", "--json").document["backbones"]

    assert row["tag"].startswith("lcnet_035")
    assert row["n_parameters"] > 0
    assert "lcnet_035" in cli("backbones", "lcnet_035").out


def test_unknown_name(cli: Callable) -> None:
    ran = cli("backbones", "resnet18", "resnet19")

    assert ran.code == 2
    assert ran.err.startswith("Error: unknown backbone 'resnet19'; did you mean 'resnet18'?")
    assert ran.out == ""


@pytest.mark.parametrize("width", [80, 120])
def test_names_and_numbers_stay_whole_in_a_terminal(
    width: int, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("backbones", "eva02_base_patch16_clip_224", "vgg16").out

    assert max(len(line) for line in shown.splitlines()) <= width
    for whole in ("eva02_base_patch16_clip_224 ", "134.3 M", "4096"):
        assert whole in shown


# --- wildcards --------------------------------------------------------------------------------


def test_wildcards_list_what_timm_has_weights_for(cli: Callable) -> None:
    listed = cli("backbones", "test_vit*", "--json").document["backbones"]

    expected = timm.list_models("test_vit*", pretrained=True)
    assert [row["tag"] for row in listed] == expected
    assert all(row["dim"] == 64 for row in listed if row["name"] == "test_vit")
    assert all(row["n_parameters"] > 0 for row in listed)
    assert expected[0] in cli("backbones", "test_vit*").out


def test_of_many_that_match_only_names_are_told(
    cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medplus.backbones.sources.describe", lambda _: pytest.fail("described"))
    ran = cli("backbones", "*dino*", "--json")

    expected = timm.list_models("*dino*", pretrained=True)
    assert ran.document == {"backbones": [{"name": name} for name in expected]}
    assert len(expected) > 32
    assert f"{len(expected)} backbones" in ran.err
    assert cli("backbones", "*dino*", "-q").out.split() == expected


def test_wildcards_find_what_is_not_timms_and_names_go_beside_them(cli: Callable) -> None:
    listed = cli("backbones", "alex*,pix*", "resnet18", "--json").document["backbones"]

    assert [row["name"] for row in listed] == ["alexnet", "pixels", "resnet18"]


def test_wildcards_that_nothing_matches(cli: Callable) -> None:
    ran = cli("backbones", "resnetty18*")

    assert ran.code == 2
    assert "no backbone with pretrained weights matches 'resnetty18*'; did you mean" in ran.err


# --- fetching ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--fetch",), "--fetch needs the names of backbones, or all"),
        (("resnet18", "--to", "here"), "--to goes with --fetch"),
        (("--fetch", "vit_*"), "--fetch takes names, not 'vit_*'"),
        (("--fetch", "pixels"), "there is nothing to fetch"),
    ],
)
def test_fetching_what_cannot_be_is_refused(
    arguments: tuple[str, ...], reason: str, cli: Callable
) -> None:
    ran = cli("backbones", *arguments)

    assert ran.code == 2
    assert reason in ran.err


def test_all_that_is_fetched_is_the_papers_ten(
    cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(ref: BackboneRef, size: int) -> Backbone:
        asked.append(ref.name)
        return load_backbone("pixels")

    monkeypatch.setattr("medplus.backbones.fetch.load", load)
    ran = cli("backbones", "--fetch", "all", "--json")

    assert ran.code == 0
    assert asked == list(PAPER_DIMS)
    assert len(ran.document["fetched"]) == 10


def test_folder_of_weights_serves_extraction(
    cli: Callable, write_npz: Callable, tmp_path: Path
) -> None:
    state = timm.create_model("test_resnet").state_dict()
    write_folder_weights(tmp_path / "carry", "test_resnet.r160_in1k", state)
    data = write_npz("toy", size=32, n=(6, 4, 4))
    asked = ("--dataset", data, "--backbone", "test_resnet", "--weights", "carry")
    made = cli("extract", *asked, "--fit", "native", "--json").document["stores"]
    found = cli("knn", *asked, "--k", "1", "--json").document["runs"]
    refused = cli("extract", "--dataset", data, "--backbone", "resnet18", "--weights", "carry")

    assert [store["status"] for store in made] == ["extracted"]
    assert found[0]["weights"] == "pretrained"
    assert refused.code == 1
    assert "the folder carry has no weights of resnet18.a1_in1k" in refused.err
