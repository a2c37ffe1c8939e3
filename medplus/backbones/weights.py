"""Weights: from the hub, from a local file, or none; and what was actually loaded."""

from __future__ import annotations

import hashlib
import logging
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medplus.backbones.weights_folder import is_weights_folder, read_folder_weights
from medplus.errors import BackboneError, first_line
from medplus.progress import SAID
from medplus.spec import NONE, PRETRAINED

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_RANDOM_INIT_SEED = 0
_AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema")
_NESTED_KEYS = (*_AVERAGED_KEYS, "state_dict", "model", "model_state_dict", "teacher")
"""Where files keep a state dict; averaged weights first, as timm takes them, and of a
self-distilled network the teacher, as its authors do."""


def weights_label(weights: str) -> str:
    """Return weights as stores and records name them: a word, or the path in full.

    A folder of pretrained weights is a way to have them, not other weights: it goes by
    ``pretrained``, so that what was made on a machine with internet is found on one without.
    """
    if weights in (PRETRAINED, NONE):
        return weights
    return PRETRAINED if is_weights_folder(weights) else str(Path(weights).resolve())


@contextmanager
def same_chance() -> Iterator[None]:
    """Let random weights be the same whenever they are drawn."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_INIT_SEED)
        yield


def read_weights(
    weights: str,
    tag: str,
    expected: Callable[[], Collection[str]],
    pretrained: Callable[[], Path] | None = None,
) -> dict[str, torch.Tensor] | None:
    """Read the tensors that a file, or a folder of pretrained weights, has for a backbone.

    Parameters
    ----------
    expected : callable
        Returns the keys of the network's own state.
    pretrained : callable, optional
        Returns the file for ``pretrained``.

    Returns
    -------
    dict of str to Tensor, or None
        None for ``none``, and for ``pretrained`` where no file is named for it.

    Raises
    ------
    BackboneError
        As `read_weights_file`, `read_folder_weights` and `fitted_to`.
    """
    if weights == NONE or (weights == PRETRAINED and pretrained is None):
        return None
    if weights != PRETRAINED and is_weights_folder(weights):
        return read_folder_weights(Path(weights), tag)
    path = pretrained() if pretrained and weights == PRETRAINED else Path(weights)
    return fitted_to(read_weights_file(path), expected(), tag, path)


def missing_weights(path: Path) -> BackboneError:
    """Return the error that a path leads to no weights."""
    fault = "is a folder without manifest.json" if path.is_dir() else "does not exist"
    return BackboneError(
        f"the weights file {path} {fault}; put it there, or name other weights: a .safetensors or "
        ".pth file, a folder that medplus backbones --fetch … --to wrote, 'pretrained' or 'none'"
    )


def read_weights_file(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a ``.safetensors`` or torch file; pickled code is never run.

    Raises
    ------
    BackboneError
        If the file is missing, damaged, or holds something else than tensors.
    """
    import torch

    from medplus.tensorfile import is_compressed

    if not path.is_file():
        raise missing_weights(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path, device="cpu")
        else:
            if is_compressed(path):
                raise BackboneError(
                    f"the weights file {path} is compressed, which torch's own files are not; save "
                    "it again with torch.save or safetensors.torch.save_file"
                )
            # Masked autoencoders save their command line, too, which is names and values only.
            with torch.serialization.safe_globals([Namespace]):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except BackboneError:
        raise
    except Exception as error:
        kind = "unsafe or damaged" if "weights_only" in str(error).lower() else "damaged"
        raise BackboneError(
            f"the weights file {path} is {kind} ({type(error).__name__}): medplus reads tensors "
            "only; save it with safetensors.torch.save_file, or torch.save of a plain state_dict"
        ) from error
    return _plain_state(state, path)


def _plain_state(state: object, path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict that a file's content is, or has in it."""
    import torch

    from medplus.tensorfile import is_plain

    seen: set[int] = set()  # a forged file may hold a mapping that holds itself
    while isinstance(state, Mapping) and id(state) not in seen:
        seen.add(id(state))
        nested = next((key for key in _NESTED_KEYS if isinstance(state.get(key), Mapping)), None)
        if nested is None:
            break
        others = [k for k in _NESTED_KEYS if k != nested and isinstance(state.get(k), Mapping)]
        if others:
            why = ", averaged over training, as timm does" if nested in _AVERAGED_KEYS else ""
            log.log(SAID, "%s holds %s and %s: %s is taken%s",
                    path, " and ".join(others), nested, nested, why)  # fmt: skip
        state = state[nested]
    if not isinstance(state, Mapping) or not state:
        raise BackboneError(f"the weights file {path} holds no state dict of tensors")
    odd = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise BackboneError(f"the weights file {path} holds '{odd[0]}', which is not a tensor")
    forged = [str(key) for key, value in state.items() if not is_plain(value)]
    if forged:
        raise BackboneError(
            f"the weights file {path} holds '{forged[0]}', which is sparse, quantised, or larger "
            "than its own numbers; save a plain state_dict of dense tensors"
        )
    return {str(key): value for key, value in state.items()}


def fitted_to(
    state: dict[str, torch.Tensor], expected: Collection[str], tag: str, path: Path
) -> dict[str, torch.Tensor]:
    """Return a state without the prefix that a framework put before the names of the network's.

    Data-parallel and compiled training leave ``module.`` and ``_orig_mod.``, others ``encoder.``.
    Keys without that prefix, such as those of a loss, are left out.

    Parameters
    ----------
    expected : collection of str
        The keys of the network's own state.

    Raises
    ------
    BackboneError
        If no key is one of the network's, or several networks of that kind are in the file.
    """
    prefixes = {
        key.removesuffix(name) for key in state for name in expected
        if key == name or key.endswith(f".{name}")
    } if not set(state) & set(expected) else {""}  # fmt: skip
    fits = {prefix: sum(prefix + name in state for name in expected) for prefix in prefixes}
    best = [prefix for prefix in fits if fits[prefix] == max(fits.values())]
    if not best:
        raise BackboneError(
            f"the weights {path} do not fit {tag}: the file has {_first_keys(state)}, the network "
            f"{_first_keys(expected)}; check that file and backbone belong together"
        )
    if len(best) > 1:
        raise BackboneError(
            f"the weights file {path} holds several networks ({', '.join(sorted(best))}); save the "
            "one that is meant in a file of its own"
        )
    if best[0]:
        log.log(SAID, "%s: '%s' before the names of its tensors is dropped", path, best[0])
    return {k.removeprefix(best[0]): v for k, v in state.items() if k.startswith(best[0])}


def _first_keys(keys: Iterable[str]) -> str:
    return f"{', '.join(list(keys)[:3])}, …"


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of a network's state.

    It covers what is in memory, not the file it came from, so equal weights have equal digests
    whether they were downloaded, read from a file, or drawn at random with the same seed.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor], tag: str, source: str) -> None:
    """Put tensors into a network, which has to take all of them and need no others.

    Raises
    ------
    BackboneError
        If they are not those of the network; `tag` and `source` name it and where they come from.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise misfit(tag, source, error) from error


def misfit(tag: str, weights: str, error: Exception) -> BackboneError:
    """Return the error for weights that are not those of the network."""
    return BackboneError(
        f"the weights {weights} do not fit {tag}: {details(error)}; "
        "check that file and backbone belong together"
    )


def details(error: Exception) -> str:
    """Return what torch says of keys and shapes, which stands below its first line."""
    below = " ".join(line.strip() for line in str(error).splitlines()[1:])
    return below[:240] or first_line(error)
