"""One step of training, against torch's own criteria, optimisers and clipping."""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.config import FinetuneRecipe
from medplus.training.launch import make_fabric
from medplus.training.network import build_network, set_training_mode
from medplus.training.step import Stepper

TASKS = ["multi-class", "binary-class", "ordinal-regression", "multi-label, binary-class"]
MULTI_LABEL = TASKS[-1]
PLAIN = {"lr": 0.05, "optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0}


class OneOfSeveral:
    """What a step needs of Fabric, for one of several processes; gradients stay its own."""

    device = torch.device("cpu")
    strategy = None

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world

    def setup(self, network, optimizer):
        return network, optimizer

    def no_backward_sync(self, module, enabled):
        self.waits = [*getattr(self, "waits", []), enabled]
        return nullcontext()

    def backward(self, loss):
        loss.backward()


@pytest.fixture
def new_stepper(fabric, tiny_backbone):
    """A stepper on a new network in its training mode, and that network."""

    def make(images, recipe, seed=0, fabric=fabric, compiled=False, **tiny):
        backbone = tiny_backbone(**tiny)
        order = torch.Generator().manual_seed(seed)
        network = build_network(backbone, 12, images.n_classes, recipe, order)
        set_training_mode(network, recipe)
        return Stepper(
            fabric, network, images, backbone.preprocess, recipe, seed, compiled
        ), network

    return make


def make_step(stepper, images, rows, epoch=0, step=0):
    """One step on rows of train; the sum of the losses."""
    train = images.splits["train"]
    parts = iter(
        [
            (torch.from_numpy(train.images[part]), torch.from_numpy(train.labels[part]).long())
            for part in (rows.numpy() for rows in stepper.share(torch.as_tensor(rows)))
        ]
    )
    loss = stepper(parts, len(rows), epoch, step)
    assert next(parts, None) is None  # all were used
    return loss


def pixels_of(images, rows, canvas=None):
    """What the network should see, by the arithmetic of the paper's transforms."""
    x = images.splits["train"].images[rows]
    x = np.repeat(x[..., None], 3, -1) if x.ndim == 3 else x
    x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    x = (x - mean) / std
    border = ((canvas or 8) - 8) // 2
    return F.pad(x, (border,) * 4).contiguous()


def labels_of(images, rows):
    return torch.from_numpy(images.splits["train"].labels[rows]).long()


def plain_loss(logits, labels, task, smoothing=0.0):
    if task == MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    return F.cross_entropy(logits, labels[:, 0], label_smoothing=smoothing)


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_close(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def assert_equal(a, b):
    assert_close(a, b, rtol=0, atol=0)


def differs(a, b):
    return any(not torch.equal(a[name], b[name]) for name in a)


# --- a step is torch's ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("task", TASKS)
def test_steps_of_the_paper_are_plain_torch(new_stepper, learnable, task, trainable, channels):
    images = learnable(task, channels=channels)
    stepper, network = new_stepper(images, FinetuneRecipe(trainable=trainable, channels_last=False))
    plain = copy.deepcopy(network)
    learning = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, 1e-4, weight_decay=0.01)
    for step, rows in enumerate([np.arange(16), np.arange(20, 37), np.array([49])]):
        loss_sum = make_step(stepper, images, rows, step=step)
        loss = plain_loss(plain(pixels_of(images, rows)), labels_of(images, rows), task)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss_sum.dtype == torch.float64
        assert float(loss_sum) == pytest.approx(float(loss.detach()) * len(rows), rel=1e-6)
    assert_close(weights(network), weights(plain), rtol=0, atol=1e-7)


def test_steps_of_sgd_are_plain_torch(new_stepper, learnable):
    images = learnable()
    recipe = FinetuneRecipe(**PLAIN | {"weight_decay": 0.1})
    stepper, network = new_stepper(images, recipe)
    plain = copy.deepcopy(network)
    optimizer = torch.optim.SGD(
        plain.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=0.1
    )
    for step in range(4):
        rows = np.arange(10 * step, 10 * step + 10)
        make_step(stepper, images, rows, step=step)
        optimizer.zero_grad()
        plain_loss(
            plain(pixels_of(images, rows)), labels_of(images, rows), "multi-class"
        ).backward()
        optimizer.step()
    assert_close(weights(network), weights(plain), rtol=1e-5, atol=1e-6)


def test_the_images_are_padded_to_the_canvas(new_stepper, learnable):
    images, rows = learnable(), np.arange(16)
    stepper, network = new_stepper(images, FinetuneRecipe(**PLAIN), canvas=14)
    logits = copy.deepcopy(network)(pixels_of(images, rows, 14))
    expected = plain_loss(logits, labels_of(images, rows), "multi-class")
    assert float(make_step(stepper, images, rows)) == pytest.approx(16 * float(expected.detach()))


@pytest.mark.parametrize("max_norm", [0.01, 1e9])
def test_the_whole_gradient_is_clipped(new_stepper, learnable, max_norm):
    images, rows = learnable(), np.arange(16)
    recipe = FinetuneRecipe(**PLAIN, clip_grad=max_norm, accumulate=4)
    stepper, network = new_stepper(images, recipe, norm=False)
    plain = copy.deepcopy(network)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9, nesterov=True)
    plain_loss(plain(pixels_of(images, rows)), labels_of(images, rows), "multi-class").backward()
    norm = nn.utils.clip_grad_norm_(plain.parameters(), max_norm)
    assert 0.01 < norm < 1e9
    optimizer.step()
    make_step(stepper, images, rows)
    assert_close(weights(network), weights(plain), rtol=1e-5, atol=1e-7)


