"""`medplus backbones`: what is known of a network before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
