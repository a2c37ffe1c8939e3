"""Which device computes, and at which precision it computes natively."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, cast, get_args

from medplus import remembered
from medplus.errors import UsageError
from medplus.vocabulary import Precision

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> torch.device:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises
    ------
    UsageError
        If the name is unknown or the machine has no such device.
    """
    check_device_name(name)
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise UsageError(
                f"device '{name}' is not there: torch sees {count} CUDA devices; "
                "use --device cpu, or check the driver with nvidia-smi"
            )
    return torch.device(name)


def check_device_name(name: str) -> None:
    """Refuse a word that names no device, wherever it runs.

    Raises
    ------
    UsageError
    """
    if not re.fullmatch(r"auto|cpu(:0)?|cuda(:(0|[1-9][0-9]{0,3}))?", name):
        raise UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:0, cuda:1, …")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the compute precision for ``auto``, ``fp32``, ``bf16`` or ``fp16`` on a device.

    ``auto`` takes what the hardware multiplies natively: fp16 on CUDA from compute capability 7.0
    (more mantissa than bf16 at the same speed), bf16 on a CPU with AMX or AVX512-BF16, else fp32.
    """
    import torch

    if name == "auto":
        if device.type == "cuda":
            return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"
        return "bf16" if cpu_has_native_bf16() else "fp32"
    if name not in get_args(Precision):
        raise UsageError(f"unknown precision '{name}'; use auto, fp32, bf16 or fp16")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a CUDA device; on a CPU use bf16 or fp32")
    return cast("Precision", name)


def precision_here(name: str, device: str) -> Precision:
    """Return what `resolve_precision` does on a device of this machine, if known without torch.

    Parameters
    ----------
    name : str
        ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    device : str
        As for `resolve_device`.

    Raises
    ------
    UsageError
        As both.
    """
    check_device_name(device)
    machine = remembered.machine()
    key = f"{device} · {name} · {machine}"
    known = None if machine is None else remembered.recall("precisions", key)
    found = (known or {}).get("precision")
    if found in get_args(Precision) and "torch" not in sys.modules:
        return cast("Precision", found)
    precision = resolve_precision(name, resolve_device(device))
    if machine is not None and found != precision:
        remembered.remember("precisions", key, {"precision": precision})
    return precision


def resolve_training_precision(name: str, device: torch.device) -> Precision:
    """Return the precision that a recipe's word for training stands for on a device.

    ``auto`` is bf16 where the hardware multiplies it natively (CUDA from compute capability 8.0,
    CPUs with AMX or AVX512-BF16), else fp32: bf16 has fp32's range, so it needs no loss scaling.

    Raises
    ------
    UsageError
        If the device cannot train at this precision.
    """
    import torch

    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            native = cpu_has_native_bf16()
        return "bf16" if native else "fp32"
    return resolve_precision(name, device)


def check_devices(device: torch.device, devices: int) -> None:
    """Refuse more devices than there are.

    Raises
    ------
    UsageError
    """
    import torch

    if devices < 1:
        raise UsageError(f"--devices {devices}: at least one is needed")
    if device.type != "cuda":
        cores = os.cpu_count() or 1
        if devices > cores:
            raise UsageError(f"--devices {devices}: this machine has {cores} CPU cores")
        return
    if devices > 1 and device.index is not None:
        raise UsageError(
            f"--devices {devices} with --device {device}: say --device cuda, and choose GPUs with "
            "CUDA_VISIBLE_DEVICES"
        )
    if devices > torch.cuda.device_count():
        raise UsageError(
            f"--devices {devices}: torch sees {torch.cuda.device_count()} CUDA devices"
        )


def cpu_has_native_bf16() -> bool:
    """Tell whether this CPU has matrix or dot-product instructions for bfloat16."""
    import torch

    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@contextmanager
def compute_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run the block at a precision: autocast for half precisions, and true fp32 without TF32."""
    import torch

    if precision == "fp32":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = False
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before
        return
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(device.type, dtype=dtype):
        yield


def describe_device(device: torch.device) -> str:
    """Return a name for records: the GPU's, or the CPU's with its thread count."""
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name() or platform.machine()} ({torch.get_num_threads()} threads)"


def _cpu_name() -> str:
    from pathlib import Path

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""


def gpus() -> list[str]:
    """Return the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them, without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(_counted_by_the_driver())]


@cache
def _counted_by_the_driver() -> int:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, or no GPU
        return 0


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
