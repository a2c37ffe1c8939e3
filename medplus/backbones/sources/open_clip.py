"""Image towers of CLIP models, through open_clip: ``open_clip:ARCHITECTURE/WEIGHTS``.

``open_clip:ViT-B-16/openai`` names one of its own list, ``open_clip:hf-hub:org/name`` one of the
hub in its format, ``open_clip:FOLDER`` one of those in a folder. Only the tower is built and read:
the text side, which may need further files of the hub, is never asked for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.backbones import servers
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import BackboneInfo
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.backbones.weights_folder import find_config
from medplus.errors import BackboneError, UsageError, first_line, nearest, optional
from medplus.preprocess import PreprocessSpec
from medplus.spec import PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch

PREFIX = "open_clip:"
HUB = "hf-hub:"
_CONFIG = "open_clip_config.json"
_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
"""Where folders and the hub keep the weights, as open_clip looks for them."""
_TOWER = "visual."


@dataclass(frozen=True)
class Card:
    """What a tower is: open_clip's own configuration of the model and of its images."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]

    @property
    def size(self) -> int:
        """Height and width of the input in pixels."""
        size = self.model_cfg["vision_cfg"].get("image_size", 224)
        return int(size if isinstance(size, int) else size[0])

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std per channel, on the scale 0 to 1."""
        library, said = _library(), self.preprocess_cfg
        mean = said.get("mean") or library.OPENAI_DATASET_MEAN
        return tuple(mean), tuple(said.get("std") or library.OPENAI_DATASET_STD)


def claims(name: str) -> bool:
    """Tell a name by its prefix."""
    return name.startswith(PREFIX)


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means, without asking the hub.

    Raises
    ------
    UsageError
        If open_clip has no such architecture or weights, or the folder holds no model.
    """
    model = name.removeprefix(PREFIX)
    if model.startswith(HUB):
        short = tag = name
    elif model and Path(model).is_dir():
        folder = Path(model).resolve()
        if not (folder / _CONFIG).is_file():
            raise UsageError(f"{folder} is no model of open_clip: it has no {_CONFIG}")
        short, tag = f"{PREFIX}{folder.name}", f"{PREFIX}{folder}"
    else:
        short = tag = f"{PREFIX}{_known(model, weights)}"
    return BackboneRef("open_clip", tag, short, tag, weights)


