"""Backbones: a name becomes a network with its weights, ready to embed or to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medplus.backbones import pythonfile
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import PIXELS, PRELOGITS, resolve
from medplus.backbones.features import with_feature
from medplus.backbones.finetuned import (
    NetworkDescription,
    backbone_state,
    check_weights,
    is_finetuned,
    network_file,
    read_network,
)
from medplus.backbones.folder import find_weights
from medplus.backbones.modules import PreLogits
from medplus.backbones.networks import (
    RANDOM_INIT_SEED,
    create_network,
    details,
    is_from_folder,
    misfit,
)
from medplus.backbones.pythonfile import is_python_file
from medplus.backbones.sam import bake_sam_tables
from medplus.errors import BackboneError, UsageError
from medplus.jsonfile import digest_of
from medplus.preprocess import PAPER_CANVAS, PreprocessSpec
from medplus.vocabulary import Fit


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode, with everything that identifies its embeddings.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    weights : str
        ``pretrained``, ``none``, or the absolute path of a file; ``none`` for ``pixels``. Those of
        a folder are ``pretrained``.
    weights_sha256 : str
        Digest of the weights in memory.
    feature : str
        The definition of the embedding, as for `load_backbone`; or ``pixels``.
    run_id : str or None
        The fine-tuned run whose network this is.
    """

    name: str
    tag: str
    module: nn.Module
    preprocess: PreprocessSpec
    weights: str
    weights_sha256: str
    feature: str
    run_id: str | None = None
    ref: Any = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that makes the backbone, in hex: full name, weights, normalisation."""
        return digest_of(
            {
                "tag": self.tag,
                "weights": self.weights_sha256,
                "preprocess": vars(self.preprocess),
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


def load_backbone(
    name: str,
    weights: str = "pretrained",
    size: int = 28,
    fit: Fit | None = None,
    *,
    frozen: bool = True,
    feature: str = PRELOGITS,
    code: str | None = None,
) -> Backbone:
    """Build a backbone with its weights, in eval mode, on the CPU.

    Parameters
    ----------
    name : str
        One of the paper's ten, ``pixels``, any timm name, the folder of a fine-tuned run, or a
        Python file (``my_backbone.py``, ``my_backbone.py:function``), which is run.
    weights : str
        ``pretrained``, ``none`` (random, from a fixed seed), the path of a ``.safetensors`` or
        ``.pth`` file, or a folder of pretrained weights that `medplus.backbones.fetch` wrote. A run
        has its own; so has a Python file, which takes only a file.
    size : int
        Size of the images in pixels; matters only for ``fit="native"``.
    fit : {"pad", "resize", "native"}, optional
        How images are brought to the network's input size; by default ``pad``, or as a run was
        trained.
    frozen : bool
        Prepare the network for inference alone. Otherwise its parameters can be trained.
    feature : str
        What of the network is its embedding: ``prelogits``, ``cls``, ``avg``, ``cls+avg`` or
        ``layer:NAME``; see `medplus.backbones.features`. It means nothing for ``pixels``.
    code : str, optional
        The Python file of a fine-tuned run's network: no run ever names code to be run.

    Raises
    ------
    UsageError
        If the name is unknown, a run is to have other weights than its own, or the network has no
        such feature.
    BackboneError
        If the weights cannot be fetched, read, or do not fit the network.
    """
    check_weights(name, weights_io.weights_label(weights))
    if is_finetuned(name):
        run = _load_finetuned(network_file(Path(name)), size, fit, frozen, code)
        return _featured(run, feature, size)
    if is_python_file(name):
        return _featured(_load_python(name, weights, size, fit, frozen), feature, size)
    short, tag = resolve(name)
    fit = "native" if short == PIXELS else fit or "pad"
    canvas = None if fit == "native" else PAPER_CANVAS
    network = create_network(tag, weights, canvas or size)
    module = network.module
    spec = PreprocessSpec(network.mean, network.std, fit, canvas, rgb=short != PIXELS)
    label = weights_io.NONE if short == PIXELS else weights_io.weights_label(weights)
    digest = _settle(module, canvas or size, frozen)
    own = PIXELS if short == PIXELS else PRELOGITS
    return _featured(Backbone(short, tag, module, spec, label, digest, own), feature, size)


def _featured(backbone: Backbone, feature: str, size: int) -> Backbone:
    if feature == PRELOGITS or not backbone.is_network:
        return backbone
    canvas = backbone.preprocess.canvas or size
    channels = 3 if backbone.preprocess.rgb else 1
    module = with_feature(backbone.module, feature, backbone.tag, canvas, channels)
    return replace(backbone, module=module, feature=feature)


def check_backbone(name: str, weights: str) -> None:
    """Refuse, before any work, a backbone or weights of it that are not to be had here.

    Raises
    ------
    UsageError
        If the name is unknown, or a run is to have other weights than its own.
    BackboneError
        If a folder of weights has none for it.
    """
    _, tag = resolve(name)
    check_weights(name, weights_io.weights_label(weights))
    if is_python_file(name):
        _check_python_weights(name, weights)
    elif is_from_folder(weights) and tag != PIXELS and not is_finetuned(name):
        find_weights(Path(weights), tag)


def _load_finetuned(
    file: Path, size: int, fit: Fit | None, frozen: bool, code: str | None
) -> Backbone:
    run, state = read_network(file)
    spec = run.spec
    if fit not in (None, spec.fit) and run.feature != PIXELS:
        spec = replace(spec, fit=fit, canvas=None if fit == "native" else PAPER_CANVAS)
    canvas = spec.canvas or size
    defined = _code_of(file, run, code) if is_python_file(run.backbone) else None
    try:
        made = defined or create_network(run.tag, weights_io.NONE, canvas)
        module: nn.Module = made.module
        module.load_state_dict(backbone_state(state), strict=True)
    except (BackboneError, RuntimeError) as error:
        raise _unsuitable(file, run, spec, canvas, error) from error
    digest = _settle(module, canvas, frozen)
    return Backbone(
        run.name, run.full_tag, module, spec, str(file.resolve()), digest, run.feature, run.run_id
    )


def _code_of(file: Path, run: NetworkDescription, code: str | None) -> pythonfile.Definition:
    """Run the Python file that defines the network of a run, if the user named it."""
    if code is None:
        raise BackboneError(
            f"the network in {file} is code of {run.backbone}, which runs only when you name it: "
            f"evaluate with --backbone {run.backbone}, extract with --backbone {run.backbone} "
            f"--weights {file}"
        )
    named = pythonfile.find(code)
    if named.tag != run.tag:
        raise BackboneError(
            f"the network in {file} was trained with {run.tag}, but {code} now is {named.tag}; "
            "name the file as it was"
        )
    return _define(named)


def _load_python(name: str, weights: str, size: int, fit: Fit | None, frozen: bool) -> Backbone:
    """Run the Python file that the user named."""
    _check_python_weights(name, weights)
    file = pythonfile.find(name)
    defined = _define(file)
    if weights != weights_io.PRETRAINED:
        state = weights_io.read_weights_file(Path(weights))
        state = backbone_state(state) or state  # of a fine-tuned run, without its head
        try:
            defined.module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise misfit(file.name, weights, error) from error
    canvas = None if fit == "native" else defined.input_size
    digest = _settle(defined.module, canvas or size, frozen)
    spec = PreprocessSpec(
        defined.mean, defined.std, fit or "pad", canvas, rgb=len(defined.mean) == 3
    )
    label = weights_io.weights_label(weights)
    return Backbone(file.name, file.tag, defined.module, spec, label, digest, PRELOGITS)


def _define(file: pythonfile.PythonFile) -> pythonfile.Definition:
    with torch.random.fork_rng(devices=[]):  # what it draws at random is always the same
        torch.manual_seed(RANDOM_INIT_SEED)
        return pythonfile.run(file)


def _check_python_weights(name: str, weights: str) -> None:
    if weights == weights_io.NONE or is_from_folder(weights):
        raise UsageError(
            f"--weights {weights} cannot go with {name}, which makes its own network; leave "
            "--weights out, or name a file of weights for it"
        )


def _unsuitable(
    file: Path, run: NetworkDescription, spec: PreprocessSpec, canvas: int, error: Exception
) -> BackboneError:
    if canvas == run.canvas:
        if isinstance(error, BackboneError):
            return error
        return misfit(run.tag, str(file), error)
    remedy = "leave --fit out" if spec.fit != run.spec.fit else f"use images of {run.canvas} px"
    return BackboneError(
        f"{run.name} takes an input of {run.canvas} px, as it was trained, not of {canvas} px "
        f"({details(error)}); {remedy}"
    )


def _settle(module: nn.Module, canvas: int, frozen: bool) -> str:
    """Make a network what it is to be used for, and return the digest of its weights."""
    module.eval()
    digest = weights_io.weights_sha256(module)
    if frozen:
        module.requires_grad_(False)
        if isinstance(module, PreLogits):
            bake_sam_tables(module.network, canvas)  # training needs the tables as they are
    return digest
