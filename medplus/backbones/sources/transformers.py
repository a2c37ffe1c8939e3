"""Image models of the hub in the format of transformers: ``hf:org/name[@revision]``, ``hf:FOLDER``.

Of a model for images and text its image part is taken. Code of a repository is never run.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.backbones import servers
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import BackboneInfo
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.backbones.weights_folder import CONFIG, find_config
from medplus.errors import BackboneError, UsageError, first_line, optional
from medplus.preprocess import PreprocessSpec
from medplus.progress import SAID
from medplus.spec import NONE, PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch

    from medplus.backbones.encoders import TransformersEncoder

log = logging.getLogger(__name__)

PREFIX = "hf:"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_POOLER = "pooler."


@dataclass(frozen=True)
class Card:
    """What a model is: transformers' own configuration of the model and of its images."""

    config: dict[str, Any]
    images: dict[str, Any]
    has_pooler: bool = True

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std per channel, on the scale 0 to 1."""
        if self.images.get("do_normalize") is False:
            return (0.0,) * 3, (1.0,) * 3
        mean, std = (self.images.get(f"image_{name}") for name in ("mean", "std"))
        if mean is None or std is None:
            return _IMAGENET
        # x · factor, then normalised: the same as x / 255 with mean and std on that scale.
        scale = 255 * float(self.images.get("rescale_factor") or 1 / 255)
        return tuple(float(m) / scale for m in mean), tuple(float(s) / scale for s in std)

    @property
    def size(self) -> int:
        """Height and width of the input in pixels: as images are cut, else as the model is made."""
        for key in ("crop_size", "size") if self.images.get("do_center_crop") else ("size",):
            size = self.images.get(key)
            if isinstance(size, dict):
                size = size.get("height") or size.get("shortest_edge")
            if size:
                return int(size)
        vision = self.config.get("vision_config") or self.config
        size = vision.get("image_size") or 224
        return int(size if isinstance(size, int) else size[0])


def claims(name: str) -> bool:
    """Tell a name by its prefix."""
    return name.startswith(PREFIX)


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means, without asking the hub.

    Raises
    ------
    UsageError
        If it is no repository's name, and no folder with a model.
    """
    model = name.removeprefix(PREFIX)
    if model and Path(model).is_dir():
        folder = Path(model).resolve()
        if not (folder / CONFIG).is_file():
            raise UsageError(f"{folder} is no model of transformers: it has no {CONFIG}")
        short, tag = f"{PREFIX}{folder.name}", f"{PREFIX}{folder}"
    elif model.count("/") == 1 and not model.startswith((".", "/")):
        short = tag = name
    else:
        raise UsageError(
            f"'{name}' is no model: name a repository as hf:facebook/dinov2-base, or a folder"
        )
    return BackboneRef("transformers", tag, short, tag, weights)


def describe(ref: BackboneRef) -> BackboneInfo:
    """Build the model without memory, and return its facts."""
    import torch

    card = _card(ref)
    with torch.device("meta"):
        encoder = _encoder(_random(card, ref.tag), card)
        dim = int(encoder(torch.zeros(1, 3, card.size, card.size)).shape[1])
    return BackboneInfo.of(ref, encoder, dim, card.size, *card.normalisation)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the model's image part, for an input of the size that its processor makes."""
    card = _card(ref)
    if not {"image_mean", "image_std"} <= card.images.keys() and card.images.get(
        "do_normalize", True
    ):
        log.log(SAID, "%s does not say how images are normalised: as ImageNet's are, is assumed",
                ref.tag)  # fmt: skip
    encoder = _loaded(ref, card)
    spec = PreprocessSpec.fitted(*card.normalisation, fit, card.size)
    card = replace(card, has_pooler=encoder.has_pooler)
    return Built(encoder.eval(), spec, card=asdict(card))


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes]:
    """Return the encoder's tensors that are at hand, and its card, for a folder to carry."""
    built = build(ref, _card(ref).size, None, None)
    return built.module.state_dict(), json.dumps(built.card).encode()


# --- the parts ----------------------------------------------------------------------------------


def _library() -> Any:
    return optional("transformers", f"a backbone of {PREFIX}")


def _place(tag: str) -> tuple[str, dict[str, Any]]:
    """Return what transformers calls a model: its folder or repository, and the revision."""
    model, _, revision = tag.removeprefix(PREFIX).partition("@")
    if Path(tag.removeprefix(PREFIX)).is_dir():
        return tag.removeprefix(PREFIX), {"local_files_only": True}
    return model, {"revision": revision} if revision else {}


