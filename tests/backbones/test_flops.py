"""Floating-point operations, against counts by hand from the architectures' definitions."""

from __future__ import annotations

import pytest

from medplus.backbones.catalog import PAPER
from medplus.backbones.flops import PAPER_COSTS, cost_of, network_of
from medplus.backbones.sources import resolve


def vit_base(side: int) -> int:
    """Return 2 × the multiply-adds of ViT-B/16 (Dosovitskiy et al., 2021), without a classifier."""
    width, depth, patches = 768, 12, (side // 16) ** 2
    tokens = patches + 1
    block = tokens * 12 * width**2 + 2 * tokens**2 * width  # qkv, proj, mlp; scores, weighted sum
    return 2 * (patches * 3 * 16**2 * width + depth * block)


def resnet18() -> int:
    """Return 2 × the multiply-adds of ResNet-18's convolutions (He et al., 2016, table 1)."""
    total = 64 * 3 * 49 * 112**2 + 4 * 64 * 64 * 9 * 56**2
    for stage, width in enumerate((128, 256, 512)):
        area, before = (28 >> stage) ** 2, width // 2
        total += area * (width * before * 9 + 3 * width * width * 9 + width * before)
    return 2 * total


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", resnet18()),
        ("vit_base_patch16_224.dino", vit_base(224)),
        ("pixels", 0),
    ],
)
def test_count_by_hand(backbone, expected):
    assert cost_of(resolve(backbone)).flops == expected


def test_network_of_another_input_size_is_counted_as_it_is_run():
    """At 224 px, which images are padded to, and for which its positions are resampled."""
    assert cost_of(resolve("vit_base_patch16_384")).flops == vit_base(224)


def test_sam_is_counted_at_the_size_that_it_is_run_at():
    """At 224 px every window is the whole image: 196 tokens, and decomposed relative positions."""
    width, side = 768, 14
    tokens = side**2
    block = tokens * 12 * width**2 + 2 * tokens**2 * width + 2 * tokens * side * width
    neck = tokens * (width * 256 + 256 * 256 * 9)
    by_hand = 2 * (tokens * 3 * 16**2 * width + 12 * block + neck)
    assert cost_of(resolve("samvit_base_patch16")).flops == by_hand


@pytest.mark.parametrize("name", ["test_vit2", "test_vit3", "test_vit4"])
def test_networks_that_hand_parameters_on_as_inputs_are_counted(name):
    assert cost_of(resolve(name)).flops > 0


# --- what is noted, and what is looked up ---------------------------------------------------------


@pytest.mark.parametrize("backbone", PAPER_COSTS)
def test_noted_costs_of_the_paper_are_those_of_the_networks(backbone):
    assert PAPER_COSTS[backbone] == cost_of(resolve(backbone))


def test_costs_are_noted_for_all_of_the_paper_and_pixels():
    assert set(PAPER_COSTS) == {"pixels", *PAPER}


def test_other_networks_are_counted():
    network = network_of("resnet34.a1_in1k")
    assert (network.dim, network.n_parameters) == (512, 21284672)
    assert network.flops == pytest.approx(2 * 3.664e9, rel=0.01)


def test_unknown_network_does_not_stop_an_estimate():
    assert network_of("no-such-network").flops > 0
