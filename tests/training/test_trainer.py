"""A training is a plain torch loop, and an interrupted one ends as one that never was."""

from __future__ import annotations

import copy
import math
import os
import re
import signal
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import roc_auc_score
from torch import nn

from medplus.backbones.finetuned import NETWORK_FILE, read_network
from medplus.config import FinetuneRecipe
from medplus.errors import RunError
from medplus.tensorfile import read_tensors
from medplus.training import folder as folder_module
from medplus.training import trainer as trainer_module
from medplus.training.folder import CURVE_FILE, STATE_FILE
from medplus.training.network import keeps_channels_last
from medplus.training.tracking import Tracker
from medplus.training.watch import Watch

pytestmark = pytest.mark.usefixtures("fast_disk", "no_picture")

MULTI_LABEL = "multi-label, binary-class"
TASKS = ["multi-class", "binary-class", MULTI_LABEL]


@pytest.fixture(autouse=True)
def hears_ctrl_c():
    """Ctrl-C is heard, as in a terminal; what runs in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- the plain loop ---------------------------------------------------------------------------


@dataclass
class Plain:
    """What the plain loop found."""

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_acc: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: dict[str, torch.Tensor] = field(default_factory=dict)


def load(split, task):
    """Pixels and targets as torch's criteria take them, by the paper's transforms."""
    x = torch.from_numpy(split.images).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    labels = torch.from_numpy(split.labels).long()
    return (x - mean) / std, labels.float() if task == MULTI_LABEL else labels[:, 0]


def train_plainly(backbone, images, recipe, seed):
    """Train as the paper's code does: nothing but torch."""
    multi_label = images.task == MULTI_LABEL
    criterion = nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss()
    data = {split: load(images.splits[split], images.task) for split in images.splits}
    x, y = data["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(12, images.n_classes)
        chance = torch.Generator()
        chance.set_state(torch.get_rng_state())  # so that dropout would not disturb the order
    network = nn.ModuleDict({"backbone": copy.deepcopy(backbone), "head": head})
    # As fine-tuning keeps them on a CPU: in another order sums are rounded otherwise.
    network.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    learns = network if recipe.trainable == "all" else head
    optimizer = torch.optim.AdamW(learns.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    found, waited = Plain(), 0
    for epoch in range(recipe.epochs):
        factor = 0.5 * (1 + math.cos(math.pi * max(epoch - 1, 0) / recipe.epochs))
        optimizer.param_groups[0]["lr"] = recipe.lr * factor
        network.train()
        if recipe.norm_stats == "frozen":  # the tiny backbone has no dropout
            network["backbone"].eval()
        total = 0.0
        for rows in torch.randperm(len(x), generator=chance).split(recipe.batch_size):
            loss = criterion(head(network["backbone"](x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        network.eval()
        with torch.no_grad():
            logits = {s: head(network["backbone"](data[s][0])) for s in ("val", "test")}
        target = data["val"][1]
        right = (
            (logits["val"] > 0) == target.bool()
            if multi_label
            else logits["val"].argmax(1) == target
        )
        found.train_loss.append(total / len(x))
        found.val_loss.append(float(criterion(logits["val"], target)))
        found.val_acc.append(float(right.float().mean()))
        waited += 1
        if found.val_loss[-1] == min(found.val_loss):
            waited, found.best_epoch = 0, epoch + 1
            found.best = copy.deepcopy(network.state_dict())
            activation = torch.sigmoid if multi_label else lambda z: z.softmax(1)
            found.scores = {s: activation(z) for s, z in logits.items()}
        if waited == recipe.patience:
            break
    return found


def column(progress, name):
    return [getattr(row, name) for row in progress.history]


def assert_is(trainer, path, plain, tolerance=1e-6):
    """A finished training equals what the plain loop found; `tolerance` is that of weights."""
    progress = trainer.progress
    close = {"rel": 0, "abs": 1e-6}
    assert column(progress, "epoch") == list(range(1, len(plain.val_loss) + 1))
    assert column(progress, "train_loss") == pytest.approx(plain.train_loss, **close)
    assert column(progress, "val_loss") == pytest.approx(plain.val_loss, **close)
    assert column(progress, "val_acc") == pytest.approx(plain.val_acc, **close)
    assert progress.best_epoch == plain.best_epoch
    description, state = read_network(path)
    assert description.epoch == plain.best_epoch
    assert state.keys() == plain.best.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, plain.best[name], rtol=0, atol=tolerance)
    for split, scores in trainer.predict_best(("val", "test")).items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, plain.scores[split], rtol=0, atol=1e-6)


@pytest.mark.parametrize("lr", [1e-4, 1e-2])
@pytest.mark.parametrize(
    ("trainable", "norm_stats"),
    [("all", "update"), ("all", "frozen"), ("head", "update"), ("head", "frozen")],
)
@pytest.mark.parametrize("task", TASKS)
def test_paper_recipe_is_the_plain_loop(
    new_trainer, tiny_backbone, learnable, tmp_path, task, trainable, norm_stats, lr
):
    images = learnable(task)  # 50 images: the last batch of 16 has 2
    recipe = FinetuneRecipe(
        epochs=3, batch_size=16, lr=lr, trainable=trainable, norm_stats=norm_stats
    )
    plain = train_plainly(tiny_backbone().module, images, recipe, seed=7)
    trainer = new_trainer(recipe, images, tmp_path, seed=7)
    trainer.fit()
    # A mean over labels and samples at once is rounded otherwise than one after the other.
    assert_is(trainer, tmp_path, plain, 1e-6 if task == MULTI_LABEL else 1e-7)


def test_training_stops_where_the_plain_loop_stops(new_trainer, tiny_backbone, learnable, tmp_path):
    images = learnable(shuffled=True)  # which is learned, and does not help on val
    recipe = FinetuneRecipe(epochs=40, batch_size=16, lr=0.02, patience=3)
    plain = train_plainly(tiny_backbone(norm=False).module, images, recipe, seed=0)
    assert 3 < len(plain.val_loss) < 40
    trainer = new_trainer(recipe, images, tmp_path, norm=False)
    trainer.fit()
    assert_is(trainer, tmp_path, plain)


# --- epochs -----------------------------------------------------------------------------------


@pytest.fixture
def unlucky(new_trainer, learnable, tmp_path):
    """A training that is stopped early, finished."""
    recipe = FinetuneRecipe(epochs=40, batch_size=16, lr=0.02, patience=4, schedule="constant")
    trainer = new_trainer(recipe, learnable(shuffled=True), tmp_path)
    trainer.fit()
    return trainer


def test_best_epoch_is_the_historys_lowest_val_loss(unlucky, tmp_path):
    progress = unlucky.progress
    losses = column(progress, "val_loss")
    assert progress.best_epoch == int(np.argmin(losses)) + 1
    assert progress.best_loss == min(losses)
    assert column(progress, "best") == [
        loss < min([math.inf, *losses[:i]]) for i, loss in enumerate(losses)
    ]
    description, _ = read_network(tmp_path)
    assert (description.epoch, description.val_loss) == (progress.best_epoch, min(losses))


def test_of_equal_val_losses_the_first_is_the_best(new_trainer, learnable, tmp_path):
    recipe = FinetuneRecipe(epochs=9, batch_size=16, lr=1e-30, weight_decay=0, patience=3)
    progress = new_trainer(recipe, learnable(), tmp_path, norm=False).fit()
    assert len(set(column(progress, "val_loss"))) == 1  # steps too small for float32
    assert (progress.best_epoch, progress.epoch) == (1, 4)


@pytest.mark.parametrize("task", TASKS)
def test_val_scores_are_those_of_the_epochs_network(new_trainer, learnable, tmp_path, task):
    images = learnable(task, n=(50, 150, 20))  # val takes more than one batch
    trainer = new_trainer(FinetuneRecipe(epochs=1, lr=1e-2), images, tmp_path)
    (row,) = trainer.fit().history
    scores = torch.from_numpy(trainer.predict_best(("val",))["val"]).double()
    truth = load(images.splits["val"], task)[1]
    if task == MULTI_LABEL:
        loss = F.binary_cross_entropy(scores, truth.double())
        area = roc_auc_score(truth, scores, average="macro")
        accuracy = float(((scores > 0.5) == truth.bool()).float().mean())
    else:
        loss = F.nll_loss(scores.log(), truth)
        flags = F.one_hot(truth)
        area = roc_auc_score(flags, scores, average="macro")
        accuracy = float((scores.argmax(1) == truth).float().mean())
    assert row.val_loss == pytest.approx(float(loss), rel=1e-5)
    assert row.val_auc == pytest.approx(area, abs=1e-9)
    assert row.val_acc == pytest.approx(accuracy)
    assert row.best


def test_an_undefined_auc_is_told_as_such(new_trainer, learnable, tmp_path):
    images = learnable(n=(50, 2, 20))  # val lacks a class
    progress = new_trainer(FinetuneRecipe(epochs=1), images, tmp_path).fit()
    assert progress.history[0].val_auc is None
    assert math.isfinite(progress.history[0].val_loss)


def test_the_average_is_what_is_judged_and_kept(new_trainer, learnable, tmp_path):
    recipe = FinetuneRecipe(epochs=2, batch_size=16, lr=1e-2, ema=0.9)
    images = learnable()
    trainer = new_trainer(recipe, images, tmp_path)
    progress = trainer.fit()
    assert progress.best_epoch == 2
    tensors, _ = read_tensors(tmp_path / STATE_FILE)
    _, best = read_network(tmp_path)
    for name, value in best.items():
        assert torch.equal(value, tensors[f"ema.{name}"]), name
    assert not torch.equal(best["head.weight"], tensors["network.head.weight"])
    scores = torch.from_numpy(trainer.predict_best(("val",))["val"])
    loss = F.nll_loss(scores.log(), load(images.splits["val"], "multi-class")[1])
    assert progress.history[-1].val_loss == pytest.approx(float(loss), rel=1e-5)


def test_smoothing_and_mixing_change_the_training_loss_alone(new_trainer, learnable, new_folder):
    histories = []
    for options in ({}, {"label_smoothing": 0.5}, {"mixup": 1.0}):
        recipe = FinetuneRecipe(
            epochs=1, lr=1e-12, weight_decay=0.0, norm_stats="frozen", **options
        )
        histories.append(new_trainer(recipe, learnable(), new_folder()).fit().history[0])
    assert len({row.train_loss for row in histories}) == 3
    assert [row.val_loss for row in histories] == pytest.approx([histories[0].val_loss] * 3)


@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 4}, {"channels_last": False}, {"fused": True}],
    ids=lambda c: next(iter(c)),
)
def test_how_it_is_computed_changes_rounding_alone(new_trainer, learnable, new_folder, changes):
    states = []
    for options in ({}, changes):
        recipe = FinetuneRecipe(epochs=2, batch_size=16, lr=1e-3, optimizer="sgd", **options)
        folder = new_folder()
        new_trainer(recipe, learnable(), folder, norm=False).fit()
        states.append(read_network(folder)[1])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("asked", [True, False])