def _card(ref: BackboneRef) -> Card:
    """Read the configuration: the repository's, the folder's, or one that was carried or kept."""
    if ref.card is not None:
        return Card(**ref.card)
    if (carried := find_config(ref.weights_from, ref.tag)) is not None:
        return Card(**json.loads((carried / CONFIG).read_bytes()))
    transformers = _library()
    place, options = _place(ref.tag)
    if not options.get("local_files_only"):
        servers.go_offline_if_unreachable()
    try:
        with servers.no_waiting_for_rate_limits():
            config, _ = transformers.PreTrainedConfig.get_config_dict(place, **options)
            images = _images(place, options)
    except Exception as error:
        raise _unread(ref, error) from error
    if "auto_map" in config and config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise BackboneError(
            f"{ref.tag} needs code of its own repository, which medplus never runs; wrap it in a "
            "Python file (docs/backbones.md)"
        )
    return Card(config, images)


def _images(place: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the model's images, which a repository need not have."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(place, **options)
    except OSError:
        return {}
    return dict(found)


def _unread(ref: BackboneRef, error: Exception) -> BackboneError:
    if Path(ref.tag.removeprefix(PREFIX)).is_dir():
        return BackboneError(f"the model {ref.tag} cannot be read: {first_line(error)}")
    return servers.fetch_error(ref.tag, error)


def _config(card: Card, tag: str) -> Any:
    transformers = _library()
    settings = dict(card.config)
    kind = settings.pop("model_type", None)
    if kind not in transformers.CONFIG_MAPPING:
        raise BackboneError(
            f"{tag} is of the kind '{kind}', which this version of transformers does not know"
        )
    config = transformers.CONFIG_MAPPING[kind].from_dict(settings)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # a masked autoencoder hides patches at random otherwise
    return config


def _random(card: Card, tag: str) -> Any:
    transformers = _library()
    try:
        return transformers.AutoModel.from_config(_config(card, tag)).eval()
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(f"transformers cannot build {tag}: {first_line(error)}") from error


def random_encoder(card: Card, tag: str) -> TransformersEncoder:
    """Return an encoder with random weights, made from its card alone."""
    return _encoder(_random(card, tag), card)


def _loaded(ref: BackboneRef, card: Card) -> TransformersEncoder:
    """Return the encoder with its weights."""
    if ref.weights_from != PRETRAINED:
        with weights_io.same_chance():
            encoder = random_encoder(card, ref.tag)
        if ref.weights_from != NONE:
            state = weights_io.read_weights(ref.weights_from, ref.tag, encoder.state_dict)
            weights_io.fill(encoder, state or {}, ref.tag, ref.weights_from)
        return encoder
    transformers = _library()
    place, options = _place(ref.tag)
    try:
        with servers.no_waiting_for_rate_limits(), weights_io.same_chance():
            model, found = transformers.AutoModel.from_pretrained(
                place, config=_config(card, ref.tag), trust_remote_code=False,
                output_loading_info=True, dtype="float32", **options,
            )  # fmt: skip
    except BackboneError:
        raise
    except Exception as error:
        raise _unread(ref, error) from error
    missing = [name for name in found["missing_keys"] if not name.startswith("text")]
    untrained = [name for name in missing if _POOLER in name]
    if untrained:
        log.log(SAID, "%s has no trained pooler: its embedding is the class token", ref.tag)
    if len(untrained) < len(missing) or found["mismatched_keys"]:
        first = next(iter([n for n in missing if n not in untrained] or found["mismatched_keys"]))
        raise BackboneError(
            f"the weights of {ref.tag} do not fill the model: '{first}' is not there; it is not "
            "what its configuration says"
        )
    return _encoder(model.eval(), card, has_pooler=not untrained)


def _encoder(model: Any, card: Card, *, has_pooler: bool = True) -> TransformersEncoder:
    """Return the image part of a model; a twin without memory shows how it lays out tokens."""
    import torch

    from medplus.backbones.encoders import TransformersEncoder

    with torch.device("meta"):
        probe = TransformersEncoder(_random(card, ""), 0, has_pooler=True)
        images = torch.zeros(1, 3, card.size, card.size)
        seen = probe.model(pixel_values=images)
    prefix = 0
    patch = getattr(probe.model.config, "patch_size", None)
    if seen.last_hidden_state.ndim == 3 and isinstance(patch, int):
        prefix = max(0, seen.last_hidden_state.shape[1] - (card.size // patch) ** 2)
    has_pooler &= card.has_pooler and getattr(seen, "pooler_output", None) is not None
    return TransformersEncoder(model, prefix, has_pooler)
