"""The whole state of a training in one file, from which it goes on as if never interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from medplus.errors import RunError
from medplus.tensorfile import DamagedFileError, read_tensors, write_tensors

_KIND = "training state 1"
_ORDER = "order"
_OPTIMIZER = "optimizer."

Tensors = dict[str, torch.Tensor]


class Scaler(Protocol):
    """What is needed of a loss scaler, such as torch's `GradScaler`."""

    def state_dict(self) -> dict[str, Any]:
        """Return its numbers."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""


class _UnfitError(Exception):
    """A state is not one of these objects; the message says why."""


def save_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    progress: Mapping[str, Any],
    identity: str,
    ema: nn.Module | None = None,
    scaler: Scaler | None = None,
) -> None:
    """Write the state of a training; a crash at any moment leaves the old file or the new one.

    Parameters
    ----------
    path : Path
    network : nn.Module
        All its parameters and buffers are saved, non-persistent ones too.
    optimizer : torch.optim.Optimizer
        Its parameters must be the network's.
    order : torch.Generator
        What draws the order of the samples.
    progress : mapping
        Any JSON document; floats come back exactly, infinities and NaN included.
    identity : str
        What the run is, such as a hash of its configuration; only the same run may load the state.
    ema : nn.Module, optional
        The moving average of the network.
    scaler : Scaler, optional
        The loss scaler of float16 training.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    tensors, optimizer_document = _describe_optimizer(optimizer, network)
    document = {
        "kind": _KIND,
        "identity": identity,
        "progress": dict(progress),
        "optimizer": optimizer_document,
        "scaler": scaler.state_dict() if scaler else None,
    }
    tensors |= _module_tensors(network, ema) | {_ORDER: order.get_state()}
    try:
        write_tensors(path, tensors, document)
    except OSError as error:
        raise RunError(
            f"the training state {path} cannot be written: {error.strerror or error}; free space "
            "there, then run the same command again: it goes on from the last state saved"
        ) from error


def load_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    identity: str,
    ema: nn.Module | None = None,
    scaler: Scaler | None = None,
) -> dict[str, Any]:
    """Put a saved state into newly made objects, and return the progress saved with it.

    Everything is verified first, so that a refused state leaves all objects as they were.

    Raises
    ------
    RunError
        If the file is missing or damaged, or the state is another run's or another network's.
    """
    if not path.exists():
        raise RunError(f"there is no training state {path}; use --no-resume")
    remedy = "delete it to start again from the beginning, or use --no-resume"
    try:
        saved, document = read_tensors(path)
        _check_identity(document, identity)
        targets = _module_tensors(network, ema)
        own = {name: saved.pop(name) for name in list(saved) if name.startswith(_OPTIMIZER)}
        _check_tensors(saved, targets | {_ORDER: order.get_state()})
        _check_optimizer(document["optimizer"], optimizer, network)
        _check_scaler(document["scaler"], scaler)
    except DamagedFileError as error:
        raise RunError(f"the training state {error}; {remedy}") from None
    except _UnfitError as error:
        raise RunError(f"the training state {path} {error}; {remedy}") from None

    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(saved[name])
    optimizer.load_state_dict(_optimizer_state(document["optimizer"], own, optimizer))
    order.set_state(saved[_ORDER])
    if scaler:
        scaler.load_state_dict(document["scaler"])
    progress: dict[str, Any] = document["progress"]
    return progress


# --- network, average, order --------------------------------------------------------------------


def _module_tensors(network: nn.Module, ema: nn.Module | None) -> Tensors:
    """Return the parameters and buffers themselves, tied ones once, by their names in the file."""
    modules = {"network": network} | ({"ema": ema} if ema is not None else {})
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in modules.items()
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named()
    }


def _check_identity(document: Mapping[str, Any], identity: str) -> None:
    if document.get("kind") != _KIND:
        raise _UnfitError("is not a training state that this medplus can read")
    if document["identity"] != identity:
        raise _UnfitError("belongs to a run with other settings")