def test_channels_last_is_the_networks_memory_format(
    new_trainer, tiny_backbone, learnable, tmp_path, asked
):
    backbone = tiny_backbone()
    new_trainer(FinetuneRecipe(channels_last=asked), learnable(), tmp_path, backbone=backbone)
    weight = backbone.module.network.layer1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == asked


@pytest.mark.parametrize(
    ("module", "precision", "device", "expected"),
    [
        (nn.Conv2d(3, 4, 3), "fp32", "cpu", True),
        (nn.Conv2d(3, 4, 3), "bf16", "cuda", True),
        (nn.Conv2d(3, 4, 3), "fp32", "cuda", False),
        (nn.Linear(3, 4), "fp32", "cpu", False),
    ],
    ids=["cpu", "half on a gpu", "fp32 on a gpu", "no convolution"],
)
def test_channels_last_is_kept_where_it_is_quicker(module, precision, device, expected):
    assert keeps_channels_last(module, True, precision, torch.device(device)) == expected
    assert not keeps_channels_last(module, False, precision, torch.device(device))


def test_streamed_images_train_the_same_network(new_trainer, learnable, new_folder, monkeypatch):
    folders = [new_folder(), new_folder()]
    recipe = FinetuneRecipe(epochs=2, batch_size=16, accumulate=2)
    for folder, resident in zip(folders, (True, False), strict=True):
        monkeypatch.setattr(
            trainer_module, "fits_on_device", lambda *_, resident=resident: resident
        )
        trainer = new_trainer(recipe, learnable(), folder)
        trainer.fit()
        assert trainer.resident == resident
    assert_same_run(*folders)