def test_the_rate_is_the_schedules(new_stepper, learnable):
    images = learnable()
    recipe = FinetuneRecipe(lr=0.5, schedule="paper", epochs=3, layer_decay=0.5)
    stepper, _ = new_stepper(images, recipe)
    for epoch, factor in enumerate([1, 1, 0.75]):
        make_step(stepper, images, np.arange(4), epoch=epoch, step=epoch)
        assert stepper.lr == pytest.approx(0.5 * factor)
        lowest = min(group["lr"] for group in stepper.optimizer.param_groups)
        assert lowest == pytest.approx(0.5 * factor * 0.5)


def test_a_cosine_reaches_its_end_in_the_last_step(new_stepper, learnable):
    images = learnable()  # 50 images: 4 steps of at most 16 per epoch
    stepper, _ = new_stepper(images, FinetuneRecipe(schedule="cosine", epochs=2, batch_size=16))
    rates = []
    for step in range(8):
        make_step(stepper, images, np.arange(4), epoch=step // 4, step=step)
        rates.append(stepper.lr)
    assert rates == pytest.approx([1e-4 * 0.5 * (1 + np.cos(np.pi * i / 8)) for i in range(8)])


def test_bf16_steps_are_close_to_fp32_steps(new_stepper, learnable):
    images, rows = learnable(), np.arange(16)
    bf16 = make_fabric(torch.device("cpu"), 1, "bf16")
    single, network = new_stepper(images, FinetuneRecipe(**PLAIN), norm=False)
    half, half_network = new_stepper(images, FinetuneRecipe(**PLAIN), fabric=bf16, norm=False)
    before = weights(network)
    losses = [float(make_step(stepper, images, rows)) for stepper in (single, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    for name, value in half_network.state_dict().items():
        assert value.dtype == torch.float32
        moved, expected = value - before[name], network.state_dict()[name] - before[name]
        assert (moved - expected).norm() < 0.05 * expected.norm(), name


def test_a_compiled_step_changes_the_same_network(new_stepper, learnable, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    images, rows = learnable(), np.arange(16)
    results = []
    for compiled in (False, True):
        recipe = FinetuneRecipe(**PLAIN, ema=0.5)
        stepper, network = new_stepper(images, recipe, compiled=compiled)
        for step in range(2):
            make_step(stepper, images, rows, step=step)
        results.append((weights(network), weights(stepper.average.module)))
    assert_close(results[1][0], results[0][0])
    assert_close(results[1][1], results[0][1])


# --- accumulation -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
@pytest.mark.parametrize("n", [16, 15, 5, 4, 3, 1])
def test_accumulated_steps_equal_whole_steps(new_stepper, learnable, n, task):
    images = learnable(task)
    results = []
    for accumulate in (1, 4):
        recipe = FinetuneRecipe(**PLAIN, accumulate=accumulate)
        stepper, network = new_stepper(images, recipe, norm=False)
        losses = [float(make_step(stepper, images, np.arange(n) + i, step=i)) for i in range(3)]
        results.append((losses, weights(network)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    assert_close(results[1][1], results[0][1], rtol=1e-5, atol=1e-6)


def test_every_backward_pass_has_a_part_of_the_images(new_stepper, learnable):
    images = learnable()
    stepper, network = new_stepper(images, FinetuneRecipe(**PLAIN, accumulate=4))
    seen = []
    network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    make_step(stepper, images, np.arange(10))
    assert sorted(seen) == [2, 2, 3, 3]


# --- several processes ------------------------------------------------------------------------


class Sharing(Stepper):
    """Only what shares rows out."""

    def __init__(self, rank, world, accumulate):
        self.fabric = OneOfSeveral(rank, world)
        self.recipe = FinetuneRecipe(accumulate=accumulate)


@given(n=st.integers(1, 70), world=st.integers(1, 9), accumulate=st.integers(1, 9))
def test_rows_are_shared_out_once_in_equally_many_parts(n, world, accumulate):
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    shares = [Sharing(rank, world, accumulate).share(rows) for rank in range(world)]
    everything = torch.cat([part for parts in shares for part in parts])
    assert sorted(everything.tolist()) == list(range(n))
    counts = {len(parts) for parts in shares}
    assert len(counts) == 1
    assert 1 <= counts.pop() <= accumulate
    largest = -(-n // world)
    assert max(len(part) for parts in shares for part in parts) <= -(
        -largest // min(accumulate, largest)
    )


@pytest.mark.parametrize(
    ("n", "world", "accumulate"), [(16, 2, 1), (7, 2, 3), (5, 3, 2), (2, 4, 1)]
)
def test_processes_average_to_the_step_of_one(new_stepper, learnable, n, world, accumulate):
    images, rows = learnable(), np.arange(n)
    recipe = FinetuneRecipe(**PLAIN, accumulate=accumulate)
    alone, network = new_stepper(images, recipe, norm=False)
    loss = float(make_step(alone, images, rows))
    losses, moved = [], []
    for rank in range(world):
        stepper, own = new_stepper(images, recipe, fabric=OneOfSeveral(rank, world), norm=False)
        losses.append(float(make_step(stepper, images, rows)))
        moved.append(weights(own))
    # The first step of SGD is linear in the gradient, so averages may be taken after it.
    average = {name: torch.stack([m[name] for m in moved]).mean(0) for name in moved[0]}
    assert sum(losses) == pytest.approx(loss, rel=1e-6)
    assert_close(average, weights(network), rtol=1e-5, atol=1e-7)


def test_processes_exchange_gradients_once_per_step(new_stepper, learnable):
    fabric = OneOfSeveral(0, 2)
    images = learnable()
    stepper, _ = new_stepper(images, FinetuneRecipe(**PLAIN, accumulate=3), fabric=fabric)
    make_step(stepper, images, np.arange(12))
    assert fabric.waits == [True, True, False]


def test_an_empty_share_moves_nothing_but_has_a_gradient(new_stepper, learnable):
    images = learnable()
    for mixup in (0.0, 1.0):
        recipe = FinetuneRecipe(**PLAIN, mixup=mixup, flip="dihedral")
        stepper, network = new_stepper(images, recipe, fabric=OneOfSeveral(1, 2), norm=False)
        before = weights(network)
        reached: list[int] = []
        for parameter in network.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p, reached=reached: reached.append(id(p))
            )
        assert float(make_step(stepper, images, np.arange(1))) == 0
        assert_equal(before, weights(network))
        assert set(reached) == {id(p) for p in network.parameters()}  # the others wait for it


# --- chance -----------------------------------------------------------------------------------

EVERYTHING = {
    "mixup": 0.4,
    "cutmix": 1.0,
    "flip": "dihedral",
    "rotate": 30.0,
    "brightness": 0.3,
    "ema": 0.9,
}


def seen_by(stepper, network, images, rows, **when):
    """What the network is given in a step, before and after dropout."""
    seen = []
    hooks = [
        network.backbone.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].clone())
        ),
        network.head.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].detach().clone() == 0)
        ),
    ]
    make_step(stepper, images, rows, **when)
    for hook in hooks:
        hook.remove()
    return seen


