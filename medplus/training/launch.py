"""Where training runs: device, precision, number of processes, and what is deterministic."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from medplus.device import compute_precision
from medplus.errors import MedplusError, RunError, first_line
from medplus.interrupts import Interrupts
from medplus.vocabulary import Precision

_FABRIC_PRECISION: dict[Precision, Any] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
Result = TypeVar("Result")

# Every process imports this before Fabric announces the others, which is nobody's business; nor is
# that torch ends the others once one has failed.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)


def make_fabric(device: torch.device, devices: int, precision: Precision) -> Fabric:
    """Return Fabric for one device, or for several processes with one device each."""
    chosen: Any = devices
    if devices == 1 and device.type == "cuda":
        chosen = [device.index or 0]
    return Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=chosen,
        strategy="ddp_spawn" if devices > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
        plugins=[LightningEnvironment()],  # we start all processes, also within a cluster's job
    )


def launch(fabric: Fabric, train: Callable[..., Result], *arguments: Any) -> Result:
    """Call ``train(fabric, *arguments)`` in every process, and return what the first one returns.

    Ctrl-C and SIGTERM reach the processes as SIGTERM, from here, exactly once; they save and end.

    Raises
    ------
    MedplusError, KeyboardInterrupt
        What a process raises.
    RunError
        If a process dies.
    """
    if fabric.strategy.launcher is None:
        fabric.launch()
        return train(fabric, *arguments)
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        with Interrupts(wait=False):
            outcome = fabric.launch(_Call(train, arguments, failures))
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        for process in multiprocessing.active_children():
            process.join()
        raise
    except ProcessRaisedException as error:
        if not failures.empty():
            raise failures.get() from None
        last = str(error).strip().splitlines()[-1]
        raise RunError(f"a training process failed: {last}") from error
    except ProcessExitedException as error:
        raise RunError(
            f"a training process died ({first_line(error)}); perhaps memory ran out: use a smaller "
            "--batch-size or fewer --devices; the same command goes on from the last state"
        ) from error
    if isinstance(outcome.value, KeyboardInterrupt):
        raise outcome.value
    return outcome.value  # type: ignore[no-any-return]


class _Sealed:
    """A result on its way between processes: Fabric looks into dataclasses, but not into this."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Call:
    """A call in another process, sealed like its result.

    Expected errors cross the border whole, through a queue of their own: where one process fails,
    the others fail for want of it, and whose failure is told first is chance.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        failures: SimpleQueue[MedplusError],
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._failures = failures
        self._warnings = warnings.filters[:]  # what is to be seen is the parent's choice

    def __call__(self, fabric: Fabric) -> _Sealed:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on
        logging.getLogger("medplus").setLevel(logging.ERROR)  # the parent has warned already
        warnings.filters[:] = self._warnings  # type: ignore[index]
        try:
            return _Sealed(self._function(fabric, *self._arguments))
        except KeyboardInterrupt:
            return _Sealed(KeyboardInterrupt())
        except MedplusError as error:
            self._failures.put(type(error)(*error.args))  # a traceback cannot be pickled
            raise


@contextmanager
def reproducible(
    deterministic: bool, network: nn.Module, precision: Precision, device: torch.device
) -> Iterator[str]:
    """Run the block with the recipe's promise of determinism, and true fp32 where it is fp32.

    Yields
    ------
    str
        The promise in words, for the record.
    """
    said = "no: the fastest algorithms"
    exception = known_exception(network)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        said = f"yes, but for {exception}" if exception and device.type == "cuda" else "yes"
        torch.use_deterministic_algorithms(True, warn_only=bool(exception))
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    exact = compute_precision("fp32", device) if precision == "fp32" else nullcontext()
    devices = [device] if device.type == "cuda" else []
    numpy_state = np.random.get_state()  # noqa: NPY002 - what timm's Mixup draws from
    try:
        with torch.random.fork_rng(devices), exact:
            torch.backends.cudnn.benchmark = not deterministic  # which `exact` has set too
            yield said
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = before[3]


def known_exception(network: nn.Module) -> str:
    """Return the operation of a network that has no deterministic gradient on CUDA, or ``""``."""
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    if any(isinstance(module, VisionTransformerSAM) for module in network.modules()):
        return "the gradient of SAM's interpolated position tables"
    return ""