def test_seeds_train_different_networks(new_trainer, learnable, new_folder):
    folders = [new_folder() for _ in range(3)]
    for folder, seed in zip(folders, (0, 1, 0), strict=True):
        new_trainer(FinetuneRecipe(epochs=1), learnable(), folder, seed=seed).fit()
    assert_same_run(folders[0], folders[2])
    heads = [read_network(folder)[1]["head.weight"] for folder in folders]
    assert not torch.equal(heads[0], heads[1])


# --- what is told -----------------------------------------------------------------------------


class Witness(Watch):
    """Remembers what it is told; may do something after a step or an epoch, counted from 1."""

    def __init__(self, after_step=None, after_epoch=None, act=lambda: None):
        self.told, self.steps, self.rows = [], 0, []
        self._after_step, self._after_epoch, self._act = after_step, after_epoch, act

    def begin(self, *arguments):
        self.told.append(("begin", *arguments))

    def images(self, n):
        self.told.append(("images", n))
        self.steps += 1
        if self.steps == self._after_step:
            self._act()

    def epoch(self, row):
        self.told.append(("epoch", row.epoch))
        self.rows.append(row)
        if row.epoch == self._after_epoch:
            self._act()

    def end(self):
        self.told.append(("end",))


def send(*numbers):
    """Return what sends signals to this process."""
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


