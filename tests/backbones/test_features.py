"""Features other than the pre-logits, against tokens and maps taken from timm by hand."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import timm
import torch

from medplus.backbones.build import load_backbone
from medplus.backbones.features import global_average
from medplus.backbones.prepared import prepare
from medplus.embeddings.extract import extract
from medplus.embeddings.select import find_store
from medplus.errors import BackboneError, StoreError, UsageError
from medplus.spec import ExtractSpec

SIZE = 64


def network_of(name: str) -> torch.nn.Module:
    """Return timm's network with the weights that the backbone has at random."""
    module = load_backbone(name, "none", SIZE, "native").module
    sized = {"img_size": SIZE} if "vit" in name else {}
    network = timm.create_model(name, num_classes=0, **sized).eval()
    network.load_state_dict(module.network.state_dict())
    return network


def embed(name: str, feature: str, x: torch.Tensor) -> torch.Tensor:
    backbone = load_backbone(name, "none", SIZE, "native", feature=feature)
    assert backbone.feature == feature
    with torch.no_grad():
        return backbone.module(x)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("name", "before"), [("test_vit", 1), ("deit_tiny_distilled_patch16_224", 2)]
)
@torch.no_grad()
def test_class_token_and_mean_of_patch_tokens(name, before, x):
    module = load_backbone(name, "none", SIZE, "native").module
    network = timm.create_model(name, num_classes=0, img_size=SIZE).eval()
    network.load_state_dict(module.network.state_dict())
    tokens = network.forward_features(x)
    assert tokens.shape[1] == before + (SIZE // 16) ** 2
    cls, avg = tokens[:, 0], tokens[:, before:].mean(1)
    assert torch.equal(embed(name, "cls", x), cls)
    assert torch.equal(embed(name, "avg", x), avg)
    assert torch.equal(embed(name, "cls+avg", x), torch.cat([cls, avg], 1))
    assert not torch.allclose(cls, avg, atol=1e-3)


@torch.no_grad()
def test_registers_are_no_patches(x):
    network = network_of("test_vit2")  # a register, and no class token
    expected = network.forward_features(x)[:, 1:].mean(1)
    assert torch.equal(embed("test_vit2", "avg", x), expected)


@torch.no_grad()
def test_mean_of_a_convolutional_networks_maps(x):
    network = network_of("test_resnet")
    assert torch.equal(embed("test_resnet", "avg", x), network.forward_features(x).mean((2, 3)))
    by_hand = network.act1(network.bn1(network.conv1(x)))
    by_hand = network.layer2(network.layer1(network.maxpool(by_hand)))
    assert torch.equal(embed("test_resnet", "layer:layer2", x), by_hand.mean((2, 3)))


@torch.no_grad()
def test_mean_of_a_blocks_patch_tokens(x):
    network = network_of("test_vit")
    tokens = network.patch_embed(x)
    assert torch.equal(embed("test_vit", "layer:patch_embed", x), tokens.mean((1, 2)))
    [tokens] = network.forward_intermediates(
        x, indices=[1], output_fmt="NLC", intermediates_only=True
    )
    assert torch.equal(embed("test_vit", "layer:blocks.1", x), tokens.mean(1))


@pytest.mark.parametrize("side", [5, 6])
def test_channels_may_stand_first_or_last(side):
    first = torch.rand(2, 5, side, side)
    last = first.permute(0, 2, 3, 1).contiguous()
    swin = SimpleNamespace(output_fmt="NHWC")
    if side == 6:  # the shape tells; SAM has both kinds
        assert torch.equal(global_average(first, swin), first.mean((2, 3)))
        assert torch.equal(global_average(last, SimpleNamespace()), last.mean((1, 2)))
    else:
        assert torch.equal(global_average(first, SimpleNamespace()), first.mean((2, 3)))
        assert torch.equal(global_average(last, swin), last.mean((1, 2)))


@torch.no_grad()
@pytest.mark.parametrize("feature", ["avg", "layer:layer2"])
def test_fast_inference_gives_the_same_feature(feature, x):
    module = load_backbone("test_resnet", "none", SIZE, "native", feature=feature).module
    torch.testing.assert_close(prepare(module, "fp32")(x), module(x), rtol=1e-4, atol=1e-5)


def test_weights_have_the_same_digest_whatever_the_feature():
    plain = load_backbone("test_vit", "none")
    for feature in ("cls", "layer:blocks.0"):
        other = load_backbone("test_vit", "none", feature=feature)
        assert other.weights_sha256 == plain.weights_sha256
    assert (plain.feature, load_backbone("pixels", feature="cls").feature) == (
        "prelogits", "pixels",
    )  # fmt: skip


def test_run_has_features_too(write_run):
    folder, _ = write_run()
    run = load_backbone(str(folder), feature="avg")
    assert (run.feature, run.run_id is None) == ("avg", False)
    assert run.weights_sha256 == load_backbone(str(folder)).weights_sha256


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "feature", "reason"),
    [
        ("test_vit", "clss", "unknown feature 'clss'; did you mean 'cls'?"),
        ("test_vit", "layer:", "unknown feature 'layer:'"),
        ("test_vit", "layer:block.1", "has no module 'block.1'; did you mean 'blocks.1'?"),
        ("test_resnet", "cls", "test_resnet.r160_in1k has no class token"),
        ("test_vit2", "cls+avg", "test_vit2.r160_in1k has no class token"),
        ("test_resnet", "layer:layer5", "test_resnet.r160_in1k has no module 'layer5'; did you"),
    ],
)
def test_feature_that_the_network_has_not(name, feature, reason):
    with pytest.raises(UsageError, match=re.escape(reason)):
        load_backbone(name, "none", feature=feature)


def test_module_that_the_network_does_not_run():
    network = load_backbone("test_vit", "none").module.network
    unused = next(n for n, m in network.named_modules() if n.endswith("attn_drop"))
    with pytest.raises(BackboneError, match="does not use this module"):
        load_backbone("test_vit", "none", feature=f"layer:{unused}")


# --- stores -----------------------------------------------------------------------------------


def test_feature_is_in_the_key_and_selects_the_store(write_npz, tmp_path):
    data = str(write_npz("toy", size=32, n=(4, 3, 3)))
    made = {
        feature: extract(
            data, backbone="test_vit", weights="none", fit="native", feature=feature,
            precision="fp32", device="cpu", store=tmp_path,
        )
        for feature in ("prelogits", "cls", "cls+avg")
    }  # fmt: skip
    dims = {feature: store.info.dim for feature, store in made.items()}
    assert dims == {"prelogits": 64, "cls": 64, "cls+avg": 128}
    for feature, store in made.items():
        assert store.info.spec.feature == feature
        query = ExtractSpec(data, 32, "test_vit", feature=feature)
        assert find_store(tmp_path, query).path == store.path
    with pytest.raises(StoreError, match=r"3 stores match.*(?s:.)*--feature cls\+avg"):
        find_store(tmp_path, ExtractSpec(data, 32, "test_vit"))
    with pytest.raises(StoreError, match="--feature avg"):
        find_store(tmp_path, ExtractSpec(data, 32, "test_vit", feature="avg"))
