"""One step of training: a batch on every process, its gradient, the optimiser's move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from medplus.backbones.inference import compile_network
from medplus.config import FinetuneRecipe
from medplus.datasets.dataset import ImageDataset
from medplus.preprocess import Preprocessor, PreprocessSpec
from medplus.training.augment import Augment
from medplus.training.loss import make_targets, sample_losses
from medplus.training.network import Network, keeps_channels_last
from medplus.training.optimisation import Schedule, make_average, make_mixup, make_optimizer
from medplus.vocabulary import MULTI_LABEL


class Stepper:
    """Makes the steps of a recipe, on a network that it moves to its device and changes.

    Parameters
    ----------
    fabric : Fabric
        Device, precision and number of processes; launched.
    network : Network
    images : ImageDataset
    spec : PreprocessSpec
        How images become the network's input.
    recipe : FinetuneRecipe
    seed : int
        Of all chance in a step.
    compiled : bool
        Train through `torch.compile`.

    Attributes
    ----------
    prepare : Preprocessor
        From uint8 images to the network's input.
    optimizer : Optimizer
    average : ModelEmaV3 or None
        The moving average of the weights.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        images: ImageDataset,
        spec: PreprocessSpec,
        recipe: FinetuneRecipe,
        seed: int,
        compiled: bool = False,
    ) -> None:
        self.fabric, self.recipe, self.seed = fabric, recipe, seed
        self._n_classes = images.n_classes
        self._multi_label = images.task == MULTI_LABEL
        asked, precision = recipe.channels_last, recipe.precision
        channels_last = keeps_channels_last(network, asked, precision, fabric.device)
        self.prepare = Preprocessor(spec, torch.float32, channels_last)
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.network = network.to(fabric.device)
        self._augment = Augment(recipe, images.name)
        self._mixup = make_mixup(recipe, images.n_classes, self._multi_label)
        self._noise = torch.Generator()
        self.optimizer = make_optimizer(self.network, recipe)
        self.average = make_average(self.network, recipe)
        learner: Any = compile_network(self.network) if compiled else self.network
        self._module, self._optimizer = fabric.setup(learner, self.optimizer)
        n_steps = -(-len(images.splits["train"]) // recipe.batch_size)
        self._schedule = Schedule(self.optimizer, recipe, n_steps)

    @property
    def scaler(self) -> Any:
        """What scales fp16 losses, or None."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    @property
    def lr(self) -> float:
        """The learning rate of the last step, of the parameters that have the highest."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def share(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Return this process's part of a step's rows, one part per backward pass.

        All processes have equally many parts; one that has no rows left has empty ones.
        """
        own = rows[self.fabric.global_rank :: self.fabric.world_size]
        return list(own.tensor_split(self._n_parts(len(rows))))

    def _n_parts(self, n: int) -> int:
        return min(self.recipe.accumulate, -(-n // self.fabric.world_size))

    def __call__(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], n: int, epoch: int, step: int
    ) -> torch.Tensor:
        """Make one step of the optimiser on `n` images of all processes.

        Parameters
        ----------
        batches : iterator of (images, labels)
            Gives the parts that `share` made of the step's rows.
        epoch, step : int
            From 0; `step` over all epochs.

        Returns
        -------
        Tensor of float64, shape ()
            The sum of the losses of this process's images.
        """
        self._schedule.before_step(epoch, step)
        self._seed_step(step)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        world, n_parts = self.fabric.world_size, self._n_parts(n)
        for part in range(n_parts):
            images, labels = next(batches)
            waits = world > 1 and part < n_parts - 1
            with self.fabric.no_backward_sync(self._module, enabled=waits):
                loss = self._loss(images, labels)
                loss_sum += loss.detach()
                # Processes average their gradients, so this makes it the mean over all n images.
                self.fabric.backward(loss * (world / n))
        if self.recipe.clip_grad:
            self.fabric.clip_gradients(
                self._module,
                self._optimizer,
                max_norm=self.recipe.clip_grad,
                error_if_nonfinite=False,  # the trainer tells of it
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network, step + 1)
        return loss_sum

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the losses of a batch."""
        n = len(images)
        if not n:  # this process's share is empty, but the others wait for its gradient
            images = torch.zeros((1, *images.shape[1:]), dtype=torch.uint8, device=images.device)
        targets = make_targets(
            labels, self._n_classes, self._multi_label, self.recipe.label_smoothing
        )

        classes = labels if self._multi_label else labels[:, 0]

        def change(pixels: torch.Tensor) -> torch.Tensor:
            pixels = self._augment(pixels, self._noise)
            even = n - n % 2  # images are mixed in pairs; an odd one out stays as it is
            if self._mixup is not None and even:
                # Before padding, so that a box's share of the image is its share of the target.
                _, targets[:even] = self._mixup(pixels[:even], classes[:even])
            return pixels

        changes = self._augment or self._mixup is not None
        pixels = self.prepare(images, change if changes else None)
        if not n:
            nothing: torch.Tensor = self._module(pixels).float().sum() * 0.0
            return nothing
        return sample_losses(self._module(pixels), targets, self._multi_label).sum()

    def _seed_step(self, step: int) -> None:
        """Let chance in a step depend on seed, step and process alone, so that none is saved."""
        words = np.random.SeedSequence((self.seed, step, self.fabric.global_rank))
        layers, mixing, noise = (int(word) for word in words.generate_state(3))
        torch.manual_seed(layers)  # dropout and the like
        np.random.seed(mixing)  # noqa: NPY002 - timm's Mixup draws from the global generator
        self._noise.manual_seed(noise)
