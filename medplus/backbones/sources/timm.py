"""Networks of timm, by their names: hundreds, and most of the paper's ten."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.backbones import servers
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import DEMO, PAPER, PIXELS, BackboneInfo
from medplus.backbones.finetuned import is_path, no_network
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.backbones.weights_folder import find_config
from medplus.errors import BackboneError, UsageError, first_line, nearest
from medplus.preprocess import PAPER_CANVAS, PreprocessSpec
from medplus.spec import NONE, PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch


def claims(name: str) -> bool:
    """Claim whatever no other kind has: what is unknown is refused here."""
    return True


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what a name means.

    One without a tag stands for timm's default tag, of the paper's ten for the paper's; a full tag
    that is the default of its architecture is shortened to it, so that both spellings name the
    same thing.

    Raises
    ------
    UsageError
        If timm has no such network, or no such weights of it.
    """
    short, tag = next((pair for pair in PAPER.items() if name in pair), None) or _names(name)
    return BackboneRef("timm", short, short, tag, weights)


def _names(name: str) -> tuple[str, str]:
    """Return the short and the full name, as timm knows them."""
    from medplus.backbones.lean import timm

    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        if is_path(name):
            raise no_network(Path(name))
        known = [PIXELS, *PAPER, *timm.list_models()]
        raise UsageError(
            f"unknown backbone '{name}'{nearest(name, known)} "
            "(the paper's ten, pixels, any name that timm.list_models() gives, the folder of a "
            "fine-tuned run, or a Python file)"
        )
    default = timm.models.get_pretrained_cfg(architecture)
    if not dot:
        return name, f"{name}.{default.tag}" if default is not None and default.tag else name
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if name not in tags:
        raise UsageError(
            f"unknown weights '{name}'{nearest(name, tags)} "
            f"({architecture} has: {', '.join(tags) or 'no pretrained weights'})"
        )
    is_default = default is not None and default.tag == tag
    is_taken = architecture in PAPER or architecture in DEMO
    return (architecture if is_default and not is_taken else name), name


def describe(ref: BackboneRef) -> BackboneInfo:
    """Build the network without memory, and return its facts."""
    import torch

    from medplus.backbones.lean import timm

    try:
        with torch.device("meta"):
            network = timm.create_model(ref.tag, pretrained=False, num_classes=0)
    except Exception as error:
        raise BackboneError(
            f"timm cannot build the backbone '{ref.tag}': {first_line(error)}"
        ) from error
    config: dict[str, Any] = network.pretrained_cfg
    return BackboneInfo.of(
        ref,
        network,
        int(getattr(network, "head_hidden_size", network.num_features)),
        int(config["input_size"][-1]),
        tuple(config["mean"]),
        tuple(config["std"]),
        bool(config.get("fixed_input_size", False)),
        config.get("license") or "",
    )


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the network up to its pre-logits, for an input of 224 px or, if native, of `size`."""
    from medplus.backbones.modules import PreLogits

    canvas = size if fit == "native" else PAPER_CANVAS
    network = make(ref.tag, ref.weights_from, canvas)
    config = network.pretrained_cfg
    spec = PreprocessSpec.fitted(tuple(config["mean"]), tuple(config["std"]), fit)
    licence = (config.get("license") or "") if ref.weights == PRETRAINED else ""
    return Built(PreLogits(network), spec, licence=licence)


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes | None]:
    """Return the tensors of the whole network that the cache has by now, for a folder to carry."""
    from medplus.backbones.lean import timm

    try:
        with redirect_stdout(sys.stderr), servers.no_waiting_for_rate_limits():
            return timm.create_model(ref.tag, pretrained=True).state_dict(), None
    except Exception as error:
        raise servers.fetch_error(ref.tag, error) from error


def pretrained_files(ref: BackboneRef) -> list[Path] | None:
    """Return the hub's snapshot in its cache; None where there is none, or timm looks elsewhere."""
    from medplus.backbones.lean import timm

    config = timm.models.get_pretrained_cfg(ref.tag)
    if config is None or not config.hf_hub_id or os.environ.get("TIMM_USE_OLD_CACHE"):
        return None
    name, _, revision = config.hf_hub_id.partition("@")
    repository = f"{name}{ref.tag}" if name.endswith("/") else name
    return servers.snapshot_files(repository, revision or "main")