def _check_tensors(saved: Tensors, targets: Tensors) -> None:
    for name in sorted(targets.keys() - saved.keys()):
        raise _UnfitError(f"is of another network: it has no '{name}'")
    for name in sorted(saved.keys() - targets.keys()):
        raise _UnfitError(f"is of another network: it has '{name}', which this one has not")
    for name, target in targets.items():
        there, here = _kind_of(saved[name]), _kind_of(target)
        if there != here:
            raise _UnfitError(f"is of another network: '{name}' is {there} there, {here} here")


def _kind_of(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _check_scaler(state: Mapping[str, Any] | None, scaler: Scaler | None) -> None:
    here = scaler.state_dict() if scaler else None
    if (state is None) != (here is None) or (state or {}).keys() != (here or {}).keys():
        raise _UnfitError("is of a run with another kind of loss scaling")


# --- optimiser ----------------------------------------------------------------------------------


def _describe_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module
) -> tuple[Tensors, dict[str, Any]]:
    """Return the optimiser's tensors, and all the rest as JSON can hold it."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    strides: dict[str, list[int]] = {}

    def take_tensors(place: str, values: Mapping[str, Any]) -> dict[str, Any]:
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                name = f"{_OPTIMIZER}{place}.{key}"
                tensors[name] = value
                if stride := _unusual_stride(value):
                    strides[name] = stride
        return {k: v for k, v in values.items() if not isinstance(v, torch.Tensor)}

    document = {
        "type": type(optimizer).__name__,
        "parameters": _parameter_names(optimizer, network),
        "groups": [
            take_tensors(f"group{i}", {k: v for k, v in group.items() if k != "params"})
            for i, group in enumerate(state["param_groups"])
        ],
        "state": {str(i): take_tensors(str(i), values) for i, values in state["state"].items()},
        "strides": strides,
    }
    return tensors, document


def _parameter_names(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [
        [names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups
    ]


def _unusual_stride(tensor: torch.Tensor) -> list[int] | None:
    """Return strides such as channels_last, which fused steps need to find again.

    None for a tensor laid out row by row, and for one with gaps, which comes back without them.
    """
    packed = torch.empty_like(tensor, device="meta").stride()
    return None if packed == torch.empty(tensor.shape, device="meta").stride() else list(packed)


def _check_optimizer(
    document: Mapping[str, Any], optimizer: torch.optim.Optimizer, network: nn.Module
) -> None:
    kind = type(optimizer).__name__
    if document["type"] != kind:
        raise _UnfitError(f"is of another optimiser: {document['type']} there, {kind} here")
    # Shapes and dtypes need no check of their own: those of the parameters have passed, by name.
    if document["parameters"] != _parameter_names(optimizer, network):
        raise _UnfitError("is of another optimiser: its parameters are grouped differently")


def _optimizer_state(
    document: Mapping[str, Any], tensors: Tensors, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return what `_describe_optimizer` was made from, in memory of its own."""
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in document["state"].items()}
    groups = [dict(group) for group in document["groups"]]
    for group, fresh in zip(groups, optimizer.state_dict()["param_groups"], strict=True):
        # JSON has no tuples; torch's optimisers have, such as betas.
        group.update({k: tuple(group[k]) for k in group if isinstance(fresh.get(k), tuple)})
        group["params"] = fresh["params"]
    for name, tensor in tensors.items():
        place, key = name.removeprefix(_OPTIMIZER).split(".", 1)
        copy = _copy(tensor, document["strides"].get(name))
        if place.startswith("group"):
            index = int(place.removeprefix("group"))
            current = optimizer.param_groups[index].get(key)
            groups[index][key] = copy.to(getattr(current, "device", "cpu"))
        else:
            state[int(place)][key] = copy
    return {"state": state, "param_groups": groups}


def _copy(tensor: torch.Tensor, stride: list[int] | None) -> torch.Tensor:
    if stride is None:
        return tensor.clone()
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