CTRL_C = send(signal.SIGINT)


def test_the_watch_is_told_of_everything(new_trainer, learnable, tmp_path):
    recipe = FinetuneRecipe(epochs=2, batch_size=16)
    interrupted = Witness(after_step=6, act=CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        new_trainer(recipe, learnable(), tmp_path, seed=3, watch=interrupted).fit()
    steps = [("images", 16)] * 3 + [("images", 2)]
    title = "toy 8 px · tiny · seed 3"
    assert interrupted.told == [
        ("begin", title, 2, 50, 0, 0), *steps, ("epoch", 1), *steps[:2], ("end",),
    ]  # fmt: skip
    resumed = Witness()
    progress = new_trainer(recipe, learnable(), tmp_path, seed=3, watch=resumed).fit()
    assert resumed.told == [
        ("begin", title, 2, 50, 1, 32), *steps[2:], ("epoch", 2), ("end",),
    ]  # fmt: skip
    assert interrupted.rows + resumed.rows == progress.history


def test_rows_tell_rates_and_times(new_trainer, learnable, tmp_path):
    recipe = FinetuneRecipe(epochs=3, lr=0.01, layer_decay=0.5, batch_size=16)
    progress = new_trainer(recipe, learnable(), tmp_path).fit()
    assert column(progress, "lr") == pytest.approx([0.01, 0.01, 0.0075])
    assert progress.seconds >= sum(column(progress, "seconds"))
    for row in progress.history:  # images per second: without the judging
        assert 0 < 50 / row.images_per_second < row.seconds


def test_steps_are_counted_over_all_epochs(new_trainer, learnable, tmp_path):
    recipe = FinetuneRecipe(epochs=3, batch_size=16, lr=0.01, schedule="cosine", warmup=0.2)
    progress = new_trainer(recipe, learnable(), tmp_path).fit()
    # 12 steps: 2 of warm-up, and 10 of the cosine, of which these are the epochs' last.
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * (step - 2) / 10)) for step in (3, 7, 11)]
    assert column(progress, "lr") == pytest.approx(expected)