def make(tag: str, weights: str, canvas: int) -> Any:
    """Make the network of a full tag without its classifier, as timm has it.

    Parameters
    ----------
    weights : str
        ``pretrained``, ``none``, a file, or a folder of pretrained weights.
    canvas : int
        Height and width of the input in pixels.

    Raises
    ------
    BackboneError
        If it cannot be built, or its weights cannot be had or do not fit.
    """
    from medplus.backbones.lean import timm

    carried = find_config(weights, tag)
    source = tag if carried is None else f"{servers.LOCAL_PREFIX}{carried}"
    if weights == PRETRAINED or (carried is None and ":" in tag):
        servers.go_offline_if_unreachable()
    try:
        config = _config(source)
    except Exception as error:
        raise _unbuilt(tag, weights, error) from error
    arguments = _size_arguments(config, tag, canvas)
    state = weights_io.read_weights(weights, tag, lambda: _keys(source))
    if state is not None:
        classes = _classes_in(state, config)
        arguments["num_classes"] = classes
        # The overlay's class count makes timm load strictly: every key must fit. Of a network that
        # is named by its source, timm would take that source's weights instead.
        overlay = {"source": "", "state_dict": state, "num_classes": classes}
        arguments["pretrained_cfg_overlay"] = overlay
    with weights_io.same_chance():
        try:
            with redirect_stdout(sys.stderr), servers.no_waiting_for_rate_limits():
                network = timm.create_model(source, pretrained=weights != NONE, **arguments)
        except Exception as error:
            if state is not None:
                raise weights_io.misfit(tag, weights, error) from error
            raise _unbuilt(tag, weights, error) from error
    network.reset_classifier(0)
    check_patches(network, tag, canvas)
    return network


def _keys(source: str) -> list[str]:
    """Return what timm calls the tensors of a network."""
    import torch

    from medplus.backbones.lean import timm

    with torch.device("meta"):
        return list(timm.create_model(source, pretrained=False).state_dict())


def _unbuilt(tag: str, weights: str, error: Exception) -> BackboneError:
    if weights == PRETRAINED and not isinstance(error, AssertionError):
        return servers.fetch_error(tag, error)
    return BackboneError(f"timm cannot build {tag}: {first_line(error)}")


def check_patches(network: Any, tag: str, canvas: int) -> None:
    """Refuse a canvas that patches do not tile: timm would silently cut off what is left over."""
    from timm.layers import PatchEmbed

    embed = getattr(network, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad:
        return
    side = max(embed.patch_size)
    if canvas % side:
        raise BackboneError(
            f"{tag} cuts images into patches of {side} px, which do not tile {canvas} px; "
            "--fit pad or --fit resize may suit it"
        )


def _config(source: str) -> dict[str, Any]:
    """Return what timm knows of a network's weights before it is built."""
    from medplus.backbones.lean import timm

    if ":" not in source:
        config = timm.models.get_pretrained_cfg(source)
        return {} if config is None else dict(config.to_dict())
    with redirect_stdout(sys.stderr), servers.no_waiting_for_rate_limits():
        return dict(timm.models.resolve_model_input_args(source)["pretrained_cfg"])


def _size_arguments(config: dict[str, Any], tag: str, canvas: int) -> dict[str, Any]:
    """Networks built for one input size are built for the canvas; SAM's takes any size."""
    if not config.get("fixed_input_size") or tag.startswith("samvit"):
        return {}
    return {} if config["input_size"][-1] == canvas else {"img_size": canvas}


def _classes_in(state: dict[str, torch.Tensor], config: dict[str, Any]) -> int:
    classifiers = config.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)  # distilled networks have two
    counts = [state[key].shape[0] for c in classifiers if (key := f"{c}.weight") in state]
    return int(counts[0]) if counts else 0
