"""The loss of a batch, one value per sample, for hard and for mixed or smoothed targets."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812


def make_targets(
    labels: torch.Tensor, n_classes: int, multi_label: bool, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the distribution that predictions should match.

    Parameters
    ----------
    labels : Tensor of int64, shape (n, n_labels)
    smoothing : float
        Share of the target that is spread evenly over the classes (Szegedy et al., CVPR 2016,
        section 7), or moved towards one half for every label of a multi-label task.

    Returns
    -------
    Tensor of float32, shape (n, n_classes)
    """
    if multi_label:
        return labels.float() * (1 - smoothing) + smoothing / 2
    return F.one_hot(labels[:, 0], n_classes).float() * (1 - smoothing) + smoothing / n_classes


def sample_losses(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Return the cross-entropy of every sample, float32 (n,); for multi-label the mean of labels.

    Parameters
    ----------
    logits : Tensor, shape (n, n_classes)
    targets : Tensor of float32, shape (n, n_classes)
    """
    logits = logits.float()
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return F.cross_entropy(logits, targets, reduction="none")


def mean_loss(logits: torch.Tensor, labels: np.ndarray, n_classes: int, multi_label: bool) -> float:
    """Return the mean over samples of the loss without smoothing; labels (n, n_labels)."""
    hard = torch.from_numpy(labels.astype(np.int64))
    losses = sample_losses(logits, make_targets(hard, n_classes, multi_label), multi_label)
    return float(losses.double().mean())


def probabilities(logits: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Return class probabilities, or one per label, float32 (n, n_classes).

    They are computed in float64 and rounded: in float32 the last bit may depend on which samples
    are computed together.
    """
    logits = logits.double()
    return (logits.sigmoid() if multi_label else logits.softmax(1)).float()
