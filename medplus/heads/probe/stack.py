"""Training many linear heads as one: a stacked matrix product per step.

Heads differ in seed, learning rate and weight decay. Heads of one seed see the same batches, so
their weights lie side by side in one matrix (dim, n_settings · n_classes); seeds are stacked in a
batched product. Gradients of softmax and sigmoid cross-entropy are written out (Bishop, Pattern
Recognition and Machine Learning, 2006, eq. 4.109), so no autograd graph is built.

Every head is what a plain loop would make of it::

    torch.manual_seed(seed); head = nn.Linear(dim, n_classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr, weight_decay=weight_decay)
    for epoch in range(epochs):
        for rows in torch.randperm(n_train).split(batch_size): ...
        CosineAnnealingLR, stepped with this epoch's index

with early stopping on the mean val loss, and the weights of the best epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from medplus.config import ProbeRecipe
from medplus.progress import Advance

_BLOCK_LOGITS = 1 << 24


@dataclass(frozen=True)
class HeadGrid:
    """The grid of heads: every seed with every setting of learning rate and weight decay.

    Attributes
    ----------
    seeds : tuple of int
    settings : tuple of (float, float)
        Learning rate and weight decay.
    """

    seeds: tuple[int, ...]
    settings: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, recipe: ProbeRecipe) -> HeadGrid:
        """Return the grid that a recipe spans."""
        settings = tuple((lr, wd) for lr in recipe.lr for wd in recipe.weight_decay)
        return cls(recipe.seeds, settings)


@dataclass(frozen=True)
class TrainedHeads:
    """The best heads of a grid.

    Attributes
    ----------
    weight : Tensor of float32, shape (n_seeds, n_settings, n_classes, dim)
    bias : Tensor of float32, shape (n_seeds, n_settings, n_classes)
    val_loss : Tensor of float32, shape (n_seeds, n_settings)
        Mean val loss at the best epoch.
    epochs_run, best_epoch : Tensor of int64, shape (n_seeds, n_settings)
        Counted from 1.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    val_loss: torch.Tensor
    epochs_run: torch.Tensor
    best_epoch: torch.Tensor

    def scores(self, embeddings: torch.Tensor, multi_label: bool) -> torch.Tensor:
        """Return probabilities, float32, shape (n_seeds, n_settings, n_samples, n_classes)."""
        logits = torch.einsum("nd,srcd->srnc", embeddings, self.weight) + self.bias.unsqueeze(2)
        return logits.sigmoid() if multi_label else logits.softmax(-1)


def learning_rate_factor(epoch: int, epochs: int) -> float:
    """Return the cosine schedule's factor for an epoch, both counted from 0.

    As the paper's code steps it: after each epoch with that epoch's index, so that epochs 0 and 1
    both use the full learning rate.
    """
    return 0.5 * (1 + math.cos(math.pi * max(epoch - 1, 0) / epochs))


def train_heads(
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, torch.Tensor],
    n_classes: int,
    recipe: ProbeRecipe,
    *,
    multi_label: bool = False,
    grid: HeadGrid | None = None,
    advance: Advance = lambda n: None,
) -> TrainedHeads:
    """Train all heads of a grid together.

    Parameters
    ----------
    train, val : (embeddings, labels)
        float32 (n_samples, dim) and integer (n_samples, n_labels), on one device.
    n_classes : int
        Classes, or labels if `multi_label`.
    recipe : ProbeRecipe
    multi_label : bool
        Sigmoid cross-entropy per label instead of softmax cross-entropy.
    grid : HeadGrid, optional
        A part of the recipe's grid; by default all of it.
    advance : callable
        Told after every epoch.

    Returns
    -------
    TrainedHeads
    """
    stack = _Stack(train[0], grid or HeadGrid.of(recipe), n_classes)
    targets = _targets(train[1], n_classes, multi_label)
    val_targets = _targets(val[1], n_classes, multi_label)
    for epoch in range(recipe.epochs):
        stack.start_epoch(learning_rate_factor(epoch, recipe.epochs))
        orders = stack.shuffle()
        for start in range(0, orders.shape[1], recipe.batch_size):
            rows = orders[:, start : start + recipe.batch_size]
            stack.step(rows, targets, multi_label)
        stack.judge(stack.losses(val[0], val_targets, multi_label), epoch, recipe.patience)
        advance(1)
        if stack.finished:
            break
    return stack.best()


