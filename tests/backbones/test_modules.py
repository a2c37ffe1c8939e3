"""The modules that map images to embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from medplus.backbones.modules import AlexNetFeatures


@pytest.fixture(scope="module")
def network():
    """AlexNet with narrow linear layers: its convolutions and its pool are the real ones."""
    with torch.device("meta"):
        network = alexnet()
    network.features.to_empty(device="cpu")
    torch.manual_seed(2)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    network.classifier = nn.Sequential(nn.Linear(9216, 16), nn.ReLU(), nn.Linear(16, 5))
    return network


def with_pool(network, x):
    """Map images to embeddings as torchvision does, less the last layer."""
    return network.classifier[:-1](network.avgpool(network.features(x)).flatten(1))


@pytest.mark.parametrize("side", [224, 240, 256, 100])
def test_alexnet_is_torchvisions_whether_it_pools_or_not(network, side):
    x = torch.rand(2, 3, side, side)
    expected, found = with_pool(network, x), AlexNetFeatures(network)(x)
    assert expected.std() > 0
    assert torch.equal(found, expected)


def test_alexnet_has_torchvisions_gradients_where_it_does_not_pool(network):
    ours, theirs = AlexNetFeatures(copy.deepcopy(network)), copy.deepcopy(network)
    x = torch.rand(3, 3, 224, 224)
    ours(x).square().sum().backward()
    with_pool(theirs, x).square().sum().backward()
    for mine, plain in zip(ours.features.parameters(), theirs.features.parameters(), strict=True):
        assert torch.equal(mine.grad, plain.grad)
        assert plain.grad.abs().sum() > 0


def test_alexnet_leaves_maps_alone_that_are_six_by_six(network):
    maps = torch.rand(1, 256, 6, 6)
    assert AlexNetFeatures(network).avgpool(maps) is maps


@pytest.mark.gpu
def test_alexnet_at_224_px_trains_with_deterministic_algorithms(network):
    module = AlexNetFeatures(copy.deepcopy(network)).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        module(torch.rand(2, 3, 224, 224, device="cuda")).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
