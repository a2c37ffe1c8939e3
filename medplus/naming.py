"""Names of datasets and backbones as names of files and folders."""

from __future__ import annotations


def safe_name(name: str) -> str:
    """Return the name with everything replaced that could leave its folder or confuse a shell."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe.lstrip(".") or "_"