def test_chance_in_a_step_depends_on_seed_and_step_alone(new_stepper, learnable):
    images, rows = learnable(), np.arange(16)
    recipe = FinetuneRecipe(**PLAIN, **EVERYTHING)

    def see(steps, seed=0, fabric=None):
        given = {"fabric": fabric} if fabric else {}
        stepper, network = new_stepper(images, recipe, seed=seed, dropout=0.5, **given)
        for step in steps[:-1]:
            make_step(stepper, images, rows, step=step)
        return seen_by(stepper, network, images, rows, step=steps[-1])

    def same(a, b):
        return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]

    direct = see([7])
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert same(see([3, 2, 7]), direct)[0]  # the weights differ by then, the images do not
    assert same(see([7]), direct) == [True, True]
    assert same(see([8]), direct) == [False, False]
    assert same(see([7], seed=1), direct) == [False, False]


def test_processes_draw_different_numbers(new_stepper, learnable):
    images = learnable()
    images.splits["train"].images[1] = images.splits["train"].images[0]
    recipe = FinetuneRecipe(**PLAIN, rotate=90, brightness=1)
    seen = []
    for rank in range(2):
        stepper, network = new_stepper(images, recipe, fabric=OneOfSeveral(rank, 2))
        seen.append(seen_by(stepper, network, images, np.arange(2))[0])
    assert not torch.equal(*seen)


