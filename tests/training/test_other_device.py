"""What runs on another device than the CPU: torch's ``meta``, whose tensors have no numbers.

torch refuses to compute with them and with a tensor of the CPU, as it does on a GPU: one that was
left there is found without a GPU. Fake tensors that say ``cuda`` would do so, too, but autograd
asks the driver for them, and without one the process may crash.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from medplus.backbones.inference import Embedder
from medplus.config import ProbeRecipe, finetune_recipe
from medplus.heads.probe.stack import train_heads
from medplus.training.network import build_network, set_training_mode
from medplus.training.step import Stepper

META = torch.device("meta")


def bytes_of(channels, n, device="cpu"):
    shape = (n, 8, 8) if channels == 1 else (n, 8, 8, 3)
    return torch.zeros(shape, dtype=torch.uint8, device=device)


def test_a_tensor_left_on_the_cpu_is_found():
    with pytest.raises(RuntimeError, match="device"):
        torch.empty(3, device=META) + torch.empty(3)


@pytest.mark.parametrize("canvas", [None, 32], ids=["native", "padded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_embeddings_are_made_on_the_device(tiny_backbone, canvas, channels):
    embedder = Embedder(tiny_backbone(canvas=canvas), META, "fp32", 4, window=False)
    embeddings = embedder(bytes_of(channels, 6))
    assert embeddings.device == META
    assert embeddings.shape == (6, 12)


class OneDevice:
    """What Lightning does on one device, but for the launch."""

    device, global_rank, world_size, is_global_zero = META, 0, 1, True

    def setup(self, module, optimizer):
        return module, optimizer

    def no_backward_sync(self, module, enabled):
        return nullcontext()

    def backward(self, loss):
        loss.backward()

    def clip_gradients(self, module, optimizer, max_norm, error_if_nonfinite):
        nn.utils.clip_grad_norm_(module.parameters(), max_norm)


RECIPES = {
    "paper": {},
    "modern": {"fused": False, "ema": 0.0},
    "mixed": {"fused": False, "ema": 0.0, "mixup": 0.2, "cutmix": 0.0, "accumulate": 2},
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_steps_are_made_on_the_device(tiny_backbone, learnable, name, channels):
    images = learnable(channels=channels)
    changes = {"precision": "fp32", **RECIPES[name]}
    recipe = finetune_recipe("paper" if name == "paper" else "modern").model_copy(update=changes)
    backbone = tiny_backbone(canvas=32)
    network = build_network(backbone, 12, images.n_classes, recipe, torch.Generator()).to(META)
    set_training_mode(network, recipe)
    step = Stepper(OneDevice(), network, images, backbone.preprocess, recipe, 0, compiled=False)
    labels = torch.zeros((4, 1), dtype=torch.int64, device=META)
    loss = step(iter([(bytes_of(channels, 4, META), labels)] * 2), 8, 0, 0)
    assert loss.device == META
    moments = [v for s in step.optimizer.state.values() for n, v in s.items() if n != "step"]
    assert {moment.device for moment in moments} == {META}


def test_heads_are_trained_on_the_device():
    x = torch.zeros((20, 8), device=META)
    y = torch.zeros((20, 1), dtype=torch.int64, device=META)
    heads = train_heads((x, y), None, 3, ProbeRecipe(seeds=(1, 2), epochs=2))
    assert heads.weight.device == META
