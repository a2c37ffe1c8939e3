"""Parameter groups, rates and the moving average, against formulas written out here."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.backbones.modules import AlexNetFeatures, Pixels, PreLogits
from medplus.config import FinetuneRecipe, finetune_recipe
from medplus.heads.probe.stack import learning_rate_factor
from medplus.training.network import Network
from medplus.training.optimisation import Schedule, make_average, make_optimizer

TIMM = ["resnet18", "vit_tiny_patch16_224", "lcnet_035", "densenet121", "samvit_base_patch16"]
NAMES = [*TIMM, "alexnet", "pixels"]


def make_network(name, trainable="all"):
    """A network without memory for its weights."""
    with torch.device("meta"):
        if name == "alexnet":
            from torchvision.models import alexnet

            backbone: nn.Module = AlexNetFeatures(alexnet())
        elif name == "pixels":
            backbone = Pixels()
        else:
            import timm

            backbone = PreLogits(timm.create_model(name, num_classes=0))
        backbone.requires_grad_(trainable == "all")
        return Network(backbone, nn.Linear(4, 3))


@pytest.fixture(scope="module")
def networks():
    """Every network, wholly trainable."""
    return {name: make_network(name) for name in NAMES}


def settings_of(network, recipe):
    """Each parameter's group, by name; also checks that each one that learns has exactly one."""
    optimizer = make_optimizer(network, recipe)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    grouped = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    assert Counter(grouped) == Counter(learning)
    return {
        names[id(p)]: {"lr_scale": 1.0, **group}
        for group in optimizer.param_groups
        for p in group["params"]
    }


# --- parameter groups -------------------------------------------------------------------------


@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_group_and_decays_as_asked(
    networks, name, decay_bias_and_norm, layer_decay
):
    network = networks[name]
    recipe = FinetuneRecipe(
        weight_decay=0.05, decay_bias_and_norm=decay_bias_and_norm, layer_decay=layer_decay
    )
    groups = settings_of(network, recipe)
    spared = getattr(getattr(network.backbone, "network", None), "no_weight_decay", set)()
    for key, parameter in network.named_parameters():
        is_weight = parameter.ndim > 1 and key.removeprefix("backbone.network.") not in spared
        expected = 0.05 if decay_bias_and_norm or is_weight else 0.0
        assert groups[key]["weight_decay"] == expected, key


def test_what_an_architecture_wants_without_decay_is_spared(networks):
    recipe = FinetuneRecipe(decay_bias_and_norm=False)
    groups = settings_of(networks["vit_tiny_patch16_224"], recipe)
    for key in ("pos_embed", "cls_token"):  # three dimensions each
        assert groups[f"backbone.network.{key}"]["weight_decay"] == 0
    assert groups["backbone.network.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.01


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_treats_all_parameters_alike(networks, name):
    optimizer = make_optimizer(networks[name], finetune_recipe("paper"))
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"]) == (1e-4, 0.01)
        assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.9, 0.999), 1e-8, False)
        assert not group["fused"]


DEPTHS = {
    "resnet18": ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer3.0", "layer4.0", "layer4.1"],
    "vit_tiny_patch16_224": ["patch_embed", "pos_embed", "blocks.0", "blocks.5", "norm."],
    "lcnet_035": ["conv_stem", "blocks.0", "blocks.2", "blocks.5"],
    "densenet121": ["features.conv0", "features.denseblock1.denselayer1", "features.denseblock4"],
    "samvit_base_patch16": ["patch_embed", "blocks.0", "blocks.11", "neck"],
    "alexnet": ["features.0", "features.3", "features.10", "classifier.1", "classifier.4"],
}


@pytest.mark.parametrize("name", DEPTHS)
def test_rates_rise_towards_the_head(networks, name):
    groups = settings_of(networks[name], FinetuneRecipe(layer_decay=0.8))
    assert groups["head.weight"]["lr_scale"] == groups["head.bias"]["lr_scale"] == 1
    prefix = "backbone." if name == "alexnet" else "backbone.network."
    scales = [
        {group["lr_scale"] for key, group in groups.items() if key.startswith(f"{prefix}{part}")}
        for part in DEPTHS[name]
    ]
    for below, above in itertools.pairwise(scales):
        assert max(below) <= min(above)
    assert max(scales[0]) < 0.8**3 * min(scales[-1])
    for scale in set.union(*scales):  # whole powers of the decay
        depth = math.log(scale) / math.log(0.8)
        assert depth == pytest.approx(round(depth))


def test_every_block_of_a_transformer_is_a_layer(networks):
    groups = settings_of(networks["vit_tiny_patch16_224"], FinetuneRecipe(layer_decay=0.5))
    for block in range(12):
        scale = groups[f"backbone.network.blocks.{block}.mlp.fc1.weight"]["lr_scale"]
        assert scale == 0.5 ** (11 - block)  # the last has the head's rate, as timm has it
    assert groups["backbone.network.patch_embed.proj.weight"]["lr_scale"] == 0.5**12


# --- optimisers -------------------------------------------------------------------------------


