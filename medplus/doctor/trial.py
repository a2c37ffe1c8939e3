"""Trying packages in a process of its own: a broken one may crash or hang.

This file is also the program of that process, so it imports nothing of medplus.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# torch before faiss, as everywhere: the other order has crashed.
PACKAGES = (
    "pynvml", "numpy", "torch", "torchvision", "timm", "faiss", "safetensors", "zarr", "sklearn",
    "pandas",
)  # fmt: skip
_BUILT_ON_TORCH = ("torchvision", "timm")
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Trial:
    """What came of importing a package.

    Attributes
    ----------
    facts : dict
        What it tells of the hardware; `torch_facts` and its likes say what.
    error : str
        Why it cannot be imported, or empty.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def try_packages(
    packages: Sequence[str] = PACKAGES, patience_s: float = _PATIENCE_S
) -> dict[str, Trial]:
    """Import packages in this order; those after one that ends the process, in another one.

    Parameters
    ----------
    packages : sequence of str
        Names as in an import statement.
    patience_s : float
        How long a process may take, in seconds.
    """
    found: dict[str, Trial] = {}
    left = list(packages)
    while left:
        trials, ending = _try_in_child(left, patience_s)
        found |= trials
        left = [package for package in left if package not in found]
        if left:  # the process ended with the first of them
            found[left.pop(0)] = Trial(error=ending)
        if "torch" in found and found["torch"].error:  # one fault is told, and waited for, once
            left = [package for package in left if package not in _BUILT_ON_TORCH]
            found = {name: trial for name, trial in found.items() if name not in _BUILT_ON_TORCH}
    return found


def _try_in_child(packages: Sequence[str], patience_s: float) -> tuple[dict[str, Trial], str]:
    command = [sys.executable, "-P", str(Path(__file__)), *packages]
    # The child imports what this process would, and leaves no trace.
    paths = os.pathsep.join(path for path in sys.path if path)
    own = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - this Python and our own words, and no shell
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            env={**os.environ, **own}, timeout=patience_s, check=False,
        )  # fmt: skip
        text, ending = done.stdout, _ending(done.returncode)
    except subprocess.TimeoutExpired as error:
        text, ending = error.stdout or b"", f"its import takes more than {patience_s:.0f} s"
    trials = {}
    for line in text.splitlines():
        told = json.loads(line)
        trials[told["package"]] = Trial(told["facts"], told["error"])
    return trials, ending


def _ending(code: int) -> str:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its import ends the process with {how}"


# --- the child ----------------------------------------------------------------------------------


def torch_facts() -> dict[str, Any]:
    """Tell what torch was built for, and which GPUs it computes on.

    Returns
    -------
    dict
        ``cuda``: the version it was built for, or None; ``gpus``: names; ``fault``: why one cannot
        be used, or empty.
    """
    import torch

    facts: dict[str, Any] = {"cuda": torch.version.cuda, "gpus": [], "fault": ""}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                for i in range(torch.cuda.device_count()):
                    facts["gpus"].append(torch.cuda.get_device_name(i))
                    # A GPU may be seen, and yet this build has no code for it.
                    torch.ones(1, device=f"cuda:{i}").add_(1).item()
            elif heard:
                facts["fault"] = _first_line(heard[-1].message)
        except Exception as error:
            facts["fault"] = _first_line(error)
    return facts


def faiss_facts() -> dict[str, Any]:
    """Tell how many GPUs faiss can use: ``gpus``."""
    import faiss

    return {"gpus": int(getattr(faiss, "get_num_gpus", int)())}


def nvml_facts() -> dict[str, Any]:
    """Tell what the driver says.

    Returns
    -------
    dict
        ``driver``: its version, or None without one; ``cuda``: the newest version that it can
        serve, such as ``"12.4"``; ``gpus``: names.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {"driver": None, "cuda": None, "gpus": []}
    newest = pynvml.nvmlSystemGetCudaDriverVersion()
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
    return {
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        "cuda": f"{newest // 1000}.{newest % 1000 // 10}",
        "gpus": [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles],
    }


_FACTS = {"torch": torch_facts, "faiss": faiss_facts, "pynvml": nvml_facts}


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _try_all(packages: Sequence[str]) -> None:
    # timm imports it if it can, and it leaves two folders among the temporary files.
    sys.modules["wandb"] = None  # type: ignore[assignment]
    # Packages print what they like; the report has a channel of its own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as report:
        os.dup2(2, 1)
        for package in packages:
            told: dict[str, Any] = {"package": package, "facts": {}, "error": ""}
            try:
                importlib.import_module(package)
                told["facts"] = _FACTS.get(package, dict)()
            except Exception as fault:
                told["error"] = f"{type(fault).__name__}: {_first_line(fault)}"
            print(json.dumps(told), file=report, flush=True)


if __name__ == "__main__":
    _try_all(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # what a library does wrong while it ends is no fault of its import
