"""Building frozen networks."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from medplus.backbones.build import load_backbone
from medplus.errors import BackboneError, UsageError

TINY = ["test_resnet", "test_vit", "test_efficientnet"]
"""Networks of timm's own tests: real architectures, less than a megabyte."""


# --- random weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TINY, "resnet18"])
def test_random_weights_are_the_same_twice(name):
    first, second = load_backbone(name, "none"), load_backbone(name, "none")
    state = second.module.state_dict()
    for key, value in first.module.state_dict().items():
        assert torch.equal(value, state[key])
    assert first.weights_sha256 == second.weights_sha256
    assert first.weights == "none"


def test_random_weights_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = load_backbone("test_vit", "none").weights_sha256
    torch.manual_seed(2)
    assert load_backbone("test_vit", "none").weights_sha256 == first


# --- what is built ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_network_is_frozen_and_in_eval_mode(name):
    module = load_backbone(name, "none").module
    assert not any(layer.training for layer in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module(torch.rand(1, 3, 224, 224)).requires_grad


@pytest.mark.parametrize("name", TINY)
def test_network_to_be_trained_has_the_same_weights_and_learns_in_all_of_them(name):
    frozen, trainable = load_backbone(name, "none"), load_backbone(name, "none", frozen=False)
    assert trainable.weights_sha256 == frozen.weights_sha256
    assert all(parameter.requires_grad for parameter in trainable.module.parameters())
    assert not trainable.module.training
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(trainable.module(x), frozen.module(x))
    trainable.module(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trainable.module.parameters())


@pytest.mark.parametrize("name", TINY)
def test_embedding_is_timms_pre_logits(name):
    module = load_backbone(name, "none").module
    sized = {"img_size": 224} if name == "test_vit" else {}
    network = timm.create_model(name, num_classes=7, **sized).eval()
    network.load_state_dict(module.network.state_dict(), strict=False)
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        assert torch.equal(module(x), expected)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_spec_has_the_networks_normalisation_and_the_papers_canvas(name, fit):
    config = timm.models.get_pretrained_cfg(name)
    spec = load_backbone(name, "none", fit=fit).preprocess
    assert (spec.mean, spec.std) == (tuple(config.mean), tuple(config.std))
    assert (spec.fit, spec.canvas, spec.rgb) == (fit, 224, True)


def test_images_are_padded_unless_something_else_is_asked_for():
    assert load_backbone("resnet18", "none").preprocess.fit == "pad"


def test_network_of_another_native_size_is_built_for_the_canvas():
    module = load_backbone("vit_tiny_patch16_384", "none").module
    assert module(torch.rand(1, 3, 224, 224)).shape == (1, 192)


def test_native_vit_is_built_for_the_images():
    module = load_backbone("vit_tiny_patch16_224", "none", size=64, fit="native").module
    assert module.network.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    assert module(torch.rand(1, 3, 64, 64)).shape == (1, 192)


@pytest.mark.parametrize("size", [8, 28, 40, 225])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit", "samvit_base_patch16"])
def test_native_images_that_patches_do_not_tile_are_refused(name, size, monkeypatch):
    # timm would build it and silently cut off the right and lower border of every image.
    if name.startswith("samvit"):
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **k, depth=1))
    with pytest.raises(BackboneError, match=f"patches of 16 px.*do not tile {size} px.*--fit pad"):
        load_backbone(name, "none", size=size, fit="native")


def test_unknown_name_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown backbone"):
        load_backbone("resnet81", "none")


def test_network_that_timm_cannot_build_is_told(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(BackboneError, match=r"timm cannot build resnet18\.a1_in1k: no such luck$"):
        load_backbone("resnet18", "none")


# --- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 56, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_block_means_down_to_28(size, channels):
    backbone = load_backbone("pixels")
    assert not backbone.is_network
    x = torch.rand(2, channels, size, size, dtype=torch.float64)
    block = size // 28
    expected = x.numpy().reshape(2, channels, 28, block, 28, block).mean((3, 5)).reshape(2, -1)
    np.testing.assert_allclose(backbone.module(x).numpy(), expected, rtol=1e-12)


def test_pixels_of_small_images_are_all_of_them():
    x = torch.rand(2, 1, 17, 17)
    assert torch.equal(load_backbone("pixels").module(x), x.flatten(1))


def test_pixels_of_64_px_average_what_each_of_28_cells_covers():
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    found = load_backbone("pixels").module(x).reshape(28, 28)
    for row, column in ((0, 0), (13, 5), (27, 27)):
        cells = [slice(i * 64 // 28, -(-(i + 1) * 64 // 28)) for i in (row, column)]
        assert found[row, column] == pytest.approx(x[0, 0, cells[0], cells[1]].mean().item())


def test_pixels_have_no_weights_whatever_is_asked():
    first = load_backbone("pixels", "pretrained")
    assert first.weights == "none"
    assert first.weights_sha256 == load_backbone("pixels", "none").weights_sha256
    assert (first.feature, first.preprocess.rgb) == ("pixels", False)
