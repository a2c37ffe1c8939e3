"""Names as files and folders and a terminal take them, and sizes in words."""

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
