"""Encoders of other libraries behind timm's interface, so that features are taken of them alike.

``forward`` maps images to the embedding that the library itself gives of an image,
``forward_features`` to tokens or maps, of which `medplus.backbones.features` takes its part.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import nn


class OpenClipTower(nn.Module):
    """The image tower of a CLIP model of open_clip.

    Parameters
    ----------
    visual : nn.Module
        Its ``visual``: a transformer or a ResNet of open_clip's own, or a network of timm.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, dim), as ``encode_image`` does."""
        found = self.visual(x)
        embedding: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return embedding

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to normalised tokens (n, n_tokens, width), or to maps (n, width, h, w)."""
        if self._trunk is not None:
            tokens: torch.Tensor = self._trunk.forward_features(x)
            return tokens
        visual: Any = self.visual
        found = visual.forward_intermediates(
            x, indices=1, normalize_intermediates=True, intermediates_only=True,
            output_fmt="NLC" if self.num_prefix_tokens else "NCHW", output_extra_tokens=True,
        )  # fmt: skip
        patches: torch.Tensor = found["image_intermediates"][0]
        if not self.num_prefix_tokens:
            return patches
        return torch.cat([found["image_intermediates_prefix"][0], patches], dim=1)

    @property
    def _trunk(self) -> Any:
        """The network of timm that the tower is, if it is one."""
        return getattr(self.visual, "trunk", None)

    @property
    def cls_token(self) -> Any:
        """The class token's first embedding, or None."""
        if self._trunk is not None:
            return getattr(self._trunk, "cls_token", None)
        return getattr(self.visual, "class_embedding", None)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens stand before the patches."""
        if self._trunk is not None:
            return int(getattr(self._trunk, "num_prefix_tokens", 0) or 0)
        return int(hasattr(self.visual, "class_embedding"))


class TransformersEncoder(nn.Module):
    """The image part of a model of transformers.

    Its embedding is, the first that there is: the projected one of a CLIP model, the pooler's, the
    class token, the mean over patches or maps.

    Parameters
    ----------
    model : nn.Module
        A model whose output has a ``last_hidden_state``; of one for images and text, the whole.
    prefix : int
        How many tokens stand before the patches: class, distillation, registers.
    has_pooler : bool
        Whether the model's ``pooler_output`` is one that was trained.
    """

    def __init__(self, model: Any, prefix: int, has_pooler: bool) -> None:
        super().__init__()
        self.model = getattr(model, "vision_model", model)
        self.projection = getattr(model, "visual_projection", None)
        self.num_prefix_tokens = prefix
        self.cls_token = True if prefix else None
        self.has_pooler = has_pooler
        if not has_pooler:
            self.leave_out_pooler()
        parameters = signature(self.model.forward).parameters
        known = "interpolate_pos_encoding" in parameters
        self._options = {"interpolate_pos_encoding": True} if known else {}

    def leave_out_pooler(self) -> None:
        """Drop the pooler: of one that was never trained, weights are drawn at random."""
        self.has_pooler = False
        if hasattr(self.model, "pooler"):
            self.model.pooler = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, dim)."""
        if self.has_pooler:
            pooled = self.forward_pooler(x)
            return pooled if self.projection is None else self.projection(pooled)
        hidden = self.forward_features(x)
        if self.num_prefix_tokens:
            return hidden[:, 0]
        return hidden.mean((2, 3) if hidden.ndim == 4 else 1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to tokens (n, n_tokens, width), or to maps (n, width, h, w)."""
        hidden: torch.Tensor = self.model(pixel_values=x, **self._options).last_hidden_state
        return hidden

    def forward_pooler(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to what the model's own pooler makes of them, (n, width)."""
        pooled: torch.Tensor = self.model(pixel_values=x, **self._options).pooler_output
        return pooled.flatten(1)
