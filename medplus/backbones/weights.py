"""Weights: from the hub, from a local file, or none; and what was actually loaded."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from medplus.errors import BackboneError, first_line

if TYPE_CHECKING:
    import torch

PRETRAINED = "pretrained"
NONE = "none"
_CONNECT_TIMEOUT_S = 3.0
_NESTED_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")


def read_weights_file(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a ``.safetensors`` or torch file; pickled code is never run.

    Raises
    ------
    BackboneError
        If the file is missing, damaged, or holds something else than tensors.
    """
    import torch

    if not path.is_file():
        raise BackboneError(
            f"the weights file {path} does not exist; --weights takes a .safetensors or .pth "
            "file, 'pretrained' or 'none'"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path, device="cpu")
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = "unsafe or damaged" if "weights_only" in str(error).lower() else "damaged"
        raise BackboneError(
            f"the weights file {path} is {kind} ({type(error).__name__}): medplus reads tensors "
            "only; save it with safetensors.torch.save_file, or torch.save of a plain state_dict"
        ) from error
    return _unwrap(state, path)


def _unwrap(state: object, path: Path) -> dict[str, torch.Tensor]:
    import torch

    while isinstance(state, Mapping):
        nested = next((key for key in _NESTED_KEYS if isinstance(state.get(key), Mapping)), None)
        if nested is None:
            break
        state = state[nested]
    if not isinstance(state, Mapping) or not state:
        raise BackboneError(f"the weights file {path} holds no state dict of tensors")
    odd = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise BackboneError(f"the weights file {path} holds '{odd[0]}', which is not a tensor")
    # Data-parallel and compiled training leave prefixes on every key.
    prefixes = ("module.", "_orig_mod.")
    cleaned = {str(key): value for key, value in state.items()}
    for prefix in prefixes:
        if all(key.startswith(prefix) for key in cleaned):
            cleaned = {key.removeprefix(prefix): value for key, value in cleaned.items()}
    return cleaned


def weights_sha256(network: torch.nn.Module) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers.

    It covers what is in memory, not the file it came from, so equal weights have equal digests
    whether they were downloaded, read from a file, or drawn at random with the same seed.
    """
    return state_sha256(network.state_dict())


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the digest of `weights_sha256` for a network's state."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def go_offline_if_unreachable() -> None:
    """Use the hub's cache alone when the hub cannot be reached.

    The hub's client retries an unreachable host for most of a minute; on a compute node without
    internet one quick connection attempt decides. Behind a proxy, the client finds its own way.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def fetch_error(tag: str, error: BaseException) -> BackboneError:
    """Return the error for pretrained weights that cannot be fetched, with the ways out."""
    reason = "they are not in the local cache, and the hub cannot be reached"
    if not isinstance(error, OSError | ValueError):
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
    return BackboneError(
        f"the pretrained weights of {tag} cannot be had ({reason}); connect to the internet once "
        "to fill the cache, or name a local file with --weights FILE, or use --weights none for a "
        "random network"
    )
