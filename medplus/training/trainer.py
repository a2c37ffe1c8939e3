"""The training loop: epochs of steps, each epoch judged on val, the best network kept."""

from __future__ import annotations

import logging
import math
from contextlib import closing
from dataclasses import asdict

import numpy as np
import torch

from medplus.cost import Stopwatch
from medplus.datasets.dataset import ImageDataset
from medplus.errors import RunError
from medplus.interrupts import Interrupts
from medplus.metrics import accuracy, auc
from medplus.training.batches import Batches, fits_on_device
from medplus.training.checkpoint import TrainingState
from medplus.training.folder import RunFolder
from medplus.training.history import EpochRow
from medplus.training.lora import merge
from medplus.training.loss import mean_loss, probabilities
from medplus.training.network import set_training_mode
from medplus.training.predict import predict
from medplus.training.progress import TrainingProgress
from medplus.training.step import Stepper
from medplus.training.tracking import Tracker
from medplus.training.watch import Watch
from medplus.vocabulary import MULTI_LABEL, Split

log = logging.getLogger(__name__)

_LOOK_EVERY = 50
_AGREE_EVERY = 10


class Trainer:
    """Trains one network on one dataset by one recipe.

    Parameters
    ----------
    step : Stepper
        Of the network, the recipe and the seed.
    images : ImageDataset
    order : Generator
        Draws the order of the images; it has drawn the head already.
    folder : RunFolder
        Where the best network and the state are kept; only the first process writes.
    watch : Watch
        Told of every step and epoch.
    tracker : Tracker, optional
        Told of every epoch's metrics.

    Attributes
    ----------
    progress : TrainingProgress
    resident : bool
        Whether the images lie on the device.
    """

    def __init__(
        self,
        step: Stepper,
        images: ImageDataset,
        order: torch.Generator,
        folder: RunFolder,
        watch: Watch,
        tracker: Tracker | None = None,
    ) -> None:
        self._step, self._images, self._recipe = step, images, step.recipe
        self._fabric, self._network = fabric, network = step.fabric, step.network
        self._folder, self._watch, self._tracker = folder, watch, tracker
        self._multi_label = images.task == MULTI_LABEL
        self.resident = fits_on_device(images, fabric.device)
        self._data: dict[Split, Batches] = {
            split: Batches(images.splits[split], fabric.device, resident=self.resident)
            for split in images.splits
        }
        self._n_train = len(images.splits["train"])
        average = step.average.module if step.average is not None else None
        self._state = TrainingState(network, step.optimizer, order, average, step.scaler)
        self._drawing = torch.Generator()
        self._interrupts = Interrupts()
        self._stopwatch = Stopwatch(fabric.device, fabric.world_size)
        self.progress = TrainingProgress()

    def fit(self, resume: bool = True) -> TrainingProgress:
        """Train until the last epoch, or until val loss has not improved for long enough.

        Raises
        ------
        RunError
            If the loss is not finite, or the saved state cannot be used.
        KeyboardInterrupt
            After Ctrl-C or SIGTERM, once the state is saved.
        """
        if resume:
            self._restore()
        done, recipe = self.progress, self._recipe
        seen = min(done.step * recipe.batch_size, self._n_train)
        title = f"{self._folder.subject} · seed {self._step.seed}"
        self._watch.begin(title, recipe.epochs, self._n_train, done.epoch, seen)
        try:
            with self._interrupts:
                self._stopwatch.lap()  # what was done before is no training
                while done.epoch < recipe.epochs and done.waited < recipe.patience:
                    self._train_epoch()
                    self._judge()
                self._save()
                if any(self._agree(self._interrupts.requested)):  # while val was judged
                    raise KeyboardInterrupt
        finally:
            self._watch.end()
        return done

    def predict_best(self, splits: tuple[Split, ...]) -> dict[Split, np.ndarray]:
        """Return the best network's class probabilities per split, float32 (n, n_classes).

        Training cannot go on after it: updates of low rank are merged.
        """
        self._fabric.barrier()  # until the first process has written it
        merge(self._network)
        self._network.load_state_dict(dict(self._folder.best()))
        return {
            split: probabilities(self._logits(self._network, split), self._multi_label).numpy()
            for split in splits
        }

    # --- one epoch ------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        done = self.progress
        set_training_mode(self._network, self._recipe)
        self._drawing.set_state(self._state.order.get_state())
        order = torch.randperm(self._n_train, generator=self._drawing)
        steps = torch.split(order, self._recipe.batch_size)
        shares = [self._step.share(rows) for rows in steps[done.step :]]
        loss_sum = torch.tensor(done.loss_sum, dtype=torch.float64, device=self._fabric.device)
        with closing(self._data["train"](part for parts in shares for part in parts)) as batches:
            for rows in steps[done.step :]:
                step = done.epoch * len(steps) + done.step
                loss_sum += self._step(batches, len(rows), done.epoch, step)
                done.step += 1
                self._watch.images(len(rows))
                self._between_steps(loss_sum, is_last=done.step == len(steps))
        done.loss_sum = self._total(loss_sum)

    def _between_steps(self, loss_sum: torch.Tensor, is_last: bool) -> None:
        """Save and stop if that was asked for, save now and then, look at the loss now and then."""
        alone = self._fabric.world_size == 1
        if not (alone or is_last or self.progress.step % _AGREE_EVERY == 0):
            return
        is_due = self._folder.is_due and self._fabric.is_global_zero
        interrupted, due = self._agree(self._interrupts.requested, is_due)
        if not (interrupted or due or self.progress.step % _LOOK_EVERY == 0):
            return
        self.progress.loss_sum = self._total(loss_sum)
        self._check_finite(self.progress.loss_sum, "training")
        if interrupted or due:
            self._save()
        if interrupted:
            raise KeyboardInterrupt

    def _agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Return which wishes any process has: all must act on them after the same step."""
        if self._fabric.world_size == 1:
            return wishes
        votes = torch.tensor(wishes, dtype=torch.float32, device=self._fabric.device)
        agreed = self._fabric.all_reduce(votes, reduce_op="sum")
        assert isinstance(agreed, torch.Tensor)
        return tuple(bool(vote) for vote in agreed)

    def _total(self, loss_sum: torch.Tensor) -> float:
        """Return the sum over all processes."""
        total = self._fabric.all_reduce(loss_sum.clone(), reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        return float(total)

    # --- between epochs -------------------------------------------------------------------------

    def _judge(self) -> None:
        """End the epoch: score val, keep the network if it is the best, save now and then."""
        done = self.progress
        self._account()
        train_seconds = done.epoch_seconds
        train_loss = done.loss_sum / self._n_train
        self._check_finite(train_loss, "training")
        network = self._state.average if self._state.average is not None else self._network
        logits = self._logits(network, "val")
        labels = self._images.splits["val"].labels.astype(np.int64)
        val_loss = mean_loss(logits, labels, self._images.n_classes, self._multi_label)
        self._check_finite(val_loss, "val")
        better = val_loss < done.best_loss
        done.waited = 0 if better else done.waited + 1
        if better:
            done.best_loss, done.best_epoch = val_loss, done.epoch + 1
            self._folder.keep_best(network, done.best_epoch, val_loss)
        self._account()
        scores = probabilities(logits, self._multi_label).numpy()
        area = auc(labels, scores, self._images.task)
        row = EpochRow(
            epoch=done.epoch + 1,
            lr=self._step.lr,
            train_loss=train_loss,
            val_loss=val_loss,
            val_acc=accuracy(labels, scores, self._images.task),
            val_auc=None if math.isnan(area) else area,
            images_per_second=self._n_train / train_seconds,
            seconds=done.epoch_seconds,
            best=better,
        )
        self._end_epoch(row)

    def _end_epoch(self, row: EpochRow) -> None:
        done = self.progress
        done.history.append(row)
        done.epoch, done.step, done.loss_sum, done.epoch_seconds = row.epoch, 0, 0.0, 0.0
        self._state.order.set_state(self._drawing.get_state())
        log.info("%s", ", ".join(f"{name} {value}" for name, value in asdict(row).items()))
        self._watch.epoch(row)
        if self._tracker is not None:
            self._tracker.log(_logged(row), row.epoch)
        if self._folder.is_due:
            self._save()

    def _logits(self, network: torch.nn.Module, split: Split) -> torch.Tensor:
        if self._fabric.world_size > 1:
            for buffer in network.buffers():  # one process's batch-norm statistics for all
                torch.distributed.broadcast(buffer, 0)
        # What fits with gradients fits without them.
        batch = -(-self._recipe.batch_size // self._recipe.accumulate)
        return predict(self._fabric, network, self._data[split], self._step.prepare, batch)

    def _account(self) -> None:
        done = self.progress
        seconds, joules = self._stopwatch.lap()
        done.epoch_seconds += seconds
        done.seconds += seconds
        if done.energy_joules is not None:
            done.energy_joules = None if joules is None else done.energy_joules + joules

    def _check_finite(self, loss: float, what: str) -> None:
        if math.isfinite(loss):
            return
        done = self.progress
        kept = "there is no better network yet"
        if done.best_epoch:
            if self._fabric.is_global_zero:
                self._folder.keep_only_best()
            kept = (
                f"the best network so far (epoch {done.best_epoch}, val loss {done.best_loss:.4g}) "
                f"is kept in {self._folder.path}"
            )
        raise RunError(
            f"the {what} loss is not finite in epoch {done.epoch + 1}, step {done.step}; {kept}; "
            "use a smaller --lr, --clip-grad 1, or --precision fp32"
        )

    # --- the saved state ------------------------------------------------------------------------

    def _save(self) -> None:
        self._account()
        if self._fabric.is_global_zero:
            self._folder.save(self._state, self.progress)

    def _restore(self) -> None:
        progress = self._folder.restore(self._state)
        if progress is None:
            return
        self.progress = progress
        self.progress.resumed += 1
        if not self._fabric.is_global_zero:
            self.progress.loss_sum = 0.0  # the first process has the sum of all


def _logged(row: EpochRow) -> dict[str, float | None]:
    return {
        "lr": row.lr,
        "train/loss": row.train_loss,
        "val/loss": row.val_loss,
        "val/acc": row.val_acc,
        "val/auc": row.val_auc,
        "images_per_second": row.images_per_second,
    }
