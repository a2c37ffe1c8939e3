"""Low-rank updates: W + 2 B A and nothing else, in every layer that is said to have one."""

from __future__ import annotations

import copy
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import medplus
from medplus.backbones.build import load_backbone
from medplus.backbones.finetuned import NETWORK_FILE, read_network
from medplus.config import FinetuneRecipe
from medplus.datasets.phantom import write_phantom
from medplus.errors import UsageError
from medplus.run.ledger import read_predictions
from medplus.tensorfile import read_tensors
from medplus.training import finetune
from medplus.training import folder as folder_module
from medplus.training.folder import STATE_FILE
from medplus.training.lora import adapt, merge, merged_state, n_learning
from medplus.training.network import build_network, n_trainable
from medplus.training.watch import Watch

pytestmark = pytest.mark.usefixtures("fast_disk", "no_picture")

CODE = """\
from timm.models.vision_transformer import VisionTransformer


def backbone():
    size = {"img_size": 28, "patch_size": 7, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return VisionTransformer(num_classes=0, **size), (0.5,) * 3, (0.25,) * 3, 28
"""


class TorchAttention(nn.Module):
    """torch's attention, which computes with its layers' weights and calls none of them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 7, 7)
        self.layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=True)
        self.head = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x):
        x = self.layer(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(x, x, x, need_weights=False)[0].mean(1)


SMALL = {"img_size": 28, "patch_size": 7, "num_classes": 0, "embed_dim": 24, "depth": 1}
NETWORKS = {
    "vit": (lambda: VisionTransformer(num_heads=3, **SMALL), 4),
    # These compute queries, keys and values with the layer's weight and a bias of their own.
    "eva": (lambda: timm.models.eva.Eva(num_heads=3, qkv_fused=True, **SMALL), 4),
    "beit": (lambda: timm.models.beit.Beit(num_heads=3, init_values=1.0, **SMALL), 4),
    "torch": (TorchAttention, 6),
}


def network_of(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name][0]()


def images(n=3, seed=0):
    return torch.randn(n, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def learning(module):
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def learn_something(module):
    """Give every update values as training would, far from where they began."""
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learning(module).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=chance))


# --- one layer ----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    n_in=st.integers(8, 20), n_out=st.integers(8, 20), rank=st.integers(1, 3),
    bias=st.booleans(), training=st.booleans(), seed=st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_a_layer_is_the_sum_and_has_its_gradients(n_in, n_out, rank, bias, training, seed):
    layer = nn.Linear(n_in, n_out, bias).double().train(training)
    weight = layer.weight.detach().clone()
    adapt(layer, rank, seed, "a layer")
    learn_something(layer)
    a, b = (p.detach().clone().requires_grad_() for p in (layer.lora_a, layer.lora_b))
    x = torch.randn(5, n_in, dtype=torch.float64)
    expected = F.linear(x, weight + 2 * (b @ a), layer.bias)
    expected.square().sum().backward()

    found = layer(x)
    found.square().sum().backward()

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.lora_a.grad, a.grad)
    torch.testing.assert_close(layer.lora_b.grad, b.grad)
    torch.testing.assert_close(layer.weight, weight + 2 * (b @ a))


# --- whole networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_begins_as_it_was_and_updates_alone_learn(name):
    network = network_of(name).eval()
    before = network(images())
    n = n_learning(network, 2, name)

    adapt(network, 2, 0, name)

    torch.testing.assert_close(network(images()), before)
    assert {own.rpartition(".")[2] for own in learning(network)} == {"lora_a", "lora_b"}
    assert len(learning(network)) == 2 * NETWORKS[name][1]
    assert sum(p.numel() for p in learning(network).values()) == n


@pytest.mark.parametrize("name", NETWORKS)
def test_no_update_is_left_without_a_gradient(name):
    network = network_of(name).train()
    adapt(network, 2, 0, name)
    learn_something(network)
    embedding = network(images())
    (embedding * torch.linspace(-1, 2, embedding.shape[1])).sum().backward()
    for own, parameter in learning(network).items():
        assert parameter.grad is not None, own
        assert parameter.grad.abs().sum() > 0, own


@pytest.mark.parametrize("name", NETWORKS)
def test_the_merged_network_computes_what_the_adapted_one_did(name):
    plain, network = network_of(name), network_of(name)
    adapt(network, 2, 0, name)
    learn_something(network)
    learned = network.train()(images())
    judged = network.eval()(images())
    plain.load_state_dict(merged_state(network), strict=True)
    assert not torch.allclose(plain.eval()(images()), network_of(name).eval()(images()))

    merge(network)

    kinds = [type(module) for module in network.modules()]
    assert kinds == [type(module) for module in plain.modules()]
    assert network.state_dict().keys() == plain.state_dict().keys()
    for one in (network(images()), plain(images()), learned):
        torch.testing.assert_close(one, judged, atol=1e-5, rtol=1e-5)


def test_a_copy_learns_apart():  # as the moving average does, and a trial of a batch size
    network = network_of("vit")
    adapt(network, 2, 0, "vit")
    other = copy.deepcopy(network)
    learn_something(other)
    before = network_of("vit").eval()(images())
    torch.testing.assert_close(network.eval()(images()), before)
    assert not torch.allclose(other.eval()(images()), before)


def test_number_of_parameters_is_that_of_the_sum_by_hand():
    sides = [(24, 72), (24, 24), (24, 96), (96, 24)]  # qkv, projection, and the two of the MLP
    assert n_learning(network_of("vit"), 5, "vit") == sum(5 * (a + b) for a, b in sides)


# --- refusals -----------------------------------------------------------------------------------


def test_a_network_without_linear_layers_is_refused_with_the_remedy():
    backbone = load_backbone("test_resnet.r160_in1k", "none", 32, "native", frozen=False)
    for refuse in (
        lambda: n_trainable(backbone, FinetuneRecipe(lora=8)),
        lambda: build_network(backbone, 12, 2, FinetuneRecipe(lora=8), torch.Generator()),
    ):
        with pytest.raises(UsageError, match=r"test_resnet has no linear layers.*--trainable head"):
            refuse()
    assert all(p.requires_grad for p in backbone.module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_highest_rank_is_the_one_that_is_named(name):
    with pytest.raises(UsageError, match=r"--lora 1000 .* rank of at most") as told:
        n_learning(network_of(name), 1000, name)
    most = int(str(told.value).split()[-1])
    assert n_learning(network_of(name), most, name)
    with pytest.raises(UsageError, match="at most"):
        n_learning(network_of(name), most + 1, name)


def test_a_head_alone_has_nothing_to_adapt():
    with pytest.raises(UsageError, match=r"^lora = 8: .*frozen where trainable is head"):
        medplus.finetune("d.npz", lora=8, trainable="head")


# --- training -----------------------------------------------------------------------------------


class TinyMixer(nn.Module):
    """A convolution with batch norm, and two linear layers, which timm can tell apart."""

    def __init__(self):
        super().__init__()
        self.layer0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.norm0 = nn.BatchNorm2d(16)
        self.layer1 = nn.Linear(16, 20)
        self.layer2 = nn.Linear(20, 12)

    def forward(self, x):
        x = self.norm0(self.layer0(x)).relu().flatten(2).transpose(1, 2)
        return self.layer2(F.dropout(self.layer1(x), 0.2, self.training).relu()).mean(1)

    def group_matcher(self, coarse=False):
        return {"blocks": r"^(?:layer|norm)(\d+)"}


@pytest.fixture
def mixer(tiny_backbone):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return replace(tiny_backbone(), module=TinyMixer())


def test_head_and_order_are_those_of_full_fine_tuning(mixer):
    found = []
    for rank in (0, 2):
        order = torch.Generator().manual_seed(7)
        backbone = copy.deepcopy(mixer)
        network = build_network(backbone, 12, 3, FinetuneRecipe(lora=rank), order)
        found.append((network.head.weight, torch.randperm(50, generator=order)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert [name for name in learning(network) if name.startswith("head.")]


class Interrupt(Watch):
    """Sends Ctrl-C after a step."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def images(self, n):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_training_ends_as_uninterrupted(new_trainer, learnable, mixer, tmp_path):
    recipe = FinetuneRecipe(
        lora=2, epochs=3, batch_size=16, accumulate=2, lr=1e-2, layer_decay=0.7, ema=0.8,
        decay_bias_and_norm=False, schedule="cosine", warmup=0.3, clip_grad=0.5,
    )  # fmt: skip

    def start(folder, watch=None):
        own = copy.deepcopy(mixer)
        return new_trainer(recipe, learnable(), folder, seed=5, watch=watch, backbone=own)

    for step in (3, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "a", Interrupt(step)).fit()
    resumed, whole = start(tmp_path / "a"), start(tmp_path / "b")
    assert resumed.fit().resumed == 3
    whole.fit()

    states = [read_tensors(tmp_path / run / STATE_FILE)[0] for run in "ab"]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    files = [(tmp_path / run / NETWORK_FILE).read_bytes() for run in "ab"]
    assert files[0] == files[1]
    scores = [trainer.predict_best(("test",))["test"] for trainer in (resumed, whole)]
    assert np.array_equal(*scores)
    kept = read_network(tmp_path / "a")[1]
    assert {name.removeprefix("backbone.") for name in kept if name.startswith("backbone.")} == set(
        TinyMixer().state_dict()
    )
    for name, tensor in mixer.module.state_dict().items():
        frozen = name not in ("layer1.weight", "layer2.weight")
        if "norm0.running" not in name and "num_batches" not in name:  # they follow the data
            assert torch.equal(kept[f"backbone.{name}"], tensor) == frozen, name


