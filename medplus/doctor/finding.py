"""What the doctor says, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
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
    mark : {"ok", "warning", "problem"}
        A problem makes a command fail or a result unreliable; a warning is worth knowing.
    subject, text : str
        What was looked at (a package, a path; may be empty), and what was found.
    remedy : str
        What to do about it, in one sentence.
    group : Group or None
        What it belongs to: the part of the examination that found it.
    """

    mark: Mark
    subject: str
    text: str
    remedy: str = ""
    group: Group | None = None


@dataclass(frozen=True)
class Places:
    """The roots of the data, the embedding stores and the runs."""

    data: Path
    stores: Path
    runs: Path


def ok(text: str, subject: object = "") -> Finding:
    """Return what is as it should be."""
    return Finding("ok", str(subject), text)


def warning(subject: object, text: str, remedy: str) -> Finding:
    """Return what is worth knowing."""
    return Finding("warning", str(subject), text, remedy)


def problem(subject: object, text: str, remedy: str = "") -> Finding:
    """Return what makes a command fail or a result unreliable."""
    return Finding("problem", str(subject), text, remedy)


def from_error(path: Path, error: Exception) -> Finding:
    """Return the problem that an error tells of a path: what is wrong, and after it the remedy."""
    text, _, remedy = str(error).partition("; ")
    return problem(path, text.removeprefix(str(path)).lstrip(": "), remedy)


def first_few(names: Sequence[object]) -> str:
    """Return ``a, b, c and 2 more``."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more
