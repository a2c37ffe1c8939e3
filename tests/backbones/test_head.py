"""The linear head before training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.backbones.head import initial_head


def generator(seed):
    return torch.Generator().manual_seed(seed)


@given(dim=st.integers(1, 300), n_classes=st.integers(1, 12), seed=st.integers(0, 2**63 - 1))
def test_head_is_what_a_linear_layer_draws(dim, n_classes, seed):
    weight, bias = initial_head(dim, n_classes, generator(seed))
    torch.manual_seed(seed)
    layer = nn.Linear(dim, n_classes)
    assert weight.shape == layer.weight.shape
    assert bias.shape == layer.bias.shape
    torch.testing.assert_close(weight, layer.weight.detach(), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(bias, layer.bias.detach(), atol=1e-7, rtol=1e-6)


def test_what_is_drawn_next_is_what_follows_a_linear_layer():
    order = generator(3)
    initial_head(17, 4, order)
    torch.manual_seed(3)
    nn.Linear(17, 4)
    assert torch.equal(torch.randperm(50, generator=order), torch.randperm(50))


@pytest.mark.parametrize("dim", [1, 512])
def test_values_are_uniform_within_their_bound(dim):
    weight, bias = initial_head(dim, 2000 // dim + 1000, generator(0))
    bound = 1 / math.sqrt(dim)
    for values in (weight, bias):
        assert values.abs().max() <= bound
        assert values.abs().max() > 0.99 * bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    initial_head(8, 2, generator(1))
    assert torch.equal(torch.rand(3), expected)