# --- the protocol -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom_runs(new_folder):
    """A tiny transformer fine-tuned on phantoms: all of it, by low-rank updates, its head alone."""
    folder = new_folder()
    (folder / "tiny.py").write_text(CODE)
    data = write_phantom("bloodmnist", 28, folder / "data", samples=500)
    ways = {
        "all": {},
        "lora": {"lora": 4},
        "head": {"trainable": "head", "norm_stats": "frozen"},
    }
    same = {"epochs": 6, "lr": 3e-3, "batch_size": 32, "runs": folder / "runs"}
    code = str(folder / "tiny.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_module, "draw_learning_curve", lambda *_: None)
        return {
            way: finetune(str(data), backbone=code, **same, **own)[0] for way, own in ways.items()
        }


def test_updates_come_close_to_full_fine_tuning_where_a_head_alone_does_not(phantom_runs):
    everything, lora, head = (phantom_runs[way] for way in ("all", "lora", "head"))
    assert lora.network.n_trainable < everything.network.n_trainable / 10
    assert everything.network.n_trainable == everything.network.n_parameters
    assert (lora.network.n_parameters, head.network.n_trainable) == (
        everything.network.n_parameters, 0,
    )  # fmt: skip
    losses = [run.metrics["val"]["loss"] for run in (everything, lora, head)]
    assert losses[1] < losses[0] + 0.5 * (losses[2] - losses[0])
    assert lora.metrics["test"]["auc"] > head.metrics["test"]["auc"] + 0.05


def test_a_run_is_a_backbone_as_ever(phantom_runs, tmp_path):
    record = phantom_runs["lora"]
    assert record.lora == 4
    assert phantom_runs["all"].lora is None
    assert record.run_id.startswith("paper-lora4-seed")
    spec, code = record.spec, record.spec.backbone
    store = medplus.extract(
        spec.dataset, spec.size, code, weights=f"{record.path}/{NETWORK_FILE}", precision="fp32",
        store=tmp_path, data_root=Path(spec.dataset).parent,
    )  # fmt: skip
    state = read_network(Path(record.path))[1]
    embeddings = torch.from_numpy(np.asarray(store.embeddings("test"), dtype=np.float32))
    logits = F.linear(embeddings, state["head.weight"], state["head.bias"])
    expected = read_predictions(Path(record.path))["test_score"]
    np.testing.assert_allclose(logits.softmax(1), expected, atol=1e-4)
