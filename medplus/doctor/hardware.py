"""GPUs and their driver against what torch and faiss were built for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medplus.doctor.finding import Finding, ok, problem, warning
from medplus.doctor.trial import Trial


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
    nvml, torch, faiss = (trials[package] for package in ("pynvml", "torch", "faiss"))
    driver, gpus = nvml.facts.get("driver"), nvml.facts.get("gpus", [])
    if nvml.error:
        text = f"cannot be imported ({nvml.error}), so the driver was not asked"
        yield warning("pynvml", text, "run pip install nvidia-ml-py")
    elif driver is None:
        yield ok("no NVIDIA driver answers")
    elif not gpus:
        yield warning(f"driver {driver}", "it knows of no GPU", "see what nvidia-smi says")
    else:
        yield ok(f"driver {driver}, for CUDA up to {nvml.facts['cuda']}", _named(gpus))
    if torch.error:
        return  # the installation's findings tell it
    yield _torch(torch.facts, nvml.facts, environment.get("CUDA_VISIBLE_DEVICES"))
    if torch.facts["gpus"] and faiss.facts.get("gpus"):
        yield ok(f"searches on {faiss.facts['gpus']} of {len(torch.facts['gpus'])} GPUs", "faiss")
    elif torch.facts["gpus"] and not faiss.error:
        text = "cannot use the GPU, so kNN searches there through torch"
        yield warning("faiss", text, "where faiss is to do it, install faiss-gpu")


def _torch(torch: Mapping[str, Any], nvml: Mapping[str, Any], hidden: str | None) -> Finding:
    built, usable, fault, serves = torch["cuda"], torch["gpus"], torch["fault"], nvml.get("cuda")
    text = f"built for CUDA {built}" if built else "built for the CPU alone"
    other = f"install a build of torch for CUDA {serves} or older"
    if usable and not fault:
        return ok(f"{text}, computes on {_named(usable)}", "torch")
    if usable:
        text += f"; it sees {_named(usable)}, but cannot compute there: {fault}"
        return problem("torch", text, "install a build of torch for this GPU, or use --device cpu")
    if not nvml.get("gpus"):
        return ok(f"{text}, computes on the CPU", "torch")
    if not built:
        return problem("torch", f"{text}, though there is a GPU", other)
    if serves is not None and int(float(serves)) < int(float(built)):
        # Within a major version of CUDA, old drivers serve new builds.
        text += f", but the driver serves CUDA {serves} at most"
        return problem("torch", text, f"update the driver, or {other}")
    if hidden is not None and not fault:
        text = f"sees no GPU: CUDA_VISIBLE_DEVICES is '{hidden}'"
        return warning("torch", text, "unset it, or name GPUs that are there")
    text += f", but sees no GPU{f': {fault}' if fault else ''}"
    return problem(
        "torch", text, "see what nvidia-smi says; a container must be started with its GPUs"
    )


def _named(gpus: list[str]) -> str:
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in Counter(gpus).items())
