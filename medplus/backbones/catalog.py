"""Names of backbones: the paper's ten, any timm name, raw pixels, runs, and Python files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from medplus.backbones import pythonfile
from medplus.backbones.finetuned import is_finetuned, is_path, no_network, read_description
from medplus.backbones.pythonfile import is_python_file
from medplus.errors import BackboneError, UsageError, first_line, nearest

PIXELS = "pixels"
ALEXNET = "alexnet"
PRELOGITS = "prelogits"
"""The feature that is a network's embedding where no other is asked for."""

PAPER: dict[str, str] = {
    "vgg16": "vgg16.tv_in1k",
    "alexnet": "alexnet.tv_in1k",
    "resnet18": "resnet18.a1_in1k",
    "densenet121": "densenet121.ra_in1k",
    "efficientnet_b4": "efficientnet_b4.ra2_in1k",
    "vit_base_patch16_224": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch16_clip_224": "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
    "eva02_base_patch16_clip_224": "eva02_base_patch16_clip_224.merged2b",
    "vit_base_patch16_224.dino": "vit_base_patch16_224.dino",
    "samvit_base_patch16": "samvit_base_patch16.sa1b",
}
"""The paper's ten in the paper's order, each with the full tag of its pretrained weights. The tag
is pinned here, so that a new default in timm cannot change what a name means."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LOCAL_PREFIX = "local-dir:"
HUB_PREFIXES = ("hf-hub:", "hf_hub:", LOCAL_PREFIX)


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before its weights are loaded.

    Attributes
    ----------
    name : str
        The canonical short name, used in paths and selections.
    tag : str
        The full name with the tag of the pretrained weights, for example ``resnet18.a1_in1k``.
    dim : int
        Number of embedding dimensions D.
    n_parameters : int
        Parameters without the classifier; 0 for ``pixels``.
    native_size : int or None
        The input height and width in pixels that the weights were trained at.
    mean, std : tuple of float
        What images are normalised with, per channel, on the scale 0 to 1.
    fixed_size : bool
        Whether the network takes only the input size that it was built for.
    """

    name: str
    tag: str
    dim: int
    n_parameters: int
    native_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed_size: bool
    licence: str


def resolve(name: str) -> tuple[str, str]:
    """Return a backbone's canonical name and full tag.

    A timm name without a tag stands for timm's default tag; a full tag that is the default of its
    architecture is shortened to it, so that both spellings name the same thing. A fine-tuned run,
    named by its folder or its network file, is called after its backbone and its id:
    ``resnet18@<run_id>``; a local folder in timm's format after the folder; a Python file, which is
    not run for this, after its name, and in full after its digest.

    Raises
    ------
    UsageError
        If no such backbone is known; names the nearest.
    BackboneError
        If the network file of a run is damaged, or a Python file is no Python.
    """
    if is_finetuned(name):
        description = read_description(Path(name))
        return description.name, description.full_tag
    if is_python_file(name):
        file = pythonfile.find(name)
        return file.name, file.tag
    if name == PIXELS:
        return PIXELS, PIXELS
    if name in PAPER:
        return name, PAPER[name]
    for short, tag in PAPER.items():
        if name == tag:
            return short, tag
    if name.startswith(LOCAL_PREFIX):
        return _resolve_local(Path(name.removeprefix(LOCAL_PREFIX)))
    if name.startswith(HUB_PREFIXES):
        hub = f"hf-hub:{name.partition(':')[2]}"  # timm takes two spellings
        return hub, hub
    return _resolve_timm(name)


def _resolve_timm(name: str) -> tuple[str, str]:
    import timm

    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        if _has_model(Path(name)):
            return _resolve_local(Path(name))
        if is_path(name):
            raise no_network(Path(name))
        known = [PIXELS, *PAPER, *timm.list_models()]
        raise UsageError(
            f"unknown backbone '{name}'{nearest(name, known)} "
            "(the paper's ten, pixels, any name that timm.list_models() gives, the folder of a "
            "fine-tuned run, or a Python file)"
        )
    if not dot:
        config = timm.models.get_pretrained_cfg(architecture)
        return name, f"{name}.{config.tag}" if config is not None and config.tag else name
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if name not in tags:
        raise UsageError(
            f"unknown weights '{name}'{nearest(name, tags)} "
            f"({architecture} has: {', '.join(tags) or 'no pretrained weights'})"
        )
    default = timm.models.get_pretrained_cfg(architecture)
    is_default = default is not None and default.tag == tag
    return (architecture if is_default and architecture not in PAPER else name), name


