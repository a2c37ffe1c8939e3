"""How names of files stand in messages: counted, the first few of them, each on one line."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 3


def quoted(name: str) -> str:
    """Return a name as it is, or escaped where it would break a line or a terminal."""
    return name if name.isprintable() else ascii(name)


def some(names: Iterable[str]) -> str:
    """Return ``(first: a, b, c)``, or ``(a)`` and ``(a, b)`` where there are no more."""
    every = list(names)
    shown = ", ".join(quoted(name) for name in every[:_SHOWN])
    return f"(first: {shown})" if len(every) > _SHOWN else f"({shown})"


def count(n: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``; a noun in -s, such as ``class``, takes -es."""
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"
