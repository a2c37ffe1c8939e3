"""The backbones of a run, loaded again and checked to be those that it was made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medplus.backbones import build, sources
from medplus.backbones.build import Backbone, load_backbone
from medplus.backbones.finetuned import network_file
from medplus.backbones.inference import Embedder
from medplus.device import resolve_precision
from medplus.embeddings.tuning import Tuned
from medplus.errors import BackboneError, UsageError
from medplus.evaluation.network import batch_on, embedder_as_trained, read_trained_head
from medplus.run.record import PartFacts, RunRecord
from medplus.spec import PRELOGITS, PRETRAINED

MOST = 1 << 16
"""Images that an embedder takes at once, where others decide how many it is given."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A backbone that embeds as the run's own embeddings were made.

    Attributes
    ----------
    embedder : Embedder
        uint8 images in, float32 embeddings out.
    dtype : dtype of float32 or float16
        In which the run's embeddings are stored, and to which these are rounded.
    tuned : Tuned or None
        Gives the embedder its batches as an extraction does, where many images are to come.
    """

    embedder: Embedder
    dtype: np.dtype
    tuned: Tuned | None = None

    @property
    def backbone(self) -> Backbone:
        """The network, its preprocessing and what identifies it."""
        return self.embedder.backbone

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Return embeddings as the run's are read from their store, float32 (n, dim)."""
        embed = self.tuned or self.embedder
        values: np.ndarray = embed(images).cpu().numpy()
        with np.errstate(over="ignore"):
            return values.astype(self.dtype, copy=False).astype(np.float32, copy=False)

    def tuned_for(self, n_images: int, nbytes: int, batch_size: int | None) -> Extractor:
        """Return the same for many images, each of `nbytes`, in batches that suit the machine."""
        tuned = Tuned(self.embedder, n_images, nbytes, batch_size)
        self.embedder.batch_limit = MOST
        return replace(self, tuned=tuned)


def load_extractor(
    run: Path,
    part: PartFacts,
    size: int,
    device: torch.device,
    named: str | None = None,
    precision: str | None = None,
) -> Extractor:
    """Load the backbone of stored embeddings.

    Parameters
    ----------
    run : Path
        Of which the embeddings are, for messages.
    part : PartFacts
    size : int
        Of the images in pixels.
    named : str, optional
        Where the backbone is now: code runs only when it is named.
    precision : str, optional
        By default that of the embeddings.

    Raises
    ------
    UsageError
        If the backbone is code that is not named.
    BackboneError
        If it cannot be had, or is not the one that the embeddings are of.
    """
    spec = part.spec
    if named is None and sources.is_code(spec.backbone):
        raise UsageError(
            f"the embeddings of {run} are those of {spec.backbone}, code that runs only when you "
            f"name it: --backbone {spec.backbone}"
        )
    ref = sources.resolve(named or spec.backbone, spec.weights or PRETRAINED)
    feature = spec.feature or PRELOGITS
    backbone = build.load(ref, size, spec.fit, feature=feature)
    if backbone.digest != part.backbone_digest:
        raise BackboneError(
            f"{backbone.tag} is here with other weights or another normalisation than the "
            f"embeddings of {run} were made with; name the backbone as it was with --backbone"
        )
    asked = precision or spec.precision or "fp32"
    compute = resolve_precision(asked, device) if backbone.is_network else "fp32"
    dtype = np.dtype(spec.dtype or "float32")
    return Extractor(Embedder(backbone, device, compute, batch_on(device)), dtype)


def load_trained(
    run: Path,
    record: RunRecord,
    device: torch.device,
    code: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> tuple[Extractor, nn.Linear]:
    """Load the network of a fine-tuned run, as `medplus.evaluate` does, and its head apart.

    Raises
    ------
    UsageError, BackboneError
        If the network is damaged, or code that is not named.
    """
    backbone = load_backbone(str(network_file(run)), size=record.size, code=code)
    description, head = read_trained_head(run)
    compute = resolve_precision(precision or description.precision, device)
    embedder = embedder_as_trained(backbone, record, device, compute, batch_size)
    return Extractor(embedder, np.dtype("float32")), head.to(device).eval()
