"""The network that learns: its head, which of it learns, and what its modes leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medplus.backbones.build import load_backbone
from medplus.config import FinetuneRecipe
from medplus.errors import BackboneError, UsageError
from medplus.training.network import Network, build_network, embedding_dim, set_training_mode

MODES = [
    ("all", "update"),
    ("all", "frozen"),
    ("head", "update"),
    ("head", "frozen"),
]


def build(backbone, seed=0, n_classes=3, **recipe):
    order = torch.Generator().manual_seed(seed)
    network = build_network(backbone, 12, n_classes, FinetuneRecipe(**recipe), order)
    return network, order


def image(side=8):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


def batch(n=6, side=8, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


# --- parts ------------------------------------------------------------------------------------


def test_logits_are_the_heads_of_the_backbones_embeddings(tiny_backbone):
    backbone = tiny_backbone()
    network, _ = build(backbone)
    embeddings = backbone.module(batch())
    expected = embeddings @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network.eval()(batch()), expected)


@pytest.mark.parametrize("seed", [0, 7, 2**62])
def test_head_and_first_order_are_those_of_a_plain_torch_script(tiny_backbone, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(12, 3)
        expected_order = torch.randperm(50)
    network, order = build(tiny_backbone(), seed)
    assert torch.equal(network.head.weight, head.weight)
    assert torch.equal(network.head.bias, head.bias)
    assert torch.equal(torch.randperm(50, generator=order), expected_order)


def test_global_random_numbers_are_left_alone(tiny_backbone):
    before = torch.get_rng_state()
    build(tiny_backbone())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_what_the_recipe_says_learns(tiny_backbone, trainable):
    network, _ = build(tiny_backbone(), trainable=trainable)
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (trainable == "all" or name.startswith("head.")), name


def test_what_an_architecture_keeps_fixed_stays_fixed(tiny_backbone):
    backbone = tiny_backbone()
    backbone.module.network.scale.requires_grad_(False)  # as position tables of sines are
    network, _ = build(backbone, trainable="all")
    fixed = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert fixed == ["backbone.network.scale"]


# --- number of dimensions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "fit"),
    [("test_resnet.r160_in1k", 32, "native"), ("lcnet_035", 28, "pad"), ("pixels", 28, "native")],
)
def test_dimension_is_that_of_the_embedding(name, size, fit):
    backbone = load_backbone(name, "none", size, fit, frozen=False)
    pixels = image(size)
    side = backbone.preprocess.canvas or size
    channels = 3 if backbone.preprocess.rgb else 1
    expected = backbone.module(torch.zeros(1, channels, side, side)).shape[1]
    assert embedding_dim(backbone, pixels) == expected


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, ValueError])
def test_unsuitable_images_are_refused_with_a_remedy(tiny_backbone, monkeypatch, error):
    def refuse(x):
        raise error("Input height (8) doesn't match model (224).\nTraceback …")

    backbone = tiny_backbone()
    backbone.module.train()
    monkeypatch.setattr(backbone.module, "forward", refuse)
    with pytest.raises(BackboneError, match=r"tiny .*--fit native: Input height.*another") as told:
        embedding_dim(backbone, image())
    assert "\n" not in str(told.value)
    assert backbone.module.training


def test_images_larger_than_the_canvas_are_refused(tiny_backbone):
    with pytest.raises(UsageError, match="--fit resize"):
        embedding_dim(tiny_backbone(canvas=16), image(17))


# --- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trainable", "norm_stats"), MODES)
def test_batch_norm_statistics_follow_the_data_only_where_asked(
    tiny_backbone, trainable, norm_stats
):
    network, _ = build(tiny_backbone(), trainable=trainable, norm_stats=norm_stats)
    recipe = FinetuneRecipe(trainable=trainable, norm_stats=norm_stats)
    before = buffers(network)
    assert len(before) == 6
    set_training_mode(network.eval(), recipe)
    network(batch())
    after = buffers(network)
    if norm_stats == "frozen":
        assert_same(before, after)
    else:
        assert not any(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("trainable", "norm_stats"), MODES)
def test_only_a_wholly_frozen_backbone_has_no_dropout(tiny_backbone, trainable, norm_stats):
    backbone = tiny_backbone(dropout=0.5)
    network, _ = build(backbone, trainable=trainable, norm_stats=norm_stats)
    expected = network.eval()(batch())
    recipe = FinetuneRecipe(trainable=trainable, norm_stats=norm_stats)
    set_training_mode(network, recipe)
    outputs = [network(batch()) for _ in range(2)]
    if (trainable, norm_stats) == ("head", "frozen"):
        assert torch.equal(outputs[0], expected)
        assert torch.equal(outputs[1], expected)
    else:
        assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize(("trainable", "norm_stats"), MODES)
def test_gradients_reach_what_learns_and_nothing_else(tiny_backbone, trainable, norm_stats):
    network, _ = build(tiny_backbone(), trainable=trainable, norm_stats=norm_stats)
    set_training_mode(network, FinetuneRecipe(trainable=trainable, norm_stats=norm_stats))
    network(batch()).square().sum().backward()
    for name, parameter in network.named_parameters():
        learns = trainable == "all" or name.startswith("head.")
        assert (parameter.grad is not None) == learns, name
        assert not learns or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "lcnet_035"])
def test_timms_own_batch_norms_can_be_frozen(name):
    backbone = load_backbone(name, "none", 32, "native", frozen=False)
    network = Network(backbone.module, nn.Linear(embedding_dim(backbone, image(32)), 3))
    before = buffers(network)
    set_training_mode(network, FinetuneRecipe(norm_stats="frozen"))
    network(batch(side=32))
    assert_same(before, buffers(network))
    set_training_mode(network, FinetuneRecipe(norm_stats="update"))
    network(batch(side=32))
    assert not any(torch.equal(before[name], value) for name, value in buffers(network).items())
