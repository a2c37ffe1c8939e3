"""Embedding stores: whole, unfinished, or damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medplus import lock
from medplus.doctor.finding import Finding, counted, from_error
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.schema import ArrayLayout, group_metadata
from medplus.embeddings.store import find_damage, list_stores, read_info
from medplus.errors import StoreError
from medplus.vocabulary import SPLITS


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
        done, chunks = _progress(info)
        text = f"unfinished, {done} of {counted(chunks, 'chunk')}"
        return Finding("stores", "warning", str(path), text, f"this completes it: {command}")
    damaged = _damaged_bytes(path, info) if deep else _damaged(path, info)
    if not damaged:
        return None
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    text = f"damaged: {', '.join(damaged[:3])}{more}"
    return Finding("stores", "problem", str(path), text, f"this repairs it: {command}")


def _progress(info: StoreInfo) -> tuple[int, int]:
    layouts = [info.layouts(split)[0] for split in SPLITS]
    done = sum(len(info.checksums.get(layout.path, {})) for layout in layouts)
    return done, sum(layout.n_chunks for layout in layouts)


def _damaged_bytes(path: Path, info: StoreInfo) -> list[str]:
    return [
        f"{part.array} metadata" if part.chunk is None else f"{part.array} chunk {part.chunk}"
        for part in find_damage(path, info)
    ]


def _damaged(path: Path, info: StoreInfo) -> list[str]:
    """Return the parts that are not there in full, or that nothing vouches for."""
    damaged = [
        f"{split} metadata"
        for split in SPLITS
        if _read_json(path / split / "zarr.json") != group_metadata({})
    ]
    for layout in info.all_layouts():
        if _read_json(path / layout.path / "zarr.json") != layout.metadata():
            damaged.append(f"{layout.path} metadata")
        recorded = info.checksums.get(layout.path, {})
        damaged += [
            f"{layout.path} chunk {chunk}"
            for chunk in range(layout.n_chunks)
            if str(chunk) not in recorded or not _is_full(path, layout, chunk)
        ]
    return damaged


def _is_full(path: Path, layout: ArrayLayout, chunk: int) -> bool:
    try:
        return layout.chunk_file(path, chunk).stat().st_size == layout.chunk_nbytes
    except OSError:
        return False


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
