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
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.errors import BackboneError, UsageError, first_line
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRETRAINED
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
    return BackboneRef(
        "medical", name, name, name, weights_io.check_weights(weights, name), weights
    )


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return what the registry says of it."""
    known = encoders()[ref.name.partition("@")[0]]
    return BackboneInfo(
        ref.name, ref.tag, known.dim, known.parameters, known.size, known.mean, known.std,
        fixed_size=False, licence=known.licence,
    )  # fmt: skip


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the encoder, for an input of the size that it was trained at.

    Raises
    ------
    BackboneError
        If its library cannot build it, or its weights cannot be had or do not fit.
    """
    encoder = encoders()[ref.tag]
    canvas = size if fit == "native" else encoder.size
    with weights_io.same_chance():
        module = _network(encoder, canvas)
    state = None if ref.weights_from == NONE else _state(ref, encoder, module)
    if state is not None:
        _fill(module, state, encoder, ref)
    spec = PreprocessSpec(
        encoder.mean, encoder.std, fit or "pad", None if fit == "native" else encoder.size
    )
    return Built(module.eval(), spec)


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], None]:
    """Return the encoder's tensors that are at hand, for a folder to carry."""
    encoder = encoders()[ref.tag]
    return _module(build(ref, encoder.size, None, None).module).state_dict(), None


# --- the parts ----------------------------------------------------------------------------------


def _network(encoder: Encoder, canvas: int) -> Any:
    """Make the network of an encoder, with random weights."""
    try:
        return _MAKERS[encoder.source](encoder, canvas)
    except (BackboneError, UsageError):
        raise
    except Exception as error:
        raise BackboneError(f"{encoder.title} cannot be built: {first_line(error)}") from error


def _timm(encoder: Encoder, canvas: int) -> Any:
    from medplus.backbones.lean import timm
    from medplus.backbones.modules import PreLogits, Recommended

    arguments = {name: _value(value) for name, value in encoder.arguments.items()}
    arguments.setdefault("img_size", canvas)
    network = timm.create_model(encoder.architecture, pretrained=False, num_classes=0, **arguments)
    if encoder.feature == "prelogits":
        return PreLogits(network)
    return Recommended(network, encoder.feature)


def _value(value: Any) -> Any:
    """Return an argument; of the classes that arguments may be, those that encoders need."""
    from timm.layers import SwiGLUPacked
    from torch import nn

    classes = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}
    return classes.get(value, value) if isinstance(value, str) else value


def _open_clip(encoder: Encoder, canvas: int) -> Any:
    own = ("embed_dim", "quick_gelu")
    vision = {name: value for name, value in encoder.arguments.items() if name not in own}
    settings = {name: encoder.arguments[name] for name in own if name in encoder.arguments}
    card = open_clip.Card({**settings, "vision_cfg": vision}, {})
    return open_clip.tower(card, encoder.name)


def _transformers(encoder: Encoder, canvas: int) -> Any:
    images = {"size": encoder.size}
    return transformers.random_encoder(transformers.Card(encoder.arguments, images), encoder.name)


_MAKERS = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}


def _module(module: Any) -> Any:
    """Return the network whose tensors files have, without what medplus puts around it."""
    return getattr(module, "network", module)


def _state(ref: BackboneRef, encoder: Encoder, module: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, of a folder that was carried, or of the hub."""
    expected = list(_module(module).state_dict())
    state = weights_io.read_weights(ref.weights_from, ref.tag, lambda: expected)
    if state is None:
        place = encoder.weights
        if encoder.source == "transformers" and place.file is None:
            loaded = transformers.build(
                transformers.resolve(f"hf:{place.repository}", PRETRAINED), encoder.size, None, None
            )
            found: dict[str, torch.Tensor] = loaded.module.state_dict()
            return found
        assert place.repository is not None and place.file is not None  # as resolve has seen
        file = from_hub(ref.tag, place.repository, (place.file,), place.revision)
        state = weights_io.fitted_to(
            weights_io.read_weights_file(file), expected, encoder.title, Path(place.file)
        )
    return state


def _fill(module: Any, state: dict[str, torch.Tensor], encoder: Encoder, ref: BackboneRef) -> None:
    network, rules = _module(module), encoder.weights
    own = network.state_dict()
    used = {
        name: tensor for name, tensor in state.items()
        if name in own or not name.startswith(rules.ignore or ("\0",))
    }  # fmt: skip
    used |= {n: own[n] for n in own if n not in used and rules.fresh and n.startswith(rules.fresh)}
    if encoder.source == "open_clip":
        used = {name: tensor for name, tensor in used.items() if name.startswith("visual.")}
    try:
        network.load_state_dict(used, strict=True)
    except RuntimeError as error:
        raise weights_io.misfit(encoder.title, ref.weights_from, error) from error