def test_augmentation_happens_before_padding(new_stepper, learnable):
    images, rows = learnable(), np.arange(16)
    recipe = FinetuneRecipe(**PLAIN, brightness=1.0, rotate=180)
    stepper, network = new_stepper(images, recipe, canvas=14)
    seen = seen_by(stepper, network, images, rows)[0]
    assert not torch.equal(seen, pixels_of(images, rows, 14))
    seen[:, :, 3:-3, 3:-3] = 0
    assert not seen.any()


# --- mixing -----------------------------------------------------------------------------------


def mixed_step(new_stepper, images, rows, canvas=None, step=0, **recipe):
    """Pixels before and after mixing, the logits, and the loss, of one step."""
    recipe = FinetuneRecipe(**PLAIN, **recipe)
    stepper, network = new_stepper(images, recipe, canvas=canvas)
    seen, logits = [], []
    network.backbone.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].clone())
    )
    network.register_forward_hook(lambda module, inputs, output: logits.append(output.detach()))
    for i in range(step):
        make_step(stepper, images, rows, step=i)
    loss = float(make_step(stepper, images, rows, step=step))
    return pixels_of(images, rows, canvas), seen[-1], logits[-1], loss


def mixed_loss(logits, labels, task, share, smoothing=0.0):
    """The sum of the losses for both labels of each image, weighted by what is seen of each."""
    pairs = (labels, labels.flip(0))
    first, second = (plain_loss(logits, y, task, smoothing) for y in pairs)
    return len(labels) * float(share * first + (1 - share) * second)


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("task", ["multi-class", "binary-class", MULTI_LABEL])
def test_mixup_blends_images_and_losses_alike(new_stepper, learnable, task, step):
    images, rows = learnable(task), np.arange(16)
    smoothing = 0.0 if task == MULTI_LABEL else 0.1
    x, seen, logits, loss = mixed_step(
        new_stepper, images, rows, step=step, mixup=1.0, label_smoothing=smoothing
    )
    other = x.flip(0)
    share = float(((seen - other) * (x - other)).sum() / (x - other).square().sum())
    assert 0.01 < share < 0.99
    torch.testing.assert_close(seen, share * x + (1 - share) * other, rtol=1e-4, atol=1e-5)
    expected = mixed_loss(logits, labels_of(images, rows), task, share, smoothing)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_mixup_is_timms_for_the_steps_seed(new_stepper, learnable):
    images, rows = learnable(), np.arange(16)
    x, seen, logits, loss = mixed_step(new_stepper, images, rows, mixup=0.4)
    state = np.random.RandomState(np.random.SeedSequence((0, 0, 0)).generate_state(3)[1])
    state.rand()  # whether to mix at all, with probability 1
    share = state.beta(0.4, 0.4)
    torch.testing.assert_close(seen, share * x + (1 - share) * x.flip(0))
    expected = mixed_loss(logits, labels_of(images, rows), "multi-class", share)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("canvas", [None, 14])
