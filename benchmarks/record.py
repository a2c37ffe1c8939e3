"""What was measured on a machine, kept as a JSON file, so that the next time can be compared."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import Result

FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("torch", "timm", "zarr", "numpy", "faiss-gpu", "faiss-cpu", "scikit-learn")


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, device, threads, versions."""
    import torch

    from medplus.device import cpu_has_native_bf16, describe_device, resolve_device

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "device": describe_device(resolve_device()),
        "cpu": describe_device(torch.device("cpu")),
        "native_bf16_cpu": cpu_has_native_bf16(),
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def results_file(machine: dict[str, Any]) -> Path:
    """Return the file of a machine, named by its processor and device."""
    names = dict.fromkeys((machine["cpu"], machine["device"]))
    words = re.findall(r"[a-z0-9]+", " ".join(names).lower())
    return FOLDER / f"{'-'.join(words)}.json"


def read(path: Path) -> dict[str, Any]:
    """Return a machine's document; an empty one if nothing has been measured there."""
    if not path.is_file():
        return {"results": {}}
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def as_document(result: Result) -> dict[str, Any]:
    """Return a result as it is kept: to four digits, which is more than the noise leaves."""
    return {
        "name": result.name,
        "ratios": [float(f"{ratio:.4g}") for ratio in result.ratios],
        "goal": result.goal,
        "detail": result.detail,
        **({"points": result.points} if result.points else {}),
    }


def write(path: Path, machine: dict[str, Any], benchmark: str, results: Sequence[Result]) -> None:
    """Replace the results of one benchmark in a machine's file; those of others stay."""
    document = read(path)
    document["machine"] = machine
    document["results"][benchmark] = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "ratios": [as_document(result) for result in results],
    }
    document["results"] = dict(sorted(document["results"].items()))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
