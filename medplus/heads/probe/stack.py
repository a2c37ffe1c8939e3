"""Training many linear heads as one: a stacked matrix product per step.

Heads differ in seed, learning rate and weight decay. Heads of one seed see the same batches, so
their weights stand in one matrix (n_classes · n_settings, dim); seeds are stacked in a batched
product. Gradients of softmax and sigmoid cross-entropy are written out (Bishop, Pattern
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
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from medplus.backbones.head import initial_head
from medplus.config import ProbeRecipe
from medplus.heads.probe.feed import Feed, aligned
from medplus.heads.probe.trained import TrainedHeads, as_feed, block_rows
from medplus.progress import Advance

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # torch.optim.AdamW's defaults


def learning_rate_factor(epoch: int, epochs: int) -> float:
    """Return the cosine schedule's factor for an epoch, both counted from 0.

    As the paper's code steps it: after each epoch with that epoch's index, so that epochs 0 and 1
    both use the full learning rate.
    """
    return 0.5 * (1 + math.cos(math.pi * max(epoch - 1, 0) / epochs))


def train_heads(
    train: tuple[torch.Tensor | Feed, torch.Tensor],
    val: tuple[torch.Tensor | Feed, torch.Tensor] | None,
    n_classes: int,
    recipe: ProbeRecipe,
    *,
    multi_label: bool = False,
    seeds: Sequence[int] | None = None,
    settings: Sequence[tuple[float, float]] | None = None,
    rows: torch.Tensor | None = None,
    advance: Advance = lambda n: None,
) -> TrainedHeads:
    """Train all heads of a grid together.

    Parameters
    ----------
    train, val : (embeddings, labels)
        float32 (n_samples, dim), or what feeds them to the device, and integer
        (n_samples, n_labels), on that device. Without val, heads train for all epochs and are
        taken as they are then.
    n_classes : int
        Classes, or labels if `multi_label`.
    recipe : ProbeRecipe
    multi_label : bool
        Sigmoid cross-entropy per label instead of softmax cross-entropy.
    seeds, settings : sequence, optional
        Seeds, and pairs of learning rate and weight decay; by default the recipe's.
    rows : Tensor of int64, shape (n_seeds, n_rows), on the CPU, optional
        The train rows that each seed learns from, so that a seed may occur with several
        subsets: each head is what it would be on ``embeddings[rows]``. By default all rows.
    advance : callable
        Told after every epoch.

    Returns
    -------
    TrainedHeads
    """
    train_feed = as_feed(train[0])
    grid = (seeds or recipe.seeds, settings or recipe.settings)
    stack = _Stack(train_feed, *grid, n_classes, rows)
    targets = _targets(train[1], n_classes, multi_label)
    judged = val and (as_feed(val[0]), _targets(val[1], n_classes, multi_label))
    for epoch in range(recipe.epochs):
        stack.start_epoch(learning_rate_factor(epoch, recipe.epochs), recipe.batch_size)
        for x, y in _batches(train_feed, targets, stack.shuffle(), recipe.batch_size):
            stack.step(x, y, multi_label)
        if judged:
            stack.judge(stack.losses(*judged, multi_label), epoch, recipe.patience)
        advance(1)
        if stack.finished:
            break
    if not judged:
        stack.keep(recipe.epochs)
    return stack.best()


def _batches(
    feed: Feed, targets: torch.Tensor, orders: torch.Tensor, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's batches: rows (n_seeds, size, dim), targets (n_seeds, n_classes, size)."""
    for numbers, rows in feed.windows(orders, size):
        y = targets.index_select(0, numbers.reshape(-1)).view(*numbers.shape, -1)
        for batch, wanted in zip(rows.unbind(), y.mT.contiguous().unbind(), strict=True):
            yield aligned(batch), wanted


def _targets(labels: torch.Tensor, n_classes: int, multi_label: bool) -> torch.Tensor:
    """Return the distribution that the probabilities should match, float32 (n, n_classes)."""
    if multi_label:
        return labels.float()
    return F.one_hot(labels[:, 0].long(), n_classes).float()


