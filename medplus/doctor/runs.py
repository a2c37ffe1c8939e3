"""Runs: finished and readable, interrupted, or damaged."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from medplus import lock
from medplus.doctor.finding import Finding, counted
from medplus.errors import MedplusError, RunError
from medplus.runs.ledger import (
    EVALUATIONS,
    HEAD_FILE,
    PARTIAL,
    PREDICTIONS_FILE,
    read_head,
    read_predictions,
    read_record,
)
from medplus.sweep.claims import Claims

_PROTOCOLS = ("knn", "probe", "finetune")
_NETWORK_FILE = "network.safetensors"  # to import its home would import torch
_AGAIN = "delete the folder, and run the command that made it again"


def examine_runs(root: Path, deep: bool) -> Iterator[Finding]:
    """Yield what there is to say of the runs under a root.

    Parameters
    ----------
    deep : bool
        Read every byte of what runs have kept, which needs torch; else look whether records can be
        read and files are there in full.
    """
    if not root.is_dir():
        yield Finding("runs", "ok", "", f"no folder {root}")
        return
    whole = total = 0
    for folder in _folders(root):
        owner = lock.owner(folder.with_name(f".{folder.name.removesuffix(PARTIAL)}.lock"))
        if owner is not None:
            yield Finding("runs", "ok", str(folder), f"under way, by {owner}")
        elif folder.name.endswith(PARTIAL):
            yield Finding(
                "runs",
                "warning",
                str(folder),
                "a training that was interrupted",
                "the medplus finetune command that began it goes on with it",
            )
        else:
            total += 1
            fault = _fault(folder, deep)
            whole += not fault
            if fault:
                yield Finding("runs", "problem", str(folder), fault, _AGAIN)
    told = "read to the last byte" if deep else "whole by their records and sizes"
    if whole or not total:
        text = f"{whole} of {counted(total, 'run')} in {root} {told}"
        yield Finding("runs", "ok", "", text if total else f"no finished run in {root}")
    failures = Claims(root).failures()
    if failures:
        first = next(iter(failures.values()))
        text = f"{counted(len(failures), 'job')} failed, such as '{first.name}'"
        yield Finding(
            "runs",
            "warning",
            "sweeps",
            text,
            "medplus sweep GRID --status says why, --retry-failed tries again",
        )


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of runs, finished or not, and of their evaluations."""
    for protocol in _PROTOCOLS:
        for folder in sorted(root.glob(f"{protocol}/*/*/*/[!.]*")):
            if folder.is_dir():
                yield folder
                yield from sorted(p for p in folder.glob(f"{EVALUATIONS}/[!.]*") if p.is_dir())


def _fault(folder: Path, deep: bool) -> str:
    """Say what is wrong with a finished run, or return an empty string."""
    try:
        record = read_record(folder)
    except RunError as error:
        return str(error).partition("; ")[0].replace(f"{folder}/", "")
    if not _is_whole_archive(folder / PREDICTIONS_FILE):
        return f"{PREDICTIONS_FILE} is missing or damaged"
    kept = [folder / name for name in (HEAD_FILE, _NETWORK_FILE)]
    for file in kept:
        if file.exists() and not _is_whole_safetensors(file):
            return f"{file.name} is damaged"
    is_run = folder.parent.name != EVALUATIONS
    if is_run and record.protocol == "probe" and not kept[0].exists():
        return f"{HEAD_FILE} is missing"
    if is_run and record.protocol == "finetune" and not kept[1].exists():
        return f"{_NETWORK_FILE} is missing"
    return _fault_in_bytes(folder) if deep else ""


def _fault_in_bytes(folder: Path) -> str:
    from medplus.tensorfile import read_tensors

    try:
        read_predictions(folder)
        if (folder / HEAD_FILE).exists():
            read_head(folder)
        if (folder / _NETWORK_FILE).exists():
            read_tensors(folder / _NETWORK_FILE)
    except MedplusError as error:
        return str(error).partition("; ")[0].replace(f"{folder}/", "")
    return ""


def _is_whole_archive(path: Path) -> bool:
    """Tell whether a zip's directory, which stands at its end, can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist())
    except Exception:  # damage shows in many ways
        return False


def _is_whole_safetensors(path: Path) -> bool:
    """Tell whether a file is as long as its header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            n_bytes = path.stat().st_size
            header = json.loads(file.read(min(length, n_bytes)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        return bool(n_bytes == 8 + length + max(ends, default=0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
