"""Fetching pretrained weights before they are needed: into the cache, and into a folder to carry.

The cache is filled by the load that an extraction does, so whatever that needs is there afterwards:
the hub's cache (``HF_HOME``), or ``TORCH_HOME`` for torchvision's AlexNet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medplus.backbones import weights as weights_io
from medplus.backbones.ratelimit import no_waiting_for_rate_limits
from medplus.backbones.sources import BackboneRef, load, resolve, torchvision
from medplus.backbones.weights_folder import write_folder_weights
from medplus.errors import BackboneError, UsageError

_SIDE = 28


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
    refs = [_fetchable(name) for name in dict.fromkeys(names)]  # all before the first gigabyte
    done = []
    for ref in refs:
        done.append(_fetch(ref, None if to is None else Path(to)))
        tell(done[-1])
    return done


_NOTHING_TO_FETCH = {
    "pixels": "is no network",
    "run": "is a run, which has its own weights",
    "python": "is code, which makes its own network",
    "folder": "is a folder of this machine",
}


def _fetchable(name: str) -> BackboneRef:
    ref = resolve(name)
    kind = _NOTHING_TO_FETCH.get(ref.source)
    if kind is not None:
        raise UsageError(f"'{name}' {kind}: there is nothing to fetch; leave it out")
    if ref.source == "timm" and not _has_weights(ref.tag):
        raise UsageError(f"timm has no pretrained weights of '{name}'; leave it out")
    return ref


def _has_weights(tag: str) -> bool:
    import timm

    config = timm.models.get_pretrained_cfg(tag)
    return config is not None and bool(config.has_weights)


def _fetch(ref: BackboneRef, to: Path | None) -> Fetched:
    loaded = load(ref, _SIDE)
    found = Fetched(ref.name, ref.tag, loaded.weights_sha256)
    if to is None:
        return found
    path, entry = write_folder_weights(to, ref.tag, *_as_on_the_hub(ref))
    again = load(resolve(ref.spelling, str(to)), _SIDE)
    if again.weights_sha256 != found.weights_sha256:
        raise BackboneError(
            f"the weights of {ref.tag} are not the same from {path} as from the hub; carry the "
            "hub's cache (HF_HOME) instead"
        )
    return replace(found, path=str(path), sha256=entry.sha256, bytes=entry.bytes)


def _as_on_the_hub(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes | None]:
    """Return what the cache has by now: the tensors, before timm adapts them, and ``config.json``.

    The latter only of a model that timm knows by it alone.
    """
    tag = ref.tag
    if ref.source == "torchvision":
        return torchvision.pretrained_state(tag), None
    import timm

    document = None
    try:
        with redirect_stdout(sys.stderr), no_waiting_for_rate_limits():
            if ref.source == "hub":
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