class _Stack:
    """Weights, optimiser state and best weights of the heads that still train.

    Row ``c · n_settings + r`` of a seed's weights is class `c` of setting `r`. Logits are kept
    transposed, with the samples of a batch adjacent: matrix products with few rows and a softmax
    along strides are then up to twice as fast. Weights are kept divided
    by their head's learning rate, so that one fused Adam step at the schedule's rate serves heads
    of all learning rates; the logits are multiplied back. Heads that have stopped leave the stack
    when a whole seed or a whole setting has.
    """

    def __init__(
        self,
        train: Feed,
        seeds: Sequence[int],
        settings: Sequence[tuple[float, float]],
        n_classes: int,
        rows: torch.Tensor | None,
    ) -> None:
        n_train, dim = train.shape
        self._rows = rows
        self._n_rows = n_train if rows is None else rows.shape[1]
        self._n_classes = n_classes
        self._device = device = train.device
        n_seeds, n_settings = len(seeds), len(settings)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        lr, decay = torch.tensor(settings, dtype=torch.float64, device=device).T
        self._lr, self._decay = (t.repeat(n_classes).unsqueeze(1) for t in (lr, decay))
        heads = [initial_head(dim, n_classes, generator) for generator in self._generators]
        initial = [torch.stack(part).to(device) for part in zip(*heads, strict=True)]
        # Weights (n_seeds, n_classes · n_settings, dim) and biases (n_seeds, …, 1).
        self._parameters = [
            (part.view(n_seeds, n_classes, -1).repeat_interleave(n_settings, 1) / self._lr).float()
            for part in initial
        ]
        self._gradients, self._mean, self._square = (
            [torch.zeros_like(p) for p in self._parameters] for _ in range(3)
        )
        self._steps_made = 0
        self._seeds = torch.arange(n_seeds)
        self._settings = torch.arange(n_settings)
        self._best = torch.zeros(n_seeds, n_settings, n_classes, dim + 1, device=device)
        self._best_loss = torch.full((n_seeds, n_settings), torch.inf, device=device)
        self._best_epoch = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._epochs_run = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._waited = torch.zeros(n_seeds, n_settings, dtype=torch.int64)
        self._active = torch.ones(n_seeds, n_settings, dtype=torch.bool)

    @property
    def finished(self) -> bool:
        return not bool(self._active.any())

    def shuffle(self) -> torch.Tensor:
        """Return this epoch's order of the training rows per seed, shape (n_seeds, n_rows)."""
        generators = [self._generators[seed] for seed in self._seeds.tolist()]
        orders = torch.stack([torch.randperm(self._n_rows, generator=g) for g in generators])
        return orders if self._rows is None else self._rows[self._seeds].gather(1, orders)

    def start_epoch(self, factor: float, batch_size: int) -> None:
        """Set the schedule's factor for the steps to come, and number them."""
        self._factor = factor
        n_steps = -(-self._n_rows // batch_size)
        # Adam's bias correction reads the number from the device.
        numbers = torch.arange(1, n_steps + 1, device=self._device) + self._steps_made
        self._numbers = iter(numbers.float().unbind())
        self._steps_made += n_steps
        self._scale = self._lr.float()
        self._shrink = (1 - factor * self._lr * self._decay).float()

    def step(self, x: torch.Tensor, y: torch.Tensor, multi_label: bool) -> None:
        """Make one AdamW step for all heads, each seed on its own batch.

        Decoupled weight decay comes first, then Adam (Loshchilov & Hutter, ICLR 2019, algorithm 2,
        in the order of `torch.optim.AdamW`).

        Parameters
        ----------
        x : Tensor of float32, shape (n_seeds, batch, dim)
        y : Tensor of float32, shape (n_seeds, n_classes, batch)
            The targets, as `_targets` makes them, transposed.
        """
        n_seeds, batch, _ = x.shape
        weight, bias = self._parameters
        logits = torch.baddbmm(bias, weight, x.mT).mul_(self._scale)
        grouped = logits.view(n_seeds, self._n_classes, -1, batch)
        # The gradient of both losses by the logits is probability minus target.
        error = grouped.sigmoid() if multi_label else grouped.softmax(1)
        error.sub_(y.unsqueeze(2)).mul_(1 / (batch * (self._n_classes if multi_label else 1)))
        flat = error.view_as(logits)
        torch.bmm(flat, x, out=self._gradients[0])
        torch.sum(flat, 2, keepdim=True, out=self._gradients[1])
        for parameter in self._parameters:
            parameter.mul_(self._shrink)
        number = next(self._numbers)
        # What torch.optim's own functions end in; to get there takes them as long as it takes.
        torch._fused_adam_(
            self._parameters,
            self._gradients,
            self._mean,
            self._square,
            [],
            [number, number],
            amsgrad=False,
            beta1=_BETA1,
            beta2=_BETA2,
            lr=self._factor,
            weight_decay=0.0,
            eps=_EPS,
            maximize=False,
        )

    def losses(self, val: Feed, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
        """Return every head's mean loss over samples (and labels), shape (n_seeds, n_settings)."""
        n_seeds, n_rows = self._parameters[0].shape[:2]
        total = torch.zeros(n_seeds, len(self._settings), device=val.device, dtype=torch.float64)
        weight, bias = ((p * self._scale).flatten(0, 1) for p in self._parameters)
        for part, x in val.blocks(block_rows(n_seeds * n_rows)):
            logits = torch.addmm(bias, weight, x.T).view(n_seeds, self._n_classes, -1, len(x))
            y = targets[part].T.unsqueeze(1)
            if multi_label:
                loss = F.softplus(logits).sub_(logits * y).mean(1)
            else:
                loss = torch.logsumexp(logits, 1).sub_((logits * y).sum(1))
            total += loss.sum(2, dtype=torch.float64)
        return (total / val.shape[0]).float()

    def judge(self, losses: torch.Tensor, epoch: int, patience: int) -> None:
        """Keep the weights of heads that improved, stop those that have not for too long."""
        place = torch.meshgrid(self._seeds, self._settings, indexing="ij")
        active = self._active[place]
        best_loss = self._best_loss[place]
        better = (losses < best_loss) & active.to(losses.device)
        self._best_loss[place] = torch.where(better, losses, best_loss)
        keep = better[:, :, None, None]
        self._best[place] = torch.where(keep, self._heads(), self._best[place])
        improved = better.cpu()
        self._epochs_run[place] += active
        self._best_epoch[place] = torch.where(improved, epoch + 1, self._best_epoch[place])
        self._waited[place] = torch.where(improved, 0, self._waited[place] + 1)
        self._active[place] = active & (self._waited[place] < patience)
        self._drop_stopped()

    def keep(self, epochs: int) -> None:
        """Take all heads as they are after so many epochs, none having been judged."""
        self._best = self._heads()
        self._best_loss.fill_(torch.nan)
        self._best_epoch.fill_(epochs)
        self._epochs_run.fill_(epochs)

    def _heads(self) -> torch.Tensor:
        """Return the heads that still train, shape (n_seeds, n_settings, n_classes, dim + 1)."""
        current: torch.Tensor = torch.cat(self._parameters, 2) * self._scale
        n_seeds, _, width = current.shape
        return current.view(n_seeds, self._n_classes, -1, width).transpose(1, 2)

    def _drop_stopped(self) -> None:
        active = self._active[self._seeds][:, self._settings]
        seeds, settings = active.any(1), active.any(0)
        if bool(seeds.all()) and bool(settings.all()):
            return
        self._seeds, self._settings = self._seeds[seeds], self._settings[settings]
        device = self._device
        seeds, rows = seeds.to(device), settings.to(device).repeat(self._n_classes)
        self._parameters, self._gradients, self._mean, self._square = (
            [tensor[seeds][:, rows] for tensor in tensors]
            for tensors in (self._parameters, self._gradients, self._mean, self._square)
        )
        self._lr, self._decay = self._lr[rows], self._decay[rows]

    def best(self) -> TrainedHeads:
        """Return every head as it was at its best epoch."""
        return TrainedHeads(
            weight=self._best[..., :-1].contiguous(),
            bias=self._best[..., -1].contiguous(),
            val_loss=self._best_loss,
            epochs_run=self._epochs_run,
            best_epoch=self._best_epoch,
        )