@pytest.mark.parametrize("task", ["multi-class", MULTI_LABEL])
def test_cutmix_pastes_a_box_and_weighs_losses_by_its_share_of_the_image(
    new_stepper, learnable, task, canvas
):
    images, rows = learnable(task), np.arange(16)
    shares = []
    for step in range(6):
        x, seen, logits, loss = mixed_step(new_stepper, images, rows, canvas, step, cutmix=1.0)
        pasted = (seen != x).any(0).any(0)
        shares.append(1 - float(pasted.sum()) / 8**2)  # of the image, not of what it is padded to
        assert torch.equal(seen, torch.where(pasted, x.flip(0), x))
        assert torch.equal(pasted, pasted.any(1)[:, None] & pasted.any(0))  # a rectangle
        expected = mixed_loss(logits, labels_of(images, rows), task, shares[-1])
        assert loss == pytest.approx(expected, rel=1e-5)
    assert len(set(shares)) > 2


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_of_an_odd_batch_the_last_image_stays_as_it_is(new_stepper, learnable, kind):
    images, rows = learnable(), np.arange(15)
    x, seen, logits, loss = mixed_step(new_stepper, images, rows, step=3, **{kind: 1.0})
    labels = labels_of(images, rows)
    assert torch.equal(seen[-1], x[-1])
    assert not torch.equal(seen[:-1], x[:-1])
    alone = float(plain_loss(logits[-1:], labels[-1:], "multi-class"))
    even, other = x[:-1], x[:-1].flip(0)
    if kind == "mixup":
        share = float(((seen[:-1] - other) * (even - other)).sum() / (even - other).square().sum())
    else:
        share = 1 - float((seen[:-1] != even).any(0).any(0).float().mean())
    expected = mixed_loss(logits[:-1], labels[:-1], "multi-class", share) + alone
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_leaves_the_padding_and_the_next_batch_alone(new_stepper, learnable, kind):
    images = learnable()
    recipe = FinetuneRecipe(**PLAIN, **{kind: 1.0})
    stepper, network = new_stepper(images, recipe, canvas=14)
    for step in range(6):
        rows = np.arange(16 if step % 2 else 10) + step
        seen = seen_by(stepper, network, images, rows, step=step)[0]
        x = pixels_of(images, rows, 14)
        between = torch.minimum(x, x.flip(0)) - 1e-5, torch.maximum(x, x.flip(0)) + 1e-5
        assert ((between[0] <= seen) & (seen <= between[1])).all()


def test_the_dataset_itself_is_never_changed(new_stepper, learnable):
    images = learnable()
    before = copy.deepcopy(images.splits["train"])
    stepper, _ = new_stepper(images, FinetuneRecipe(**PLAIN, **EVERYTHING, label_smoothing=0.1))
    for step in range(3):
        make_step(stepper, images, np.arange(16), step=step)
    assert np.array_equal(before.images, images.splits["train"].images)
    assert np.array_equal(before.labels, images.splits["train"].labels)


# --- average ----------------------------------------------------------------------------------


def test_the_average_follows_every_step(new_stepper, learnable):
    images = learnable()
    stepper, network = new_stepper(images, FinetuneRecipe(**PLAIN, ema=0.7))
    expected = None
    for step in range(5):
        make_step(stepper, images, np.arange(16), step=step)
        kept = min(0.7, 1 - (1 + step) ** -0.75)
        now = {name: value.double() for name, value in weights(network).items()}
        expected = {n: kept * (expected or now)[n] + (1 - kept) * now[n] for n in now}
    for name, value in stepper.average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert differs(weights(network), weights(stepper.average.module))
