"""A head trained in the stack is the head that a plain torch loop trains."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medplus.config import ProbeRecipe
from medplus.heads.probe.stack import learning_rate_factor, train_heads

# The paper steps the schedule with an epoch, which torch would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")

TOLERANCE = 1e-5


@dataclass
class Plain:
    """What the plain loop found."""

    head: nn.Linear
    val_loss: float
    best_epoch: int
    epochs_run: int


def train_plainly(train, val, n_classes, recipe, seed, lr, weight_decay, multi_label):
    """Train one head as the paper's code does: nothing but torch."""
    x, y = train
    criterion = nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss()
    target, val_target = (
        (part.float() if multi_label else part[:, 0].long()) for part in (y, val[1])
    )
    torch.manual_seed(seed)
    head = nn.Linear(x.shape[1], n_classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=recipe.epochs)
    best, waited = Plain(head, float("inf"), 0, 0), 0
    for epoch in range(recipe.epochs):
        for rows in torch.randperm(len(x)).split(recipe.batch_size):
            optimiser.zero_grad()
            criterion(head(x[rows]), target[rows]).backward()
            optimiser.step()
        schedule.step(epoch)
        with torch.no_grad():
            loss = float(criterion(head(val[0]), val_target))
        best.epochs_run = epoch + 1
        if loss < best.val_loss:
            best = Plain(copy.deepcopy(head), loss, epoch + 1, epoch + 1)
            waited = 0
        else:
            waited += 1
            if waited == recipe.patience:
                break
    return best


def draw(task, n=(150, 60), dim=12, seed=0, noise=1.5):
    """Two splits of overlapping clouds, as tensors of embeddings and labels."""
    rng = np.random.default_rng(seed)
    n_classes = {"multi-class": 5, "binary": 2, "multi-label": 4}[task]
    centres = rng.normal(size=(n_classes, dim))
    splits = []
    for count in n:
        if task == "multi-label":
            y = rng.integers(0, 2, (count, n_classes))
            x = y @ centres
        else:
            y = rng.integers(0, n_classes, (count, 1))
            x = centres[y[:, 0]]
        x = (x + noise * rng.normal(size=x.shape)).astype("f4")
        splits.append((torch.from_numpy(x), torch.from_numpy(y.astype("u1"))))
    return splits, n_classes