class Notebook(Tracker):
    """A tracker that remembers."""

    def __init__(self):
        self.entries = []

    def _log(self, metrics, step):
        self.entries.append((step, metrics))

    def start(self): ...

    def finish(self, status): ...


def test_trackers_are_told_of_every_epoch(new_trainer, learnable, tmp_path):
    notebook = Notebook()
    images = learnable(n=(50, 2, 20))  # without an AUC
    progress = new_trainer(FinetuneRecipe(epochs=2), images, tmp_path, tracker=notebook).fit()
    assert [step for step, _ in notebook.entries] == [1, 2]
    for (_, metrics), row in zip(notebook.entries, progress.history, strict=True):
        assert metrics == {
            "lr": row.lr,
            "train/loss": row.train_loss,
            "val/loss": row.val_loss,
            "val/acc": row.val_acc,
            "images_per_second": row.images_per_second,
        }


def test_the_learning_curve_is_drawn(new_trainer, learnable, tmp_path, monkeypatch):
    monkeypatch.undo()  # draws after all
    new_trainer(FinetuneRecipe(epochs=1), learnable(), tmp_path).fit()
    assert (tmp_path / CURVE_FILE).read_bytes().startswith(b"\x89PNG")


# --- interrupted and resumed ------------------------------------------------------------------

# Everything that has a state, or draws random numbers: 3 epochs of 4 steps, the last of 2 images.
EVERYTHING = FinetuneRecipe(
    epochs=3,
    batch_size=16,
    accumulate=2,
    lr=1e-2,
    layer_decay=0.7,
    decay_bias_and_norm=False,
    schedule="cosine",
    warmup=0.3,
    clip_grad=0.5,
    label_smoothing=0.1,
    ema=0.8,
    flip="dihedral",
    rotate=20,
    brightness=0.2,
    mixup=0.4,
    cutmix=1.0,
)
RECIPES = {
    "everything": EVERYTHING,
    "sgd": EVERYTHING.model_copy(update={"optimizer": "sgd", "channels_last": True}),
    "head": EVERYTHING.model_copy(update={"trainable": "head", "schedule": "paper"}),
}
STEPS = 12


class Killed(BaseException):
    """The process dies here: nothing is saved."""


def die():
    raise Killed


def without_times(rows):
    return [replace(row, images_per_second=0.0, seconds=0.0) for row in rows]


def assert_same_run(a, b):
    """Two folders of finished runs are equal in every bit but the times."""
    (state_a, saved_a), (state_b, saved_b) = (read_tensors(f / STATE_FILE) for f in (a, b))
    assert state_a.keys() == state_b.keys()
    for name, value in state_a.items():  # network, average, optimiser, order
        assert torch.equal(value, state_b[name]), name
    times = {
        "seconds", "epoch_seconds", "energy_joules", "resumed", "history", "images_per_second",
    }  # fmt: skip
    numbers_a, numbers_b = (
        {k: v for k, v in saved["progress"].items() if k not in times}
        for saved in (saved_a, saved_b)
    )
    assert numbers_a == numbers_b
    histories = [
        [{k: v for k, v in row.items() if k not in times} for row in saved["progress"]["history"]]
        for saved in (saved_a, saved_b)
    ]
    assert histories[0] == histories[1]
    assert (a / NETWORK_FILE).read_bytes() == (b / NETWORK_FILE).read_bytes()


@pytest.fixture(scope="module")
def start(new_trainer, learnable):
    """Start a training of everything in a folder, with all objects new, until it ends somehow."""

    def start(folder, watch=None, recipe="everything", seed=5, resume=True):
        images = learnable("multi-class")
        trainer = new_trainer(RECIPES[recipe], images, folder, seed=seed, watch=watch, dropout=0.3)
        trainer.fit(resume)
        return trainer

    return start


