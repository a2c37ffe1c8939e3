"""What identifies a backbone's embeddings, whether it is loaded or was once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medplus.backbones.catalog import PIXELS
from medplus.jsonfile import digest_of

if TYPE_CHECKING:
    from medplus.backbones.sources.ref import BackboneRef
    from medplus.preprocess import PreprocessSpec


@dataclass(frozen=True)
class Identity:
    """All of a backbone but its network.

    Attributes
    ----------
    ref : BackboneRef
        What its name was resolved to.
    preprocess : PreprocessSpec
    weights_sha256 : str
        Digest of the weights in memory.
    feature : str
        The definition of the embedding, as for `medplus.backbones.build.load_backbone`; or
        ``pixels``.
    licence : str
        Of the pretrained weights; empty where it is not known, or where there are none.
    """

    ref: BackboneRef
    preprocess: PreprocessSpec
    weights_sha256: str
    feature: str
    licence: str = ""

    @property
    def name(self) -> str:
        """The canonical short name."""
        return self.ref.name

    @property
    def tag(self) -> str:
        """The full name."""
        return self.ref.tag

    @property
    def run_id(self) -> str | None:
        """The fine-tuned run whose network this is."""
        return self.ref.run_id

    @property
    def weights(self) -> str:
        """``pretrained``, ``none``, or the absolute path of the file; of a run, its network's."""
        return self.ref.weights if self.run_id is None else self.ref.spelling

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what makes the backbone: full name, weights, and normalisation."""
        spec = self.preprocess
        return digest_of(
            {
                "tag": self.tag,
                "weights": self.weights_sha256,
                "mean": spec.mean,
                "std": spec.std,
                "canvas": spec.canvas,
                "rgb": spec.rgb,
            }
        )

    @property
    def is_network(self) -> bool:
        """False for the raw-pixel baseline, which has nothing to compute in half precision."""
        return self.feature != PIXELS

    @property
    def architecture(self) -> tuple[str, str]:
        """Canonical name and full tag of what was built, without the run that trained it."""
        run = f"@{self.run_id}"
        return self.name.removesuffix(run), self.tag.removesuffix(run)
