"""Embedding stores: whole, unfinished, or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medplus import lock
from medplus.doctor.finding import Finding, first_few, from_error, ok, problem, warning
from medplus.embeddings.info import read_info
from medplus.embeddings.store import count_chunks, find_damage, list_stores
from medplus.errors import StoreError
from medplus.naming import counted


def examine_stores(root: Path, deep: bool) -> Iterator[Finding]:
    """Yield what there is to say of the stores under a root.

    Parameters
    ----------
    deep : bool
        Read every byte; else look whether every chunk is there in full.
    """
    looked_at = [_examine(path, root, deep) for path in list_stores(root)]
    findings = [finding for finding in looked_at if finding is not None]
    yield from findings
    told = "read to the last byte" if deep else "whole by their sizes (--deep reads them)"
    whole, total = len(looked_at) - len(findings), len(looked_at)
    if not total:
        yield ok(f"no store in {root}")
    elif whole:
        yield ok(f"{whole} of {counted(total, 'store')} in {root} {told}")


def _examine(path: Path, root: Path, deep: bool) -> Finding | None:
    owner = lock.owner(path.with_name(f"{path.name}.lock"))
    if owner is not None:
        return ok(f"being written by {owner}", path)
    try:
        info = read_info(path)
    except StoreError as error:
        return from_error(path, error)
    command = info.resume_command(root)
    if not info.complete:
        done, chunks = count_chunks(path, info)
        text = f"unfinished, {done} of {counted(chunks, 'chunk')}"
        return warning(path, text, f"this completes it: {command}")
    damaged = list(find_damage(path, info, deep=deep))
    if not damaged:
        return None
    return problem(path, f"damaged: {first_few(damaged)}", f"this repairs it: {command}")
