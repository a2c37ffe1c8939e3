"""Embedding stores: whole, unfinished, or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medplus import lock
from medplus.doctor.finding import Finding, counted, from_error
from medplus.embeddings.store import count_chunks, find_damage, list_stores, read_info
from medplus.errors import StoreError


def examine_stores(root: Path, deep: bool) -> Iterator[Finding]:
    """Yield what there is to say of the stores under a root.

    Parameters
    ----------
    deep : bool
        Read every byte; else look whether every chunk is there in full.
    """
    if not root.is_dir():
        yield Finding("stores", "ok", "", f"no folder {root}")
        return
    whole = total = 0
    for path in list_stores(root):
        total += 1
        finding = _examine(path, root, deep)
        if finding is None:
            whole += 1
        else:
            yield finding
    told = "read to the last byte" if deep else "whole by their sizes (--deep reads them)"
    if whole or not total:
        text = f"{whole} of {counted(total, 'store')} in {root} {told}"
        yield Finding("stores", "ok", "", text if total else f"no store in {root}")


def _examine(path: Path, root: Path, deep: bool) -> Finding | None:
    owner = lock.owner(path.with_name(f"{path.name}.lock"))
    if owner is not None:
        return Finding("stores", "ok", str(path), f"being written by {owner}")
    try:
        info = read_info(path)
    except StoreError as error:
        return from_error("stores", path, error)
    command = info.resume_command(root)
    if not info.complete:
        done, chunks = count_chunks(path, info)
        text = f"unfinished, {done} of {counted(chunks, 'chunk')}"
        return Finding("stores", "warning", str(path), text, f"this completes it: {command}")
    damaged = [str(part) for part in find_damage(path, info, deep=deep)]
    if not damaged:
        return None
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    text = f"damaged: {', '.join(damaged[:3])}{more}"
    return Finding("stores", "problem", str(path), text, f"this repairs it: {command}")
