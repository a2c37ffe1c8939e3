"""Runs: finished and readable, interrupted, or damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from medplus import lock
from medplus.doctor.finding import Finding, ok, problem, warning
from medplus.errors import MedplusError, RunError
from medplus.naming import counted
from medplus.run.ledger import (
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
_KEPT = {"probe": HEAD_FILE, "finetune": _NETWORK_FILE}


def examine_runs(root: Path, deep: bool) -> Iterator[Finding]:
    """Yield what there is to say of the runs under a root.

    Parameters
    ----------
    deep : bool
        Read every byte of what runs have kept, which needs torch; else look whether records can be
        read and files are there in full.
    """
    whole = total = 0
    for folder in _folders(root):
        owner = lock.owner(folder.with_name(f".{folder.name.removesuffix(PARTIAL)}.lock"))
        if owner is not None:
            yield ok(f"under way, by {owner}", folder)
        elif folder.name.endswith(PARTIAL):
            remedy = "the medplus finetune command that began it goes on with it"
            yield warning(folder, "a training that was interrupted", remedy)
        else:
            total += 1
            fault = _fault(folder, deep)
            whole += not fault
            if fault:
                remedy = "delete the folder, and run the command that made it again"
                yield problem(folder, fault, remedy)
    told = "read to the last byte" if deep else "whole by their records and sizes"
    if not total:
        yield ok(f"no finished run in {root}")
    elif whole:
        yield ok(f"{whole} of {counted(total, 'run')} in {root} {told}")
    failures = Claims(root).standing().failures
    if failures:
        first = next(iter(failures.values())).job
        text = f"{counted(len(failures), 'job')} failed, such as '{first}'"
        remedy = "medplus sweep GRID --status says why, --retry-failed tries again"
        yield warning("sweeps", text, remedy)


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of runs, finished or not, and of their evaluations."""
    for protocol in _PROTOCOLS:
        for folder in sorted(root.glob(f"{protocol}/*/*/*/[!.]*/")):
            yield folder
            yield from sorted(folder.glob(f"{EVALUATIONS}/[!.]*/"))


def _fault(folder: Path, deep: bool) -> str:
    """Say what is wrong with a finished run, or return an empty string."""
    try:
        record = read_record(folder)
    except RunError as error:
        return _reason(error, folder)
    if not zipfile.is_zipfile(folder / PREDICTIONS_FILE):
        return f"{PREDICTIONS_FILE} is missing or damaged"
    for protocol, name in _KEPT.items():
        if (folder / name).exists():
            if not _is_whole(folder / name):
                return f"{name} is damaged"
        elif record.protocol == protocol and folder.parent.name != EVALUATIONS:
            if protocol == "finetune" and record.folds is not None:
                continue  # its networks lie with its folds
            return f"{name} is missing"
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
        return _reason(error, folder)
    return ""


def _reason(error: MedplusError, folder: Path) -> str:
    return str(error).partition("; ")[0].replace(f"{folder}/", "")


def _is_whole(path: Path) -> bool:
    """Tell whether a file of tensors is as long as its header says."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):
            return True
    except (OSError, safetensors.SafetensorError):
        return False
