"""GPUs and their driver against what torch and faiss were built for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from medplus.doctor.finding import Finding
from medplus.doctor.trial import Trial

_said = partial(Finding, "hardware")


def examine_hardware(
    trials: Mapping[str, Trial], environment: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Yield what there is to say of the GPUs.

    Parameters
    ----------
    trials : mapping of str to Trial
        Of pynvml, torch and faiss.
    environment : mapping of str to str
        The variables that may hide GPUs.
    """
    nvml = trials["pynvml"].facts
    torch, faiss = trials["torch"], trials["faiss"]
    driver = nvml.get("driver")
    gpus = nvml.get("gpus", [])
    if driver is None:
        if trials["pynvml"].error:
            yield _said(
                "warning",
                "pynvml",
                f"cannot be imported ({trials['pynvml'].error}), so the driver was not asked",
                "run pip install nvidia-ml-py",
            )
        else:
            yield _said("ok", "", "no NVIDIA driver answers")
    elif not gpus:
        yield _said("warning", f"driver {driver}", "it knows of no GPU", "see what nvidia-smi says")
    else:
        newest = nvml.get("cuda")
        yield _said("ok", _named(gpus), f"driver {driver}, for CUDA up to {newest}")
    if torch.error:
        return  # the installation's findings tell it
    yield from _torch(torch.facts, nvml, environment)
    if torch.facts["gpus"] and not faiss.error:
        yield _faiss(faiss.facts["gpus"], len(torch.facts["gpus"]))


def _torch(
    torch: Mapping[str, Any], nvml: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[Finding]:
    built, usable, fault = torch["cuda"], torch["gpus"], torch["fault"]
    build = f"built for CUDA {built}" if built else "built for the CPU alone"
    there = bool(nvml.get("gpus"))
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if usable and not fault:
        yield _said("ok", "torch", f"{build}, computes on {_named(usable)}")
    elif usable:
        yield _said(
            "problem",
            "torch",
            f"{build}; it sees {_named(usable)}, but cannot compute there: {fault}",
            "install a build of torch for this GPU, or use --device cpu",
        )
    elif not there:
        yield _said("ok", "torch", f"{build}, computes on the CPU")
    elif not built:
        yield _said(
            "problem",
            "torch",
            f"{build}, though there is a GPU",
            f"install a build of torch for CUDA {nvml['cuda']} or older",
        )
    elif _older(nvml["cuda"], built):
        yield _said(
            "problem",
            "torch",
            f"{build}, but the driver serves CUDA {nvml['cuda']} at most",
            f"update the driver, or install a build of torch for CUDA {nvml['cuda']} or older",
        )
    elif hidden is not None and not fault:
        yield _said(
            "warning",
            "torch",
            f"sees no GPU: CUDA_VISIBLE_DEVICES is '{hidden}'",
            "unset it, or name GPUs that are there",
        )
    else:
        yield _said(
            "problem",
            "torch",
            f"{build}, but sees no GPU{f': {fault}' if fault else ''}",
            "see what nvidia-smi says; a container must be started with its GPUs",
        )


def _faiss(usable: int, there: int) -> Finding:
    if usable:
        return _said("ok", "faiss", f"searches on {usable} of {there} GPUs")
    return _said(
        "warning",
        "faiss",
        "cannot use the GPU, so kNN searches there through torch",
        "where faiss is to do it, install faiss-gpu",
    )


def _older(one: str | None, other: str) -> bool:
    """Compare versions of CUDA by their major number: within one, old drivers serve new builds."""
    return one is not None and float(one) // 1 < float(other) // 1


def _named(gpus: list[str]) -> str:
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in Counter(gpus).items())
