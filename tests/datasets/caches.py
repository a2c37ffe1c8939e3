"""Where a dataset's cache lies, and what is in its folder."""

from __future__ import annotations

from pathlib import Path


def place(path: Path) -> Path:
    return path.parent / ".medplus-cache"


def leftovers(path: Path) -> list[str]:
    return sorted(entry.name for entry in place(path).iterdir())