def _has_model(folder: Path) -> bool:
    """Tell a folder in timm's format, as `timm.models.save_for_hf` writes it."""
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):  # no file has such a name
        return False


def _resolve_local(folder: Path) -> tuple[str, str]:
    if not _has_model(folder):
        raise UsageError(
            f"{folder} is no model in timm's format: a folder with config.json and "
            "model.safetensors, as timm.models.save_for_hf writes it"
        )
    absolute = folder.resolve()
    return f"{LOCAL_PREFIX}{absolute.name}", f"{LOCAL_PREFIX}{absolute}"


def is_pattern(name: str) -> bool:
    """Tell a name with wildcards; a run's folder may have such signs in its name."""
    return any(sign in name for sign in "*?[") and not is_path(name)


def matching(pattern: str) -> list[str]:
    """Return the backbones with pretrained weights whose name or full tag matches wildcards.

    Parameters
    ----------
    pattern : str
        With ``*``, ``?`` and ``[…]`` as in a shell.

    Returns
    -------
    list of str
        In timm's order; what is not timm's comes first.

    Raises
    ------
    UsageError
        If none matches.
    """
    import timm

    own = [name for name in (ALEXNET, PIXELS) if fnmatchcase(name, pattern)]
    found = [*own, *timm.list_models(pattern, pretrained=True)]
    if not found:
        bare = pattern.strip("*?")
        raise UsageError(
            f"no backbone with pretrained weights matches '{pattern}'"
            f"{nearest(bare, timm.list_models()) if bare else ''} (quote a pattern, so that the "
            "shell leaves it alone)"
        )
    return found


def describe(name: str) -> BackboneInfo:
    """Return what is known of a backbone, without allocating or fetching its weights."""
    if is_finetuned(name):
        return _describe_run(Path(name))
    if is_python_file(name):
        return _describe_python(name)
    return _describe_network(*resolve(name))


def _describe_network(short: str, tag: str) -> BackboneInfo:
    """Describe what timm or torchvision builds; whatever the tag says, no file is run for it."""
    if short == PIXELS:
        return BackboneInfo(PIXELS, PIXELS, 28 * 28, 0, None, (0.0,), (1.0,), False, "")
    import torch

    if short == ALEXNET:
        return BackboneInfo(
            short, tag, 4096, _alexnet_parameters(), 224, IMAGENET_MEAN, IMAGENET_STD, False,
            "bsd-3-clause",
        )  # fmt: skip
    import timm

    try:
        with torch.device("meta"):
            network = timm.create_model(tag, pretrained=False, num_classes=0)
    except Exception as error:
        raise BackboneError(
            f"timm cannot build the backbone '{tag}': {first_line(error)}"
        ) from error
    config: dict[str, Any] = network.pretrained_cfg
    return BackboneInfo(
        name=short,
        tag=tag,
        dim=int(getattr(network, "head_hidden_size", network.num_features)),
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        native_size=int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        fixed_size=bool(config.get("fixed_input_size", False)),
        licence=config.get("license") or "",
    )


def _describe_run(path: Path) -> BackboneInfo:
    run = read_description(path)
    if is_python_file(run.backbone):
        raise BackboneError(
            f"the network in {path} is code of {run.backbone}; medplus backbones {run.backbone} "
            "runs it and tells of it"
        )
    return replace(
        _describe_network(run.backbone, run.tag),
        name=run.name,
        tag=run.full_tag,
        dim=run.dim,
        native_size=run.canvas,
        mean=run.spec.mean,
        std=run.spec.std,
    )


def _describe_python(name: str) -> BackboneInfo:
    """Run a Python file, as only it knows what it makes."""
    import torch

    file = pythonfile.find(name)
    made = pythonfile.run(file)
    try:
        with torch.no_grad():
            image = torch.zeros(1, len(made.mean), made.input_size, made.input_size)
            dim = made.module.eval()(image).shape[1]
    except Exception as error:
        raise BackboneError(
            f"the network of {file.path} does not take images of {made.input_size} px: "
            f"{first_line(error)}"
        ) from error
    n_parameters = sum(parameter.numel() for parameter in made.module.parameters())
    return BackboneInfo(
        file.name, file.tag, int(dim), n_parameters, made.input_size, made.mean, made.std, False, ""
    )


def _alexnet_parameters() -> int:
    import torch
    from torchvision.models import alexnet

    with torch.device("meta"):
        network = alexnet(weights=None)
    classifier = network.classifier[-1]
    total = sum(parameter.numel() for parameter in network.parameters())
    return int(total - sum(parameter.numel() for parameter in classifier.parameters()))
