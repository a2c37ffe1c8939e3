"""A training that is saved and loaded goes on as if never interrupted; else nothing is touched."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from medplus.errors import RunError
from medplus.tensorfile import write_tensors
from medplus.training.checkpoint import TrainingState

SGD = torch.optim.SGD
ADAMW = torch.optim.AdamW
OPTIMIZERS = {
    "AdamW": lambda groups: ADAMW(groups, 1e-2, weight_decay=0.1),
    "AdamW, fused": lambda groups: ADAMW(groups, 1e-2, fused=True),
    "SGD": lambda groups: SGD(groups, 1e-2),
    "SGD, momentum": lambda groups: SGD(groups, 1e-2, momentum=0.9, nesterov=True),
    "SGD, fused": lambda groups: SGD(groups, 1e-2, momentum=0.9, fused=True),
}


class TinyNetwork(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(4 * 36, classes)
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x):
        self.n_seen += len(x)
        return self.head(self.backbone(x))


class Average(nn.Module):
    """A moving average, as in timm's `ModelEmaV3`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        for mine, theirs in zip(self.module.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)
        for mine, theirs in zip(self.module.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


class Training:
    """A small training with everything that has a state."""

    def __init__(
        self, optimizer="AdamW", seed=0, channels_last=False, classes=3, device="cpu", scaler=None
    ):
        torch.manual_seed(seed)
        self.device = device
        self.network = TinyNetwork(classes).to(device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        body, head = self.network.backbone, self.network.head
        groups = [  # the head first, and a rate of its own for each, as with layer decay
            {"params": list(head.parameters())},
            {"params": list(body.parameters()), "lr": 3e-3, "lr_scale": 0.3},
        ]
        self.optimizer = OPTIMIZERS[optimizer](groups)
        self.average = Average(self.network)
        self.order = torch.Generator().manual_seed(seed)
        self.scaler = scaler
        self.losses: list[float] = []

    def run(self, steps):
        self.network.train()
        for _ in range(steps):
            step = len(self.losses)
            batch = torch.rand(8, 3, 8, 8, generator=self.order).to(self.device)
            torch.manual_seed(step)  # the trainer seeds each step, so dropout needs no state
            loss = self.network(batch).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            for group in self.optimizer.param_groups:  # a schedule
                group["lr"] = group["lr"] * 0.9
            self.average.update(self.network)
            self.losses.append(float(loss.detach()))
        return self

    @property
    def objects(self):
        return TrainingState(self.network, self.optimizer, self.order, self.average, self.scaler)

    def save(self, path, identity="run"):
        self.objects.save(path, {"losses": self.losses}, identity)

    def load(self, path, identity="run"):
        self.losses = self.objects.load(path, identity)["losses"]
        return self

    def state(self):
        return copy.deepcopy(
            {
                "network": named(self.network),
                "average": named(self.average),
                "optimizer": self.optimizer.state_dict(),
                "order": self.order.get_state(),
                "scaler": self.scaler.state_dict() if self.scaler else None,
                "losses": self.losses,
            }
        )


def named(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_equal(a, b):
    """Equal to the last bit and in type, whatever the nesting."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        assert a.stride() == b.stride()
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.safetensors"


# --- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels_last"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_training_equals_uninterrupted_training(path, optimizer, channels_last):
    uninterrupted = Training(optimizer, channels_last=channels_last).run(7)
    Training(optimizer, channels_last=channels_last).run(4).save(path)
    resumed = Training(optimizer, seed=1, channels_last=channels_last).load(path)
    assert len(resumed.losses) == 4
    assert_equal(resumed.run(3).state(), uninterrupted.state())


def test_loaded_state_equals_saved_state(path):
    training = Training().run(3)
    before = training.state()
    training.save(path)
    assert_equal(training.state(), before)  # saving changes nothing
    assert_equal(Training(seed=1).load(path).state(), before)


def test_state_before_the_first_step_can_be_loaded(path):
    training = Training()
    training.save(path)
    assert_equal(Training(seed=1).run(2).load(path).run(2).state(), training.run(2).state())


def test_loaded_state_is_independent_of_the_file(path):
    Training().run(2).save(path)
    resumed = Training().load(path)
    state = resumed.state()
    path.unlink()
    assert_equal(resumed.state(), state)


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels_last"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_on_a_gpu_goes_on_the_same(path, optimizer, channels_last):
    settings = {"channels_last": channels_last, "device": "cuda"}
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        uninterrupted = Training(optimizer, **settings).run(7)
        Training(optimizer, **settings).run(4).save(path)
        resumed = Training(optimizer, seed=1, **settings).load(path).run(3)
    finally:
        torch.backends.cudnn.deterministic = before
    assert_equal(resumed.state(), uninterrupted.state())


def test_frozen_parameters_stay_out_of_the_optimizer_and_in_the_file(path):
    def head_only(seed):
        torch.manual_seed(seed)
        network = TinyNetwork()
        network.backbone.requires_grad_(False)
        return TrainingState(network, ADAMW(network.head.parameters()), torch.Generator())

    state, other = head_only(0), head_only(1)
    state.network(torch.rand(2, 3, 8, 8)).sum().backward()
    state.optimizer.step()
    state.save(path, {}, "run")
    other.load(path, "run")
    assert_equal(named(other.network), named(state.network))
    assert_equal(other.optimizer.state_dict(), state.optimizer.state_dict())
    assert len(other.optimizer.state_dict()["state"]) == 2


def test_tied_weights_stay_tied(path):
    def tied(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        network[1].weight = network[0].weight
        return TrainingState(network, SGD(network.parameters(), 0.1), torch.Generator())

    state, other = tied(0), tied(1)
    state.save(path, {}, "run")
    other.load(path, "run")
    assert other.network[1].weight is other.network[0].weight
    assert torch.equal(other.network[0].weight, state.network[0].weight)


def test_loss_scale_goes_on(path):
    scaler = torch.amp.GradScaler("cpu", init_scale=0.1, growth_interval=7)
    Training(scaler=scaler).save(path)
    other = Training(scaler=torch.amp.GradScaler("cpu")).load(path).scaler
    assert other.state_dict() == scaler.state_dict()


# --- refused ----------------------------------------------------------------------------------


def assert_refused(training, path, match, identity="run"):
    before = training.state()
    with pytest.raises(RunError, match=match) as caught:
        training.load(path, identity)
    message = str(caught.value)
    assert str(path) in message
    assert "--no-resume" in message
    assert "\n" not in message
    assert_equal(training.state(), before)
    return message


def test_every_kind_of_damage_is_refused(path):
    Training().run(1).save(path)
    content = path.read_bytes()
    training = Training(seed=1).run(1)
    for length in [0, 1, 7, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        assert_refused(training, path, "damaged")
    for position in random.Random(0).sample(range(len(content)), 50):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert "delete it" in assert_refused(training, path, "damaged")


def test_state_of_another_run_is_refused(path):
    Training().run(1).save(path, "lr 1e-4")
    assert_refused(Training(seed=1).run(1), path, "other settings", identity="lr 1e-3")


def test_tensor_file_that_is_no_state_is_refused(path):
    write_tensors(path, {"head.weight": torch.zeros(3, 144)}, {"format": 1})
    assert_refused(Training(), path, "not a training state")


def test_state_of_another_shape_is_refused(path):
    Training(classes=4).run(1).save(path)
    message = assert_refused(Training().run(1), path, "of another network")
    assert "head." in message
    assert "(3," in message
    assert "(4," in message


def test_state_of_parameters_in_another_order_is_refused(path):
    Training().run(1).save(path)
    training = Training(seed=1).run(1)
    groups = training.optimizer.param_groups
    groups[0]["params"], groups[1]["params"] = groups[1]["params"], groups[0]["params"]
    assert_refused(training, path, "grouped differently")
