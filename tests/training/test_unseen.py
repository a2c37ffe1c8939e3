"""Weights that see only padding, against a plain loop over outputs and places of the kernel."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.training.unseen import clear_unseen


def sees(size: int, kernel: int, stride: int, padding: int, dilation: int, place: int) -> bool:
    n = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return any(0 <= i * stride - padding + place * dilation < size for i in range(n))


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(1, 5), st.integers(1, 4),
    st.integers(0, 4), st.integers(1, 2), st.sampled_from([1, 4]),
)  # fmt: skip
def test_gradients_are_zero_just_where_only_padding_is_seen(
    sizes, kernel, stride, padding, dilation, groups
):
    if min(sizes) + 2 * padding < dilation * (kernel - 1) + 1:
        return
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    place = (stride, padding, dilation)
    expected = torch.tensor([
        [sees(sizes[0], kernel, *place, i) and sees(sizes[1], kernel, *place, j)
         for j in range(kernel)] for i in range(kernel)
    ])  # fmt: skip
    n = clear_unseen(layer, torch.rand(1, 4, *sizes))
    assert n == (not expected.all())
    garbage = torch.full_like(layer.weight, torch.nan).masked_fill(expected, 2.0)
    (layer.weight * garbage).sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros_like(garbage).masked_fill(expected, 2.0))


def test_the_network_stays_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 5, 1, 2))
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert clear_unseen(network, torch.rand(1, 3, 2, 2)) == 1  # on 1 x 1, of the 5 x 5
    assert [module.training for module in network] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_layer_that_is_used_twice_sees_at_both_places():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x):
            return self.layer(self.layer(x))

    assert (
        clear_unseen(Twice(), torch.rand(1, 3, 3, 3)) == 0
    )  # then 2 x 2, where a row sees nothing
    assert clear_unseen(Twice(), torch.rand(1, 3, 2, 2)) == 1


def test_what_is_padded_otherwise_or_is_no_plain_convolution_is_left_alone():
    layer = nn.Conv2d(3, 3, 3, 2, 1, padding_mode="reflect")
    network = nn.Sequential(layer, nn.ReLU())
    assert clear_unseen(network, torch.rand(1, 3, 2, 2)) == 0


def test_in_bf16_small_maps_train_with_the_gradients_of_fp32():
    """On CPUs with AVX512-BF16 these came out as what was in memory."""
    torch.manual_seed(0)
    for kernel, stride in product((3, 5), (2, 3)):
        layer = nn.Conv2d(32, 64, kernel, stride, kernel // 2)
        x = torch.randn(4, 32, 1, 1)
        layer(x).square().sum().backward()
        expected, layer.weight.grad = layer.weight.grad, None
        clear_unseen(layer, x[:1])
        for _ in range(4):
            del (_junk := [torch.full((2**18,), torch.nan) for _ in range(4)])[:]
            layer.weight.grad = None
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = layer(x)
            out.float().square().sum().backward()
            assert (layer.weight.grad - expected).norm() < 0.02 * expected.norm()
