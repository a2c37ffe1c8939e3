"""Logits of a split are those of one plain forward, whatever the batches and the devices."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.datasets.dataset import ImageSplit
from medplus.preprocess import Preprocessor, PreprocessSpec, preprocess
from medplus.training.batches import Batches
from medplus.training.launch import make_fabric
from medplus.training.network import Network
from medplus.training.predict import predict

CPU = torch.device("cpu")
SPEC = PreprocessSpec((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "native", None)


class OneOfSeveral:
    """What `predict` needs of Fabric."""

    device = CPU

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world

    def autocast(self):
        return nullcontext()


class Exchange:
    """Stands for `all_gather` among processes that run one after the other, twice."""

    def __init__(self, world):
        self.world, self.rank, self.sent = world, 0, {}

    def __call__(self, received, own):
        self.sent[self.rank] = own.clone()
        for rank, tensor in enumerate(received):
            if rank in self.sent:
                tensor.copy_(self.sent[rank])  # refuses another shape, as the real one does


@pytest.fixture
def split(learnable):
    return learnable(n=(50, 37, 20)).splits["val"]


@pytest.fixture
def network(tiny_backbone):
    """A network in train mode, where batch norm and dropout would be seen."""
    return Network(tiny_backbone(dropout=0.5).module, nn.Linear(12, 3)).train()


def run(fabric, network, split, batch_size, spec=SPEC, resident=True):
    prepare = Preprocessor(spec, torch.float32, channels_last=False)
    images = Batches(split, CPU, resident=resident)
    return predict(fabric, network, images, prepare, batch_size)


@torch.no_grad()
def plain(network, split, spec=SPEC):
    return network.eval()(preprocess(torch.from_numpy(split.images), spec))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 36, 37, 64])
def test_logits_equal_one_plain_forward(fabric, network, split, batch_size, resident):
    logits = run(fabric, network, split, batch_size, resident=resident)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    torch.testing.assert_close(logits, plain(network, split))


def test_padded_images_do_not_leak_into_each_other(fabric, network, split):
    spec = PreprocessSpec(SPEC.mean, SPEC.std, "pad", 14)
    logits = run(fabric, network, split, 10, spec)
    torch.testing.assert_close(logits, plain(network, split, spec))


def test_network_is_in_eval_mode_and_unchanged(fabric, network, split):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = run(fabric, network, split, 16)
    assert not any(module.training for module in network.modules())
    assert torch.equal(run(fabric, network.train(), split, 16), first)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_half_precision_is_that_of_the_training(network, split):
    bf16 = make_fabric(CPU, 1, "bf16")
    logits, expected = run(bf16, network, split, 16), plain(network, split)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.02)


class Cramped(nn.Module):
    """A network on a device that has room for a few images at a time."""

    def __init__(self, network, room, error=None):
        super().__init__()
        self.network, self.room, self.sizes = network, room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise self.error
        return self.network(x)


@given(n=st.integers(1, 40), world=st.integers(2, 7), batch_size=st.integers(1, 12))
def test_all_devices_have_all_logits_in_order(n, world, batch_size):
    images = np.arange(n, dtype=np.uint8).repeat(4).reshape(n, 2, 2)
    split = ImageSplit(images, np.zeros((n, 1), np.uint8))
    spec = PreprocessSpec((), (), "native", None, rgb=False)
    exchange, answers = Exchange(world), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "all_gather", exchange)
        for process in 2 * list(range(world)):
            exchange.rank = process
            answers.append(run(OneOfSeveral(process, world), nn.Flatten(), split, batch_size, spec))
    each = {len(sent) for sent in exchange.sent.values()}
    assert each == {-(-n // world)}  # none does more than its share
    expected = plain(nn.Flatten(), split, spec)
    for logits in answers[world:]:
        assert torch.equal(logits, expected)
