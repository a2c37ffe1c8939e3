"""A run's model as one module of torch: uint8 images in, embeddings and scores out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from medplus.embeddings.transform import Fit, Transform
from medplus.heads.saved import SavedHead
from medplus.prediction.model import Model
from medplus.prediction.scorers import LinearHeads, TrainedHead, Votes
from medplus.preprocess import LUMA, PreprocessSpec


class PackagedModel(nn.Module):
    """Everything between an image's pixels and its scores, in float32.

    Neighbours are left to whoever loads it: of kNN its output is the embedding alone.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        size, grey = model.record.size, model.reading.channels == "grey"
        backbones = [extractor.backbone for extractor in model.extractors]
        self.inputs = nn.ModuleList(Pixels(b.preprocess, size, grey) for b in backbones)
        self.backbones = nn.ModuleList(b.module for b in backbones)
        scorer = model.scorer
        self.made = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.multi_label = bool(getattr(scorer, "multi_label", False))
        if isinstance(scorer, Votes):
            reference = scorer.reference
            self.made.append(Made(reference.fit, reference.transform))
        elif isinstance(scorer, LinearHeads):
            for head in scorer.heads:
                self.made.append(Made(head.fit, scorer.transform))
                self.heads.append(_linear(head))
        else:
            assert isinstance(scorer, TrainedHead)
            self.made.append(Made(Fit(), None))
            self.heads.append(scorer.linear)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map images to embeddings (n, dim) and, but for kNN, to probabilities (n, n_classes).

        Parameters
        ----------
        images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)
        """
        parts = [
            network(pixels(images)).flatten(1)
            for pixels, network in zip(self.inputs, self.backbones, strict=True)
        ]
        made = [one(parts) for one in self.made]
        if not len(self.heads):
            return (made[0],)
        logits = [head(x) for head, x in zip(self.heads, made, strict=True)]
        each = [one.sigmoid() if self.multi_label else one.softmax(1) for one in logits]
        return made[0], torch.stack(each).mean(0)


class Pixels(nn.Module):
    """`medplus.preprocess` for images of one size, in operations that every format has.

    To resize is linear: the image between two matrices, which torch's own resizing of the identity
    gives.
    """

    def __init__(self, spec: PreprocessSpec, size: int, grey: bool) -> None:
        super().__init__()
        spec.check(size)
        self.spec, self.grey = spec, grey
        self.before = self.after = 0
        self.resizes = spec.fit == "resize" and spec.canvas not in (None, size)
        if self.resizes:
            assert spec.canvas is not None
            same = torch.eye(size)[None, None]
            rows = F.interpolate(same, size=(spec.canvas, size), mode="bicubic", antialias=True)
            self.register_buffer("rows", rows[0, 0])
        if spec.fit == "pad" and spec.canvas is not None:
            self.before = (spec.canvas - size) // 2
            self.after = spec.canvas - size - self.before
        if spec.mean:
            shape = (1, len(spec.mean), 1, 1)
            self.register_buffer("mean", torch.tensor(spec.mean).view(shape))
            self.register_buffer("std", torch.tensor(spec.std).view(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to planes, as `medplus.preprocess.normalise` does, and pad them."""
        own: Any = self
        pixels = (images.unsqueeze(1) if self.grey else images.permute(0, 3, 1, 2)).float()
        if self.resizes:
            pixels = (own.rows @ pixels @ own.rows.T).clamp(0, 255)
        pixels = pixels / 255.0
        if self.spec.mean:
            if not self.spec.rgb and not self.grey:
                weights = pixels.new_tensor(LUMA).view(1, 3, 1, 1)
                pixels = (pixels * weights).sum(1, keepdim=True)
            pixels = (pixels - own.mean) / own.std
        if not (self.before or self.after):
            return pixels
        return F.pad(pixels, (self.before, self.after, self.before, self.after))


class Made(nn.Module):
    """`medplus.embeddings.transform` in torch: what is made of the backbones' embeddings."""

    def __init__(self, fit: Fit, transform: Transform | None) -> None:
        super().__init__()
        self.length = transform is not None and transform.kind == "l2"
        self.joins = bool(fit.means)
        self.projects = fit.centre is not None and fit.components is not None
        if self.joins:
            self.register_buffer("means", torch.cat([torch.from_numpy(m) for m in fit.means]))
            self.register_buffer("scales", torch.cat([torch.from_numpy(s) for s in fit.scales]))
        if fit.centre is not None and fit.components is not None:
            components = torch.from_numpy(fit.components)
            self.register_buffer("components", components.float())
            self.register_buffer("offset", (torch.from_numpy(fit.centre) @ components.T).float())

    def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Map embeddings of each backbone to those that heads take."""
        own: Any = self
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if self.joins:
            x = (x - own.means) / own.scales
        if self.projects:
            x = x @ own.components.T - own.offset
        if self.length:
            norms = x.square().sum(1, keepdim=True).sqrt()
            x = x / torch.where(norms == 0, torch.ones_like(norms), norms)
        return x


def _linear(head: SavedHead) -> nn.Linear:
    linear = nn.Linear(head.dim, len(head.bias))
    linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    return linear
