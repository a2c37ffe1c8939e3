"""Heads that have been trained together, and what scores them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medplus.heads.probe.feed import Feed

_BLOCK_LOGITS = 1 << 24
_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True)
class TrainedHeads:
    """The best heads of a grid.

    Attributes
    ----------
    weight : Tensor of float32, shape (n_seeds, n_settings, n_classes, dim)
    bias : Tensor of float32, shape (n_seeds, n_settings, n_classes)
    val_loss : Tensor of float32, shape (n_seeds, n_settings)
        Mean val loss at the best epoch; NaN where there was no val.
    epochs_run, best_epoch : Tensor of int64, shape (n_seeds, n_settings)
        Counted from 1.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    val_loss: torch.Tensor
    epochs_run: torch.Tensor
    best_epoch: torch.Tensor

    def scores(self, embeddings: torch.Tensor | Feed, multi_label: bool) -> torch.Tensor:
        """Return probabilities, float32, shape (n_seeds, n_settings, n_samples, n_classes)."""
        feed = as_feed(embeddings)
        n_seeds, n_settings, n_classes, _ = self.weight.shape
        found = torch.empty(n_seeds, n_settings, feed.shape[0], n_classes, device=feed.device)
        for part, x in feed.blocks(block_rows(self.bias.numel())):
            logits = torch.einsum("nd,srcd->srnc", x, self.weight) + self.bias.unsqueeze(2)
            found[:, :, part] = logits.sigmoid() if multi_label else logits.softmax(-1)
        return found


def as_feed(embeddings: torch.Tensor | Feed) -> Feed:
    """Return what feeds embeddings, which may lie on the device."""
    return Feed(embeddings) if isinstance(embeddings, torch.Tensor) else embeddings


def block_rows(outputs: int) -> int:
    """Return how many rows are evaluated at once: their logits and their features stay small."""
    return max(1, min(_BLOCK_ROWS, _BLOCK_LOGITS // outputs))