def _known(model: str, weights: str) -> str:
    """Return the name of a model of open_clip's list, or refuse it."""
    open_clip = _library()
    architecture, _, of = model.partition("/")
    models = open_clip.list_models()
    if architecture not in models:
        raise UsageError(
            f"open_clip has no model '{architecture}'{nearest(architecture, models)}; name "
            "one as open_clip:ViT-B-16/openai, open_clip:hf-hub:org/name or open_clip:FOLDER"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if of not in tags and (of or weights == PRETRAINED):
        raise UsageError(
            f"open_clip has no weights '{of}' of {architecture}{nearest(of, tags)} "
            f"(there: {', '.join(tags) or 'none'}); name one as {PREFIX}{architecture}/"
            f"{tags[0] if tags else '…'}, or say --weights"
        )
    return model


def describe(ref: BackboneRef) -> BackboneInfo:
    """Build the tower without memory, and return its facts."""
    import torch

    card = _card(ref)
    with torch.device("meta"):
        network = tower(card, ref.tag)
        dim = int(network(torch.zeros(1, 3, card.size, card.size)).shape[1])
    return BackboneInfo.of(ref, network, dim, card.size, *card.normalisation, fixed_size=True)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the tower, for an input of the size that it was trained at."""
    card = _card(ref)
    if fit == "native" and size != card.size:
        raise UsageError(
            f"{ref.tag} takes images of {card.size} px, not of {size}; use --fit pad or resize"
        )
    with weights_io.same_chance():
        network = tower(card, ref.tag)
    state = weights_io.read_weights(
        ref.weights_from, ref.tag, network.state_dict, lambda: _weights_file(ref.tag)
    )
    if state is not None:
        own = {name: tensor for name, tensor in state.items() if name.startswith(_TOWER)}
        weights_io.fill(network, own, ref.tag, ref.weights_from)
    spec = PreprocessSpec.fitted(*card.normalisation, fit, card.size)
    return Built(network, spec, card=asdict(card))


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes]:
    """Return the tower's tensors that are at hand, and its card, for a folder to carry."""
    card = _card(ref)
    built = build(ref, card.size, None, None)
    return built.module.state_dict(), json.dumps(built.card).encode()


# --- the parts ----------------------------------------------------------------------------------


def _library() -> Any:
    return optional("open_clip", f"a backbone of {PREFIX}", "open_clip_torch")


def _card(ref: BackboneRef) -> Card:
    """Read the configuration: open_clip's own, a folder's, the hub's, or one that was carried."""
    if ref.card is not None:
        return Card(**ref.card)
    model = ref.tag.removeprefix(PREFIX)
    if (carried := find_config(ref.weights_from, ref.tag)) is not None:
        return _parse((carried / "config.json").read_bytes(), ref.tag)
    if model.startswith(HUB):
        return _parse(_of_hub(ref.tag, (_CONFIG,)).read_bytes(), ref.tag)
    if Path(model).is_absolute():
        return _parse((Path(model) / _CONFIG).read_bytes(), ref.tag)
    open_clip = _library()
    architecture, _, of = model.partition("/")
    trained = open_clip.get_pretrained_cfg(architecture, of) if of else {}
    config = open_clip.get_model_config(architecture)
    # What the weights were trained with counts, as open_clip only warns that it should.
    config["quick_gelu"] = bool(trained.get("quick_gelu", config.get("quick_gelu", False)))
    return Card(config, {key: trained[key] for key in ("mean", "std") if trained.get(key)})


def _parse(document: bytes, tag: str) -> Card:
    try:
        found = json.loads(document)
        return Card(found["model_cfg"], found.get("preprocess_cfg") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(f"the configuration of {tag} is damaged: {first_line(error)}") from None


def tower(card: Card, tag: str) -> Any:
    """Make the tower alone: the model's text side is made as small as it can be, and dropped."""
    from medplus.backbones.encoders import OpenClipTower

    open_clip = _library()
    config = card.model_cfg
    vision = {**config["vision_cfg"], "output_tokens": False, "timm_model_pretrained": False}
    text = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
    try:
        model = open_clip.CLIP(
            embed_dim=config["embed_dim"], vision_cfg=vision, text_cfg=text,
            quick_gelu=bool(config.get("quick_gelu", False)),
        )  # fmt: skip
    except Exception as error:
        raise BackboneError(f"open_clip cannot build {tag}: {first_line(error)}") from error
    return OpenClipTower(model.visual).eval()


def _weights_file(tag: str) -> Path:
    """Return the file with a model's pretrained weights, fetched if it is not in the cache."""
    model = tag.removeprefix(PREFIX)
    if model.startswith(HUB):
        return _of_hub(tag, _FILES)
    if Path(model).is_absolute():
        found = [Path(model) / name for name in _FILES if (Path(model) / name).is_file()]
        if not found:
            raise BackboneError(f"{model} holds no weights: none of {', '.join(_FILES)} is there")
        return found[0]
    open_clip = _library()
    servers.go_offline_if_unreachable()
    try:
        with servers.no_waiting_for_rate_limits():
            config = open_clip.get_pretrained_cfg(*model.split("/", 1))
            return Path(open_clip.download_pretrained(config))
    except Exception as error:
        raise servers.fetch_error(tag, error) from error


def _of_hub(tag: str, files: tuple[str, ...]) -> Path:
    repository, _, revision = tag.removeprefix(PREFIX + HUB).partition("@")
    return servers.from_hub(tag, repository, files, revision or None)
