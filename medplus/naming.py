"""Names as files and folders and a terminal take them, and sizes and times in words."""

from __future__ import annotations


def safe_name(name: str) -> str:
    """Return the name with everything replaced that could leave its folder or confuse a shell."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe.lstrip(".") or "_"


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


def in_bytes(n: float) -> str:
    """Return a size in words: ``340 kB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if n >= 10 or unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


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
