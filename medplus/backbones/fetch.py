"""Fetching pretrained weights before they are needed: into the cache, and into a folder to carry.

The cache is filled by the load that an extraction does, so whatever that needs is there afterwards:
the hub's cache (``HF_HOME``), or ``TORCH_HOME`` for torchvision's AlexNet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from medplus.backbones import weights as weights_io
from medplus.backbones.build import load_backbone
from medplus.backbones.catalog import ALEXNET, HUB_PREFIXES, LOCAL_PREFIX, PAPER, PIXELS, resolve
from medplus.backbones.finetuned import is_finetuned
from medplus.backbones.folder import write_folder_weights
from medplus.backbones.networks import alexnet_state
from medplus.backbones.pythonfile import is_python_file
from medplus.backbones.ratelimit import no_waiting_for_rate_limits
from medplus.errors import BackboneError, UsageError


@dataclass(frozen=True)
class Fetched:
    """Weights that are at hand now.

    Attributes
    ----------
    weights_sha256 : str
        Digest of the weights in memory, for images padded to 224 px, as a store's key has it.
    path : str or None
        The file in the folder to carry, if one was asked for.
    sha256, bytes
        SHA-256 and size of that file.
    """

    name: str
    tag: str
    weights_sha256: str
    path: str | None = None
    sha256: str | None = None
    bytes: int | None = None


def fetch_weights(
    names: Iterable[str],
    to: str | Path | None = None,
    tell: Callable[[Fetched], None] = lambda fetched: None,
) -> list[Fetched]:
    """Fetch the pretrained weights of backbones, and write them to a folder if one is named.

    Parameters
    ----------
    names : iterable of str
        Of the paper's ten, or any timm names.
    to : str or Path, optional
        The folder; what it holds already stays. It serves as ``weights`` elsewhere.
    tell : callable
        Told of each backbone when it is done.

    Raises
    ------
    UsageError
        If a name is unknown, or has no weights that can be fetched or carried.
    BackboneError
        If weights cannot be had or written. What was fetched before stays.
    """
    names = list(dict.fromkeys(names))
    for name in names:  # all of them before the first gigabyte
        _check(name)
    done = []
    for name in names:
        done.append(_fetch(name, None if to is None else Path(to)))
        tell(done[-1])
    return done


def _check(name: str) -> None:
    _, tag = resolve(name)
    own = {
        "is no network": name == PIXELS,
        "is a run, which has its own weights": is_finetuned(name),
        "is code, which makes its own network": is_python_file(name),
        "is a folder of this machine": tag.startswith(LOCAL_PREFIX),
    }
    for kind, is_it in own.items():
        if is_it:
            raise UsageError(f"'{name}' {kind}: there is nothing to fetch; leave it out")
    if not tag.startswith(HUB_PREFIXES) and tag != PAPER[ALEXNET] and not _has_weights(tag):
        raise UsageError(f"timm has no pretrained weights of '{name}'; leave it out")


def _has_weights(tag: str) -> bool:
    import timm

    config = timm.models.get_pretrained_cfg(tag)
    return config is not None and bool(config.has_weights)


def _fetch(name: str, to: Path | None) -> Fetched:
    loaded = load_backbone(name)
    found = Fetched(loaded.name, loaded.tag, loaded.weights_sha256)
    if to is None:
        return found
    path, entry = write_folder_weights(to, found.tag, *_as_on_the_hub(found.tag))
    again = load_backbone(name, str(to))
    if again.weights_sha256 != found.weights_sha256:
        raise BackboneError(
            f"the weights of {found.tag} are not the same from {path} as from the hub; carry the "
            "hub's cache (HF_HOME) instead"
        )
    return Fetched(
        found.name, found.tag, found.weights_sha256, str(path), entry.sha256, entry.bytes
    )


def _as_on_the_hub(tag: str) -> tuple[dict[str, torch.Tensor], bytes | None]:
    """Return what the cache has by now: the tensors, before timm adapts them, and ``config.json``.

    The latter only of a model that timm knows by it alone.
    """
    if tag == PAPER[ALEXNET]:
        return alexnet_state(tag), None
    import timm

    document = None
    try:
        with redirect_stdout(sys.stderr), no_waiting_for_rate_limits():
            if tag.startswith(HUB_PREFIXES):
                model = tag.partition(":")[2]
                config, document = timm.models.load_model_config_from_hf(model)[0], _config(model)
            else:
                config = timm.models.get_pretrained_cfg(tag).to_dict()
            if config.get("hf_hub_id") and config.get("custom_load") != "hf":
                file = [config["hf_hub_filename"]] if config.get("hf_hub_filename") else []
                state = timm.models.load_state_dict_from_hf(config["hf_hub_id"], *file)
            elif not config.get("custom_load"):
                state = torch.hub.load_state_dict_from_url(
                    config["url"], map_location="cpu", progress=False, weights_only=True
                )
            else:
                raise UsageError(
                    f"--to cannot carry {tag}, whose weights are in a format of their own; fetch "
                    "it without --to and carry HF_HOME and TORCH_HOME"
                )
    except Exception as error:
        if isinstance(error, UsageError):
            raise
        raise weights_io.fetch_error(tag, error) from error
    return weights_io.plain_state(state, Path(tag)), document


def _config(model: str) -> bytes:
    from huggingface_hub import hf_hub_download

    repository, _, revision = model.partition("@")
    return Path(hf_hub_download(repository, "config.json", revision=revision or None)).read_bytes()
