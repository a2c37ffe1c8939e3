"""Encoders of the registry, by their names: built from what it says, without asking a hub.

Only the weights come from there, from a folder that was carried, or from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import BackboneInfo
from medplus.backbones.registry import Encoder, encoders
from medplus.backbones.servers import from_hub
from medplus.backbones.sources import open_clip, transformers
from medplus.backbones.sources import timm as timm_source
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.backbones.weights_folder import is_weights_folder
from medplus.errors import BackboneError, UsageError, first_line
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRELOGITS, PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch


def claims(name: str) -> bool:
    """Tell a name of the registry."""
    return name in encoders()


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means.

    Raises
    ------
    UsageError
        If the encoder needs code of its own, or its weights have to be had as a file.
    """
    encoder = encoders()[name]
    if encoder.source == "code":
        raise UsageError(
            f"{encoder.title} needs code of its own: {encoder.note or 'see its page'}; see "
            f"{encoder.page}, and name a Python file that makes it (docs/backbones.md)"
        )
    if weights == PRETRAINED and encoder.weights.repository is None:
        raise UsageError(
            f"the weights of {encoder.title} are on no hub: get them at {encoder.page}, and name "
            "the file with --weights FILE"
        )
    return BackboneRef("medical", name, name, name, weights)


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return what the registry says of it."""
    known = encoders()[ref.name.partition("@")[0]]
    return BackboneInfo(
        ref.name, ref.tag, known.dim, known.parameters or 0, known.size, known.mean, known.std,
        licence=known.licence,
    )  # fmt: skip


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the encoder, for an input of the size that it was trained at.

    Raises
    ------
    UsageError, BackboneError
        If its library cannot build it, it takes no images of this size, or its weights cannot be
        had or do not fit.
    """
    encoder = encoders()[ref.tag]
    side = size if fit == "native" else encoder.size
    if encoder.source == "open_clip" and side != encoder.size:
        raise UsageError(
            f"{encoder.title} takes images of {encoder.size} px, not of {side}; use --fit pad or "
            "resize"
        )
    library = _of_library(ref, encoder)
    if library is None:
        with weights_io.same_chance():
            module = _network(encoder)
        if ref.weights_from != NONE:
            _fill(_module(module), encoder, ref)
    else:
        network: Any = transformers.build(library, encoder.size, None, None).module
        if encoder.feature != PRELOGITS:
            network.leave_out_pooler()
        module = _featured(network, encoder)
    if encoder.source == "timm":
        timm_source.check_patches(_module(module), encoder.title, side)
    spec = PreprocessSpec.fitted(encoder.mean, encoder.std, fit, encoder.size)
    return Built(module.eval(), spec)


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes | None]:
    """Return the encoder's tensors that are at hand, for a folder to carry."""
    encoder = encoders()[ref.tag]
    library = _of_library(ref, encoder)
    if library is not None:
        return transformers.whole(library)
    return _module(build(ref, encoder.size, None, None).module).state_dict(), None


# --- the network --------------------------------------------------------------------------------


def _network(encoder: Encoder) -> Any:
    """Make the network of an encoder, with random weights."""
    try:
        return _featured(_MAKERS[encoder.source](encoder), encoder)
    except (BackboneError, UsageError):
        raise
    except Exception as error:
        raise BackboneError(f"{encoder.title} cannot be built: {first_line(error)}") from error


def _featured(network: Any, encoder: Encoder) -> Any:
    """Return what makes the embedding of a network that its authors take."""
    from medplus.backbones.features import Tokens
    from medplus.backbones.modules import PreLogits

    if encoder.feature != PRELOGITS:
        return Tokens(network, encoder.feature)
    return PreLogits(network) if encoder.source == "timm" else network


def _timm(encoder: Encoder) -> Any:
    from torch import nn

    from medplus.backbones.lean import timm

    # Of the classes that arguments may be, those that encoders need.
    classes = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": nn.SiLU}
    arguments = {
        name: classes.get(value, value) if isinstance(value, str) else value
        for name, value in encoder.arguments.items()
    }
    if str(encoder.architecture).startswith("vit_"):
        # Positions of tokens are those of the size that it was trained at, and interpolated.
        arguments = {"img_size": encoder.size, "dynamic_img_size": True, **arguments}
    return timm.create_model(encoder.architecture, pretrained=False, num_classes=0, **arguments)


def _open_clip(encoder: Encoder) -> Any:
    own = ("embed_dim", "quick_gelu")
    vision = {name: value for name, value in encoder.arguments.items() if name not in own}
    settings = {name: encoder.arguments[name] for name in own if name in encoder.arguments}
    card = open_clip.Card({**settings, "vision_cfg": vision}, {})
    return open_clip.tower(card, encoder.name)


def _transformers(encoder: Encoder) -> Any:
    pooled = encoder.feature == PRELOGITS
    card = transformers.Card(encoder.arguments, {"size": encoder.size}, has_pooler=pooled)
    return transformers.random_encoder(card, encoder.name)


_MAKERS = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}


def _module(module: Any) -> Any:
    """Return the network whose tensors files have, without what medplus puts around it."""
    return getattr(module, "network", module)


# --- the weights --------------------------------------------------------------------------------


def _of_library(ref: BackboneRef, encoder: Encoder) -> BackboneRef | None:
    """Return what transformers calls an encoder that it loads itself, of the hub or a folder.

    There the configuration that lies with the weights counts, which may say more.
    """
    place = encoder.weights
    if encoder.source != "transformers" or place.file is not None:
        return None
    if is_weights_folder(ref.weights_from):
        return ref
    name = f"hf:{place.repository}" + (f"@{place.revision}" if place.revision else "")
    return transformers.resolve(name, PRETRAINED) if ref.weights_from == PRETRAINED else None


def _fill(network: Any, encoder: Encoder, ref: BackboneRef) -> None:
    """Give an encoder the tensors of a file, of a folder that was carried, or of the hub."""
    own, rules = network.state_dict(), encoder.weights

    def of_hub() -> Path:
        assert rules.repository is not None and rules.file is not None  # as resolve has seen
        return from_hub(ref.tag, rules.repository, (rules.file,), rules.revision)

    state = weights_io.read_weights(ref.weights_from, ref.tag, lambda: own, of_hub)
    used = {
        name: tensor for name, tensor in (state or {}).items()
        if name in own or not name.startswith(rules.ignore or ("\0",))
    }  # fmt: skip
    used |= {n: own[n] for n in own if n not in used and rules.fresh and n.startswith(rules.fresh)}
    if encoder.source == "open_clip":
        used = {name: tensor for name, tensor in used.items() if name.startswith("visual.")}
    weights_io.fill(network, used, encoder.title, ref.weights_from)
