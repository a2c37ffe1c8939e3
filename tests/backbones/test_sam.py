"""SAM's tables, resized once instead of in every forward."""

from __future__ import annotations

import pytest
import timm
import torch

from medplus.backbones.build import load_backbone
from medplus.backbones.sam import bake_sam_tables
from medplus.backbones.sources import timm as timm_source


def _small_sam() -> torch.nn.Module:
    """A SAM encoder with a windowed and a global block, and random tables (they start at zero)."""
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    torch.manual_seed(3)
    network = VisionTransformerSAM(
        img_size=512,
        embed_dim=32,
        depth=2,
        num_heads=2,
        neck_chans=16,
        num_classes=0,
        window_size=14,
        global_attn_indexes=(1,),
        use_rel_pos=True,
        use_abs_pos=True,
    ).eval()
    for name, parameter in network.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter)
    network.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return network


@pytest.mark.parametrize("canvas", [64, 224, 512])
def test_baked_tables_give_the_same_embedding(canvas):
    network = _small_sam()
    x = torch.rand(2, 3, canvas, canvas)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        bake_sam_tables(network, canvas)
        found = network.forward_head(network.forward_features(x), pre_logits=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_baking_leaves_other_networks_alone():
    network = timm.create_model("test_vit")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    bake_sam_tables(network, 64)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_loaded_sam_has_its_tables_baked_for_the_canvas():
    network = load_backbone("samvit_base_patch16", "none").module.network
    assert network.pos_embed.shape[1:3] == (14, 14)
    blocks = [block for block in network.blocks if block.window_size == 0]
    assert len(blocks) == 4
    assert {block.attn.rel_pos_w.shape[0] for block in blocks} == {2 * 14 - 1}


def test_sam_that_is_to_be_trained_keeps_its_tables(monkeypatch):
    monkeypatch.setattr(timm_source, "make", lambda *_: _small_sam())
    frozen, trainable = (load_backbone("samvit_base_patch16", "none", frozen=f) for f in (1, 0))
    assert trainable.module.network.pos_embed.shape[1:3] == (32, 32)
    assert frozen.module.network.pos_embed.shape[1:3] == (14, 14)
    assert trainable.weights_sha256 == frozen.weights_sha256
    x = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(trainable.module(x), frozen.module(x), rtol=1e-6, atol=1e-6)


def test_digest_is_of_the_weights_not_of_the_baked_tables(monkeypatch):
    monkeypatch.setattr(timm_source, "make", lambda *_: _small_sam())
    digests = {
        load_backbone("samvit_base_patch16", "none", size=size, fit="native").weights_sha256
        for size in (64, 128)
    }
    assert len(digests) == 1
