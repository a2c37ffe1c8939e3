"""The whole state of a training in one file, from which it goes on as if never interrupted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medplus.errors import RunError
from medplus.tensorfile import DamagedFileError, read_tensors, write_tensors

_KIND = "training state 2"
_ORDER = "order"
_OPTIMIZER = "optimizer."

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingState:
    """All objects of a training that change from step to step.

    Attributes
    ----------
    network : nn.Module
        All its parameters and buffers are saved, non-persistent ones too.
    optimizer : torch.optim.Optimizer
        AdamW or SGD, whose state is tensors, over parameters of the network.
    order : torch.Generator
        What draws the order of the samples, as it was before the epoch under way.
    average : nn.Module, optional
        The moving average of the network.
    scaler : torch.amp.GradScaler, optional
        The loss scaler of float16 training.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    average: nn.Module | None = None
    scaler: torch.amp.GradScaler | None = None

    def save(self, path: Path, progress: Mapping[str, Any], identity: str) -> None:
        """Write everything; a crash at any moment leaves the old file or the new one.

        Parameters
        ----------
        progress : mapping
            Any JSON document; floats come back exactly, infinities and NaN included.
        identity : str
            What the run is, such as a hash of its configuration; only it may load the state.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        document = {
            "kind": _KIND,
            "identity": identity,
            "progress": dict(progress),
            "optimizer": self._parameter_names(),
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        moments = {
            f"{_OPTIMIZER}{number}.{name}": tensor
            for number, values in self.optimizer.state_dict()["state"].items()
            for name, tensor in values.items()
        }
        order = {_ORDER: self.order.get_state()}
        write_tensors(path, self._tensors() | moments | order, document)

    def load(self, path: Path, identity: str) -> dict[str, Any]:
        """Put a saved state into these objects, newly made, and return the progress saved with it.

        Everything is verified first, so that a refused state leaves all objects as they were.

        Raises
        ------
        RunError
            If the file is missing or damaged, or the state is another run's or another network's.
        """
        remedy = "delete it to start again from the beginning, or use --no-resume"
        try:
            saved, document = read_tensors(path)
        except DamagedFileError as error:
            raise RunError(f"the training state {error}; {remedy}") from None
        moments = {name: saved.pop(name) for name in list(saved) if name.startswith(_OPTIMIZER)}
        order = saved.pop(_ORDER, torch.empty(0, dtype=torch.uint8))
        if misfit := self._misfit(saved, document, identity):
            raise RunError(f"the training state {path} {misfit}; {remedy}")
        with torch.no_grad():
            for name, target in self._tensors().items():
                target.copy_(saved[name])
        self._load_optimizer(moments, document["rates"])
        self.order.set_state(order)
        if self.scaler:
            self.scaler.load_state_dict(document["scaler"])
        progress: dict[str, Any] = document["progress"]
        return progress

    def _tensors(self) -> Tensors:
        """Return the parameters and buffers themselves, tied ones once, by name."""
        modules = {"network": self.network}
        if self.average is not None:
            modules["ema"] = self.average
        return {
            f"{prefix}.{name}": tensor
            for prefix, module in modules.items()
            for named in (module.named_parameters, module.named_buffers)
            for name, tensor in named()
        }

    def _parameter_names(self) -> list[list[str]]:
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        groups = self.optimizer.param_groups
        return [[names[id(parameter)] for parameter in group["params"]] for group in groups]

    def _misfit(self, saved: Tensors, document: Mapping[str, Any], identity: str) -> str | None:
        """Say why a state is not one of these objects, if it is not."""
        if document.get("kind") != _KIND:
            return "is not a training state that this medplus can read"
        if document["identity"] != identity:
            return "belongs to a run with other settings"
        there, here = _kinds(saved), _kinds(self._tensors())
        for name in sorted(name for name, _ in there.items() ^ here.items()):
            found = f"{there.get(name, 'missing')} there, {here.get(name, 'missing')} here"
            return f"is of another network: '{name}' is {found}"
        if document["optimizer"] != self._parameter_names():
            return "is of another optimiser: its parameters are grouped differently"
        return None

    def _load_optimizer(self, moments: Tensors, rates: list[float]) -> None:
        numbered = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, Tensors] = defaultdict(dict)
        for place, tensor in moments.items():
            number, name = place.removeprefix(_OPTIMIZER).split(".")
            # Moments have their parameter's memory format, which fused steps need to find again.
            like = numbered[int(number)] if tensor.ndim else tensor
            copy = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
            state[int(number)][name] = copy
        groups = self.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict({"state": dict(state), "param_groups": groups})


def _kinds(tensors: Tensors) -> dict[str, str]:
    """Return dtype and shape of every tensor, in words."""
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
    }