def assert_equal_heads(heads, at, plain):
    weight, bias = heads.weight[at], heads.bias[at]
    np.testing.assert_allclose(weight, plain.head.weight.detach(), atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_allclose(bias, plain.head.bias.detach(), atol=TOLERANCE, rtol=TOLERANCE)
    assert float(heads.val_loss[at]) == pytest.approx(plain.val_loss, rel=TOLERANCE)
    assert int(heads.best_epoch[at]) == plain.best_epoch
    assert int(heads.epochs_run[at]) == plain.epochs_run


every_task = pytest.mark.parametrize("task", ["multi-class", "binary", "multi-label"])


@every_task
def test_every_head_of_the_grid_equals_a_plain_loop_whenever_it_stops(task):
    (train, val), n_classes = draw(task)
    recipe = ProbeRecipe(
        seeds=(3, 9930641), lr=(1e-3, 1e-2, 0.3), weight_decay=(0.0, 0.5), epochs=30, batch_size=64
    )
    multi_label = task == "multi-label"
    heads = train_heads(train, val, n_classes, recipe, multi_label=multi_label)
    grid = recipe
    stops = set()
    for i, seed in enumerate(grid.seeds):
        for j, (lr, decay) in enumerate(grid.settings):
            plain = train_plainly(train, val, n_classes, recipe, seed, lr, decay, multi_label)
            assert_equal_heads(heads, (i, j), plain)
            stops.add(plain.epochs_run)
    assert len(stops) >= 3  # early, late and not at all: the stack shrank on the way


@every_task
def test_the_papers_recipe_equals_a_plain_loop(task):
    (train, val), n_classes = draw(task, n=(70, 30))
    recipe = ProbeRecipe(seeds=(115149041,))
    multi_label = task == "multi-label"
    heads = train_heads(train, val, n_classes, recipe, multi_label=multi_label)
    plain = train_plainly(train, val, n_classes, recipe, 115149041, 1e-4, 0.01, multi_label)
    assert_equal_heads(heads, (0, 0), plain)


@pytest.mark.parametrize(("n", "batch_size"), [(64, 64), (65, 64), (10, 64), (7, 1), (50, 16)])
def test_batches_of_any_size_are_the_plain_loops(n, batch_size):
    (train, val), n_classes = draw("multi-class", n=(n, 20))
    recipe = ProbeRecipe(seeds=(1,), lr=(0.01,), epochs=4, batch_size=batch_size)
    heads = train_heads(train, val, n_classes, recipe)
    plain = train_plainly(train, val, n_classes, recipe, 1, 0.01, 0.01, False)
    assert_equal_heads(heads, (0, 0), plain)


@every_task
def test_a_head_does_not_depend_on_the_others_in_the_grid(task):
    (train, val), n_classes = draw(task)
    multi_label = task == "multi-label"
    recipe = ProbeRecipe(seeds=(7,), lr=(1e-2,), weight_decay=(0.01,), epochs=15)
    alone = train_heads(train, val, n_classes, recipe, multi_label=multi_label)
    wide = recipe.model_copy(
        update={"seeds": (1, 7, 2), "lr": (1e-4, 1e-2, 1.0), "weight_decay": (0.0, 0.01)}
    )
    among = train_heads(train, val, n_classes, wide, multi_label=multi_label)
    at = (1, wide.settings.index((1e-2, 0.01)))
    torch.testing.assert_close(among.weight[at], alone.weight[0, 0], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(among.bias[at], alone.bias[0, 0], atol=TOLERANCE, rtol=TOLERANCE)
    assert among.best_epoch[at] == alone.best_epoch[0, 0]
    assert among.epochs_run[at] == alone.epochs_run[0, 0]


def test_training_leaves_the_global_random_state_alone():
    (train, val), n_classes = draw("multi-class", n=(20, 20))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    train_heads(train, val, n_classes, ProbeRecipe(seeds=(1,), epochs=2))
    assert torch.equal(torch.random.get_rng_state(), before)


@every_task
def test_scores_are_the_probabilities_of_the_heads(task):
    (train, val), n_classes = draw(task)
    multi_label = task == "multi-label"
    recipe = ProbeRecipe(seeds=(1, 2), lr=(0.01, 0.1), epochs=3)
    heads = train_heads(train, val, n_classes, recipe, multi_label=multi_label)
    scores = heads.scores(val[0], multi_label)
    assert scores.shape == (2, 2, len(val[0]), n_classes)
    for i in range(2):
        for j in range(2):
            logits = nn.functional.linear(val[0], heads.weight[i, j], heads.bias[i, j])
            expected = logits.sigmoid() if multi_label else logits.softmax(-1)
            torch.testing.assert_close(scores[i, j], expected)


@given(epochs=st.integers(1, 120))
def test_learning_rate_is_that_of_torchs_schedule_stepped_with_each_epochs_index(epochs):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    for epoch in range(epochs):
        rate = optimiser.param_groups[0]["lr"]
        assert learning_rate_factor(epoch, epochs) == pytest.approx(rate, abs=1e-12)
        optimiser.step()
        schedule.step(epoch)


def test_epochs_are_reported_until_the_last_head_stops():
    (train, val), n_classes = draw("multi-class")
    reports = []
    recipe = ProbeRecipe(seeds=(1,), lr=(1e-3, 1.0), epochs=40, patience=2)
    heads = train_heads(train, val, n_classes, recipe, advance=reports.append)
    assert reports == [1] * int(heads.epochs_run.max())
    assert heads.epochs_run.min() < heads.epochs_run.max()


@pytest.mark.gpu
@every_task
def test_a_gpu_trains_the_heads_of_the_cpu(task):
    splits, n_classes = draw(task)
    multi_label = task == "multi-label"
    recipe = ProbeRecipe(seeds=(1, 2), lr=(1e-3, 1e-2), epochs=5)
    on_cpu = train_heads(*splits, n_classes, recipe, multi_label=multi_label)
    moved = [tuple(part.cuda() for part in split) for split in splits]
    on_gpu = train_heads(*moved, n_classes, recipe, multi_label=multi_label)
    torch.testing.assert_close(on_gpu.weight.cpu(), on_cpu.weight, atol=1e-4, rtol=1e-4)
