"""What the doctor says, and where it looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Group = Literal["installation", "hardware", "folders", "data", "stores", "runs", "leftovers"]
Mark = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    group : str
        What it belongs to.
    mark : {"ok", "warning", "problem"}
        A problem makes a command fail or a result unreliable; a warning is worth knowing.
    subject, text : str
        What was looked at (a package, a path; may be empty), and what was found.
    remedy : str
        What to do about it, in one sentence.
    """

    group: Group
    mark: Mark
    subject: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Places:
    """The roots of the data, the embedding stores and the runs."""

    data: Path
    stores: Path
    runs: Path


def from_error(group: Group, path: Path, error: Exception) -> Finding:
    """Return the problem that an error tells of a path: what is wrong, and after it the remedy."""
    text, _, remedy = str(error).partition("; ")
    return Finding(group, "problem", str(path), text.removeprefix(str(path)).lstrip(": "), remedy)


def counted(n: int, noun: str) -> str:
    """Return ``1 store``, ``2 stores``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
