"""SAM's encoder at another input size than its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def bake_sam_tables(network: Any, canvas: int) -> None:
    """Resize SAM's position tables to the canvas once, instead of in every forward.

    SAM's encoder is native to 1024 px and interpolates its absolute and relative position tables
    whenever its input is smaller. For a frozen network the result is always the same, so it is
    stored; the output is identical.
    """
    from timm.layers import resample_abs_pos_embed_nhwc
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    if not isinstance(network, VisionTransformerSAM):
        return
    grid = [canvas // side for side in network.patch_embed.patch_size]
    with torch.no_grad():
        if network.pos_embed is not None:
            table = resample_abs_pos_embed_nhwc(network.pos_embed, grid)
            network.pos_embed = nn.Parameter(table.clone(), requires_grad=False)
        for block in network.blocks:
            if block.window_size == 0 and block.attn.use_rel_pos:
                for name, side in zip(("rel_pos_h", "rel_pos_w"), grid, strict=True):
                    table = _resize_rel_pos(getattr(block.attn, name), 2 * side - 1)
                    setattr(block.attn, name, nn.Parameter(table, requires_grad=False))


def _resize_rel_pos(table: torch.Tensor, length: int) -> torch.Tensor:
    if table.shape[0] == length:
        return table.detach()
    rows = table.T.unsqueeze(0)
    return F.interpolate(rows, size=length, mode="linear").squeeze(0).T.contiguous()