@pytest.fixture(scope="module")
def uninterrupted(start, new_folder):
    """The folder and the test scores of each training, uninterrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_module, "draw_learning_curve", lambda *_: None)
        folders = {recipe: new_folder() for recipe in RECIPES}
        trainers = {recipe: start(folder, recipe=recipe) for recipe, folder in folders.items()}
    return {
        recipe: (folders[recipe], trainer.predict_best(("test",))["test"])
        for recipe, trainer in trainers.items()
    }


def assert_is_uninterrupted(folder, trainer, uninterrupted):
    expected_folder, expected_scores = uninterrupted
    assert_same_run(folder, expected_folder)
    assert np.array_equal(trainer.predict_best(("test",))["test"], expected_scores)


@pytest.fixture(params=[0.0, 1e9], ids=["saving always", "saving never"])
def save_every(request, monkeypatch):
    """How often the state is saved without an interrupt."""
    monkeypatch.setattr(folder_module, "_SAVE_EVERY_S", request.param)


@pytest.mark.parametrize(
    ("recipe", "step"),
    [("everything", step) for step in range(1, STEPS + 1)]
    + [(recipe, step) for recipe in ("sgd", "head") for step in (3, 4, 12)],
)
def test_interrupted_training_equals_uninterrupted_training(
    start, uninterrupted, tmp_path, step, recipe
):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, Witness(after_step=step, act=CTRL_C), recipe)
    resumed = Witness()
    trainer = start(tmp_path, resumed, recipe)
    assert resumed.steps == STEPS - step  # none is made twice
    assert trainer.progress.resumed == 1
    assert_is_uninterrupted(tmp_path, trainer, uninterrupted[recipe])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_interrupted_after_every_step_arrives(start, uninterrupted, tmp_path, recipe):
    for _ in range(STEPS):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, Witness(after_step=1, act=CTRL_C), recipe)
    trainer = start(tmp_path, recipe=recipe)
    assert trainer.progress.resumed == STEPS
    assert_is_uninterrupted(tmp_path, trainer, uninterrupted[recipe])


@pytest.mark.usefixtures("save_every")
@pytest.mark.parametrize("step", [1, 2, 4, 5, 8, 9, 12])
def test_killed_training_equals_uninterrupted_training(start, uninterrupted, tmp_path, step):
    with pytest.raises(Killed):
        start(tmp_path, Witness(after_step=step, act=die))
    always = folder_module._SAVE_EVERY_S == 0
    assert (tmp_path / STATE_FILE).exists() == (always and step > 1)
    resumed = Witness()
    trainer = start(tmp_path, resumed)
    assert resumed.steps == (STEPS - step + 1 if always else STEPS)
    assert_is_uninterrupted(tmp_path, trainer, uninterrupted["everything"])


def test_finished_training_makes_no_more_steps(start, uninterrupted, tmp_path):
    first = start(tmp_path)
    again = Witness()
    trainer = start(tmp_path, again)
    assert again.steps == 0
    assert trainer.progress.history == first.progress.history
    assert_is_uninterrupted(tmp_path, trainer, uninterrupted["everything"])


def test_training_that_stopped_early_stays_stopped(unlucky, new_trainer, learnable, tmp_path):
    watch, history = Witness(), unlucky.progress.history
    recipe = FinetuneRecipe(epochs=40, batch_size=16, lr=0.02, patience=4, schedule="constant")
    trainer = new_trainer(recipe, learnable(shuffled=True), tmp_path, watch=watch)
    assert trainer.fit().history == history
    assert watch.steps == 0


def test_times_add_up_over_a_resumption(start, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, Witness(after_step=6, act=CTRL_C))
    _, document = read_tensors(tmp_path / STATE_FILE)
    before = document["progress"]
    progress = start(tmp_path).progress
    assert progress.history[0].seconds == before["history"][0]["seconds"]
    assert progress.history[1].seconds > before["epoch_seconds"] > 0
    assert progress.seconds > before["seconds"] > before["epoch_seconds"]
    assert progress.seconds >= sum(column(progress, "seconds"))


class Meter:
    """A stopwatch whose device uses so many joules per lap, or does not tell."""

    def __init__(self, joules):
        self._joules = joules

    def lap(self):
        return 1.0, self._joules


def test_energy_adds_up_over_a_resumption(start, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "Stopwatch", lambda device, devices: Meter(2.0))
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, Witness(after_step=6, act=CTRL_C))
    progress = start(tmp_path).progress
    assert progress.energy_joules == 2.0 * progress.seconds > 0


@pytest.mark.parametrize("joules", [(2.0, None), (None, 2.0)])
def test_energy_that_was_not_measured_throughout_is_not_told(start, tmp_path, monkeypatch, joules):
    monkeypatch.setattr(trainer_module, "Stopwatch", lambda device, devices: Meter(joules[0]))
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, Witness(after_step=6, act=CTRL_C))
    monkeypatch.setattr(trainer_module, "Stopwatch", lambda device, devices: Meter(joules[1]))
    assert start(tmp_path).progress.energy_joules is None


# --- a loss that is not finite ----------------------------------------------------------------

SHORT = FinetuneRecipe(epochs=3, batch_size=16, lr=1e-3)


class Poison(Witness):
    """Makes the weights NaN after some step; may send Ctrl-C after that one or a later one."""

    def __init__(self, backbone, step, ctrl_c_after=None):
        super().__init__()
        self._weight, self._step, self._ctrl_c_after = (
            backbone.module.network.layer0.weight,
            step,
            ctrl_c_after,
        )

    def images(self, n):
        super().images(n)
        if self.steps == self._step:
            with torch.no_grad():
                self._weight.fill_(math.nan)
        if self.steps == self._ctrl_c_after:
            CTRL_C()


@pytest.fixture
def poisoned(new_trainer, tiny_backbone, learnable):
    """Return a function that makes a training of 3 epochs of 4 steps, of which one goes wrong."""

    def make(folder, step, ctrl_c_after=None):
        backbone = tiny_backbone(norm=False)
        watch = Poison(backbone, step, ctrl_c_after)
        return new_trainer(SHORT, learnable(), folder, watch=watch, backbone=backbone)

    return make


@pytest.mark.usefixtures("save_every")
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (5, "the training loss is not finite in epoch 2, step {}; .* (epoch 1, val loss 1."),
        (8, "the val loss is not finite in epoch 2, step {}; .* (epoch 1, val loss 1."),
        (9, "the training loss is not finite in epoch 3, step {}; .* (epoch 2, val loss 1."),
    ],
)
def test_best_network_survives_a_loss_that_is_not_finite(
    poisoned, new_trainer, learnable, new_folder, step, message
):
    folder, other = new_folder(), new_folder()
    with pytest.raises(RunError) as told:
        poisoned(folder, step).fit()
    always = folder_module._SAVE_EVERY_S == 0  # then the loss is looked at after every step
    found_in = 2 if always and step != 8 else 4
    pattern = re.escape(message.format(found_in)).replace(re.escape(".*"), ".*")
    assert re.match(pattern, str(told.value))
    assert str(folder) in str(told.value)
    assert "--lr" in str(told.value)
    description, state = read_network(folder)
    assert description.epoch == (step - 1) // 4
    assert not (folder / STATE_FILE).exists()  # there is no going on from it
    # What is kept is what a training finds that nothing goes wrong with.
    watch = Witness(after_epoch=description.epoch, act=die)
    trainer = new_trainer(SHORT, learnable(), other, watch=watch, norm=False)
    with pytest.raises(Killed):
        trainer.fit()
    assert trainer.progress.best_loss == description.val_loss
    trainer.predict_best(("val",))  # takes the best weights up
    for name, value in state.items():
        assert torch.equal(value, trainer._network.state_dict()[name]), name


def test_long_epochs_are_looked_into(poisoned, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "_LOOK_EVERY", 3)
    with pytest.raises(RunError, match="in epoch 2, step 3;"):
        poisoned(tmp_path, 5).fit()


def test_an_interrupt_saves_no_state_that_has_gone_wrong(poisoned, tmp_path):
    with pytest.raises(RunError, match="in epoch 2, step 2;"):
        poisoned(tmp_path, 5, ctrl_c_after=6).fit()
    assert not (tmp_path / STATE_FILE).exists()
    assert read_network(tmp_path)[0].epoch == 1
