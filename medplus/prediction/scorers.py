"""From embeddings to the scores of a run: by linear heads, by neighbours, by a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from medplus.backbones.inference import Embedder
from medplus.device import compute_precision
from medplus.embeddings.transform import Transform, transformed
from medplus.evaluation.head import mean_logits
from medplus.heads.knn.search import Neighbours
from medplus.heads.knn.vote import vote_shares
from medplus.heads.saved import SavedHead
from medplus.prediction.reference import Reference
from medplus.training.loss import probabilities
from medplus.vocabulary import Vote

Embeddings = Sequence[np.ndarray]
"""Of the same images by each backbone of a run, float32 (n_samples, dim); mostly one."""


class Scorer(Protocol):
    """Turns embeddings into the scores that the run itself would give."""

    def __call__(self, embeddings: Embeddings) -> np.ndarray:
        """Return float32 (n_samples, n_classes)."""


@dataclass(frozen=True, eq=False)
class LinearHeads:
    """The head of a probe, or the mean of the heads of its folds.

    Attributes
    ----------
    heads : tuple of SavedHead
        Each with what was fitted to make its embeddings of those of the backbones.
    transform : Transform or None
        What else is done to embeddings.
    multi_label : bool
    """

    heads: tuple[SavedHead, ...]
    transform: Transform | None
    multi_label: bool

    def __call__(self, embeddings: Embeddings) -> np.ndarray:
        """Return probabilities, float32 (n_samples, n_classes)."""
        inputs = [transformed(embeddings, head.fit, self.transform) for head in self.heads]
        logits = [
            head.logits(torch.from_numpy(x)) for head, x in zip(self.heads, inputs, strict=True)
        ]
        return probabilities(mean_logits(logits, self.multi_label), self.multi_label).numpy()


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of the nearest train images.

    Attributes
    ----------
    reference : Reference
        Train.
    labels : ndarray of int, shape (n_train, n_labels)
    k, vote
        As for `medplus.knn`.
    n_classes : int
    multi_label : bool
    """

    reference: Reference
    labels: np.ndarray
    k: int
    vote: Vote
    n_classes: int
    multi_label: bool

    def __call__(self, embeddings: Embeddings) -> np.ndarray:
        """Return shares of votes, float32 (n_samples, n_classes)."""
        return self.shares(self.reference.find(embeddings, self.k))

    def shares(self, found: Neighbours) -> np.ndarray:
        """Return the shares of the votes of the first `k` of neighbours that were found."""
        return vote_shares(
            self.labels,
            found.indices[:, : self.k],
            found.distances[:, : self.k],
            self.n_classes,
            self.vote,
            multi_label=self.multi_label,
        )


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The head that was trained with a network: it computes as the network does, batch by batch.

    Attributes
    ----------
    linear : nn.Linear
        On the device of the embedder.
    embedder : Embedder
        The network below it, which says how many images make a batch.
    multi_label : bool
    """

    linear: nn.Linear
    embedder: Embedder
    multi_label: bool

    @torch.inference_mode()
    def __call__(self, embeddings: Embeddings) -> np.ndarray:
        """Return probabilities, float32 (n_samples, n_classes)."""
        [x] = embeddings
        batches = torch.split(torch.from_numpy(x), self.embedder.batch_limit)
        with compute_precision(self.embedder.precision, self.embedder.device):
            parts = [self.linear(x.to(self.embedder.device)).float().cpu() for x in batches]
        return probabilities(torch.cat(parts), self.multi_label).numpy()