def _targets(labels: torch.Tensor, n_classes: int, multi_label: bool) -> torch.Tensor:
    """Return the distribution that the probabilities should match, float32 (n, n_classes)."""
    if multi_label:
        return labels.float()
    return F.one_hot(labels[:, 0].long(), n_classes).float()


class _Stack:
    """Weights, optimiser state and best weights of the heads that still train.

    Weights are kept divided by their head's learning rate: one fused optimiser step at the
    schedule's rate then serves heads of all learning rates, and the logits are multiplied back.
    Heads that have stopped leave the stack when a whole seed or a whole setting has.
    """

    def __init__(self, embeddings: torch.Tensor, grid: HeadGrid, n_classes: int) -> None:
        self._x = embeddings
        self._n_classes = n_classes
        device = embeddings.device
        n_seeds, n_settings = len(grid.seeds), len(grid.settings)
        self._generators = [torch.Generator().manual_seed(seed) for seed in grid.seeds]
        initial = [_initial_head(embeddings.shape[1], n_classes, g) for g in self._generators]
        lr, decay = torch.tensor(grid.settings, dtype=torch.float64, device=device).T
        self._lr = lr.repeat_interleave(n_classes)
        self._decay = decay.repeat_interleave(n_classes)
        # (n_seeds, dim, n_settings · n_classes) and (n_seeds, 1, n_settings · n_classes)
        self._weight, self._bias = (
            (torch.stack(part).to(device).repeat(1, 1, n_settings) / self._lr).float()
            for part in zip(*initial, strict=True)
        )
        self._optimiser = _adam([self._weight, self._bias], state=None)
        self._seeds = torch.arange(n_seeds)
        self._settings = torch.arange(n_settings)
        self._best = torch.zeros(n_seeds, n_settings, embeddings.shape[1] + 1, n_classes).to(device)
        self._best_loss = torch.full((n_seeds, n_settings), torch.inf, device=device)
        self._best_epoch = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._epochs_run = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._waited = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._active = torch.ones(n_seeds, n_settings, dtype=torch.bool)

    @property
    def finished(self) -> bool:
        return not bool(self._active.any())

    def shuffle(self) -> torch.Tensor:
        """Return this epoch's order of the training rows per seed, shape (n_seeds, n_train)."""
        n = len(self._x)
        orders = [torch.randperm(n, generator=self._generators[i]) for i in self._seeds.tolist()]
        return torch.stack(orders).to(self._x.device)

    def start_epoch(self, factor: float) -> None:
        """Set the schedule's factor for the steps to come."""
        self._optimiser.param_groups[0]["lr"] = factor
        self._scale = self._lr.float()
        self._shrink = (1 - factor * self._lr * self._decay).float()

    def step(self, rows: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> None:
        """Make one AdamW step for all heads, each seed on its own batch of `rows`.

        Decoupled weight decay comes first, then Adam (Loshchilov & Hutter, ICLR 2019, algorithm 2,
        in the order of `torch.optim.AdamW`).
        """
        n_seeds, batch = rows.shape
        x = self._x.index_select(0, rows.reshape(-1)).view(n_seeds, batch, -1)
        y = targets.index_select(0, rows.reshape(-1)).view(n_seeds, batch, 1, -1)
        logits = torch.baddbmm(self._bias, x, self._weight).mul_(self._scale)
        grouped = logits.view(n_seeds, batch, -1, self._n_classes)
        # The gradient of both losses by the logits is probability minus target.
        error = grouped.sigmoid() if multi_label else grouped.softmax(-1)
        error.sub_(y).div_(batch * (self._n_classes if multi_label else 1))
        flat = error.view(n_seeds, batch, -1)
        torch.bmm(x.transpose(1, 2), flat, out=self._weight.grad)
        torch.sum(flat, 1, keepdim=True, out=self._bias.grad)
        self._weight.mul_(self._shrink)
        self._bias.mul_(self._shrink)
        self._optimiser.step()

    def losses(self, x: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
        """Return every head's mean loss over samples (and labels), shape (n_seeds, n_settings)."""
        n_seeds = len(self._seeds)
        total = torch.zeros(n_seeds, len(self._settings), device=x.device, dtype=torch.float64)
        weight = (self._weight * self._scale).permute(1, 0, 2).reshape(x.shape[1], -1)
        bias = (self._bias * self._scale).reshape(-1)
        block = max(1, _BLOCK_LOGITS // weight.shape[1])
        for start in range(0, len(x), block):
            part, y = x[start : start + block], targets[start : start + block]
            logits = torch.addmm(bias, part, weight)
            logits = logits.view(len(part), n_seeds, -1, self._n_classes)
            y = y.view(len(part), 1, 1, -1)
            if multi_label:
                loss = F.softplus(logits).sub_(logits * y).mean(-1)
            else:
                loss = torch.logsumexp(logits, -1).sub_((logits * y).sum(-1))
            total += loss.sum(0, dtype=torch.float64)
        return (total / len(x)).float()

    def judge(self, losses: torch.Tensor, epoch: int, patience: int) -> None:
        """Keep the weights of heads that improved, stop those that have not for too long."""
        place = torch.meshgrid(self._seeds, self._settings, indexing="ij")
        active = self._active[place]
        best_loss = self._best_loss[place]
        better = (losses < best_loss) & active.to(losses.device)
        self._best_loss[place] = torch.where(better, losses, best_loss)
        current = torch.cat([self._weight, self._bias], 1) * self._scale
        grouped = current.view(*current.shape[:2], -1, self._n_classes)
        mask = better[:, :, None, None]
        self._best[place] = torch.where(mask, grouped.permute(0, 2, 1, 3), self._best[place])
        improved = better.cpu()
        self._epochs_run[place] += active
        self._best_epoch[place] = torch.where(improved, epoch + 1, self._best_epoch[place])
        self._waited[place] = torch.where(improved, 0, self._waited[place] + 1)
        self._active[place] = active & (self._waited[place] < patience)
        self._drop_stopped()

    def _drop_stopped(self) -> None:
        active = self._active[self._seeds][:, self._settings]
        seeds, settings = active.any(1), active.any(0)
        if bool(seeds.all()) and bool(settings.all()):
            return
        self._seeds, self._settings = self._seeds[seeds], self._settings[settings]
        device = self._x.device
        seeds, columns = seeds.to(device), settings.to(device).repeat_interleave(self._n_classes)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[seeds][:, :, columns].contiguous()

        before = [self._optimiser.state[p] for p in (self._weight, self._bias)]
        state = [{n: t if n == "step" else keep(t) for n, t in part.items()} for part in before]
        self._weight, self._bias = keep(self._weight), keep(self._bias)
        self._optimiser = _adam([self._weight, self._bias], state)
        self._lr, self._decay = self._lr[columns], self._decay[columns]

    def best(self) -> TrainedHeads:
        """Return every head as it was at its best epoch."""
        return TrainedHeads(
            weight=self._best[:, :, :-1].transpose(2, 3).contiguous(),
            bias=self._best[:, :, -1].contiguous(),
            val_loss=self._best_loss,
            epochs_run=self._epochs_run,
            best_epoch=self._best_epoch,
        )


def _adam(
    parameters: list[torch.Tensor], state: list[dict[str, torch.Tensor]] | None
) -> torch.optim.Adam:
    """Return a fused Adam whose gradients are there to be written to."""
    optimiser = torch.optim.Adam(parameters, lr=1.0, fused=True)
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.zeros_like(parameter)
        if state is not None:
            optimiser.state[parameter] = state[i]
    return optimiser


def _initial_head(
    dim: int, n_classes: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw what `nn.Linear(dim, n_classes)` draws: weight (dim, n_classes), bias (1, n_classes)."""
    bound = 1 / math.sqrt(dim)
    weight = torch.empty(n_classes, dim).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(n_classes).uniform_(-bound, bound, generator=generator)
    return weight.T, bias[None]
