"""Names as files, folders and a terminal take them; counts, sizes and times in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_SHOWN = 3


def safe_name(name: str) -> str:
    """Return the name with everything replaced that could leave its folder or confuse a shell."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe.lstrip(".") or "_"


def leads_to(name: str | Path, is_such: Callable[[Path], bool] = Path.exists) -> bool:
    """Tell whether a name that a user gave is that of something there; too long a one is not."""
    try:
        return name != "" and is_such(Path(name))
    except (OSError, ValueError):
        return False


def printable(text: str, keep: str = "\n") -> str:
    r"""Return a text with what steers a terminal, or turns its direction, shown as ``\x1b``.

    Names come from files of others: none may move the cursor, or pass for a line of ours.

    Parameters
    ----------
    keep : str
        Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def quoted(name: str) -> str:
    """Return a name as it is, escaped where it would break a line or a terminal.

    Blanks around it, which nobody sees, stand in quotation marks.

    >>> quoted("benign"), quoted("benign ")
    ('benign', "'benign '")
    """
    return printable(name, keep="") if name == name.strip() else f"'{printable(name, keep='')}'"


def some(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Return ``(first: a, b, c)``, or ``(a)`` and ``(a, b)`` where there are no more."""
    every = list(names)
    told = ", ".join(map(quoted, every[:shown]))
    return f"(first: {told})" if len(every) > shown else f"({told})"


def counted(n: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``; a noun in -s, such as ``class``, takes -es."""
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"


def several(names: Sequence[str], noun: str) -> str:
    """Return how many there are and the first of them: ``2 images (a.png, b.png)``."""
    return f"{counted(len(names), noun)} {some(names)}"


def in_bytes(n: float) -> str:
    """Return a size in words: ``340 kB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if n >= 10 or unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def in_percent(share: float) -> str:
    """Return a share in words: ``57.1 %``."""
    return f"{100 * share:.1f} %".replace("-", "−")


def utc_now() -> str:
    """Return this moment as documents have it: ``2024-01-31T12:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def duration(seconds: float) -> str:
    """Return a time in words: ``12 s``, ``3 min``, ``2.5 h``, ``4.1 days``.

    >>> [duration(s) for s in (0.42, 12, 200, 9000, 355_000)]
    ['0.4 s', '12 s', '3 min', '2.5 h', '4.1 days']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
