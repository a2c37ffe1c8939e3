"""Heads as a probe's run keeps them: one, or those of all folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.store import EmbeddingStore
from medplus.embeddings.transform import Fit, Transform
from medplus.run.ledger import read_head
from medplus.run.record import RunRecord

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SavedHead:
    """A linear head, and what was fitted to make its embeddings.

    Attributes
    ----------
    weight : Tensor of float32, shape (n_classes, dim)
    bias : Tensor of float32, shape (n_classes,)
    fit : Fit
    """

    weight: torch.Tensor
    bias: torch.Tensor
    fit: Fit

    @property
    def dim(self) -> int:
        """Of the embeddings that it takes."""
        return int(self.weight.shape[1])

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of embeddings, float32 (n, n_classes), on their device.

        They are summed in float64 and rounded once, so that those of an image do not depend on
        which others it is computed with.

        Parameters
        ----------
        x : Tensor of float32, shape (n, dim)
        """
        import torch

        weight, bias = (own.to(x.device, torch.float64) for own in (self.weight, self.bias))
        return (x.double() @ weight.T + bias).float()


def read_heads(run: Path) -> list[SavedHead]:
    """Read the head of a probe, or those of its folds in their order.

    Raises
    ------
    RunError
        If they are missing or damaged.
    """
    tensors = read_head(run)
    if "weight" in tensors:
        return [_head(tensors)]
    numbers = sorted({int(name.partition(".")[0].removeprefix("fold")) for name in tensors})
    return [
        _head({name.removeprefix(f"fold{n}."): t for name, t in tensors.items()
               if name.startswith(f"fold{n}.")})
        for n in numbers
    ]  # fmt: skip


def _head(tensors: Mapping[str, torch.Tensor]) -> SavedHead:
    fit = Fit.read({name: t.numpy() for name, t in tensors.items() if name.startswith("input.")})
    return SavedHead(tensors["weight"].float(), tensors["bias"].float(), fit)


def derived(
    record: RunRecord, parts: list[EmbeddingStore], fit: Fit | None = None
) -> EmbeddingStore:
    """Return the embeddings that a record tells of, made of others as it tells.

    Parameters
    ----------
    parts : list of EmbeddingStore
        One for each of the record's parts, or the store itself where it has none.
    fit : Fit, optional
        What was fitted; by default it is fitted on the train of `parts`.
    """
    if record.store is None or not record.store.parts:
        return parts[0]
    named = record.config.get("transform")
    return DerivedStore(parts, None if named is None else Transform.parse(named), fit)