def test_sgd_has_nesterov_momentum(networks):
    recipe = FinetuneRecipe(optimizer="sgd", lr=0.1, weight_decay=0.02)
    optimizer = make_optimizer(networks["resnet18"], recipe)
    assert isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.1, 0.02)
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, True, 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("precision", "clip_grad", "fused"),
    [("fp32", 1.0, True), ("bf16", 1.0, True), ("fp16", 0.0, True), ("fp16", 1.0, False)],
)
def test_fused_steps_are_used_where_gradients_can_still_be_clipped(
    networks, optimizer, precision, clip_grad, fused
):
    recipe = FinetuneRecipe(
        optimizer=optimizer, fused=True, precision=precision, clip_grad=clip_grad
    )
    groups = make_optimizer(networks["pixels"], recipe).param_groups
    assert all(bool(group["fused"]) == fused for group in groups)


# --- schedules --------------------------------------------------------------------------------


def make_schedule(steps_per_epoch=5, scales=(), **recipe):
    """A schedule, and an optimiser with one group per scale, the last one without."""
    lr = recipe.setdefault("lr", 0.3)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr_scale": scale} for scale in scales]
    groups.append({"params": [nn.Parameter(torch.zeros(1))]})
    optimizer = torch.optim.SGD(groups, lr)
    schedule = Schedule(optimizer, FinetuneRecipe(**recipe), steps_per_epoch)

    def rates(step):
        schedule.before_step(step // steps_per_epoch, step)
        return [group["lr"] for group in optimizer.param_groups]

    return rates


@given(epochs=st.integers(1, 150), steps_per_epoch=st.integers(1, 7), data=st.data())
def test_paper_schedule_is_the_probes(epochs, steps_per_epoch, data):
    rates = make_schedule(steps_per_epoch, schedule="paper", epochs=epochs)
    for epoch in data.draw(st.lists(st.integers(0, epochs - 1), min_size=1, max_size=8)):
        step = epoch * steps_per_epoch + data.draw(st.integers(0, steps_per_epoch - 1))
        assert rates(step) == pytest.approx([0.3 * learning_rate_factor(epoch, epochs)], rel=1e-12)


def test_paper_schedule_is_torchs_cosine_stepped_with_the_epochs_index():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
    rates = make_schedule(1, schedule="paper", epochs=9)
    for epoch in range(9):
        assert rates(epoch) == pytest.approx([optimizer.param_groups[0]["lr"]], rel=1e-9)
        optimizer.step()
        with pytest.warns(UserWarning, match="epoch parameter"):
            torchs.step(epoch)


def cosine(step, total, warmup):
    """The rate of a step: linear to the peak, then half a cosine."""
    rising = math.floor(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


@given(
    epochs=st.integers(1, 30),
    steps_per_epoch=st.integers(1, 30),
    warmup=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
    data=st.data(),
)
def test_cosine_schedule_rises_linearly_and_falls_as_a_cosine(
    epochs, steps_per_epoch, warmup, data
):
    total = epochs * steps_per_epoch
    rates = make_schedule(steps_per_epoch, schedule="cosine", epochs=epochs, warmup=warmup)
    # In any order: the rate depends on the step alone, so that a resumed training has the same.
    for step in data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=8)):
        expected = 0.3 * cosine(step, total, warmup)
        assert rates(step) == pytest.approx([expected], rel=1e-9, abs=1e-12)
        assert 0 < rates(step)[0] <= 0.3 * (1 + 1e-12)


def test_constant_schedule_is_constant():
    rates = make_schedule(schedule="constant", epochs=10, scales=(0.1,))
    assert all(rates(step) == [0.3 * 0.1, 0.3] for step in range(50))


@pytest.mark.parametrize("schedule", ["paper", "cosine", "constant"])
def test_layers_keep_their_share_of_the_rate(schedule):
    warmup = 0.3 if schedule == "cosine" else 0.0
    options = {"schedule": schedule, "epochs": 6, "warmup": warmup}
    rates, alone = make_schedule(scales=(0.25, 0.5), **options), make_schedule(**options)
    for step in range(30):
        (peak,) = alone(step)
        assert rates(step) == pytest.approx([0.25 * peak, 0.5 * peak, peak], rel=1e-12)


def test_one_epoch_is_trained_in_silence(caplog):
    make_schedule(schedule="paper", epochs=1)(0)
    assert not caplog.records


# --- moving average ---------------------------------------------------------------------------


def reference_average(states, decay):
    """The average of a list of states, one per step, tensor by tensor."""
    average = {}
    for step, state in enumerate(states):
        kept = min(decay, 1 - (1 + step) ** -0.75)  # 0 in the first step
        for name, value in state.items():
            if value.is_floating_point():
                old = average.get(name, torch.zeros(()))
                average[name] = kept * old + (1 - kept) * value.double()
            else:
                average[name] = value
    return average


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_average_equals_a_plain_one(tiny_backbone, decay):
    network = Network(tiny_backbone().module, nn.Linear(12, 3)).train()
    average = make_average(network, FinetuneRecipe(ema=decay))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    generator = torch.Generator().manual_seed(0)
    states = []
    for step in range(12):
        network(torch.randn(4, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        states.append(copy.deepcopy(network.state_dict()))
        average.update(network, step + 1)
    expected = reference_average(states, decay)
    assert average.module.state_dict().keys() == expected.keys()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(average.module.head.weight, network.head.weight)
