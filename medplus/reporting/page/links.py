"""Where a page finds the files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True)
class PageLinks:
    """Relative paths from the page to what lies beside it.

    A page that is mailed alone says the same without them; only the links are gone.

    Attributes
    ----------
    tables : mapping of str to str
        Name of a table, as ``benchmark``, to its CSV file.
    figures : mapping of str to (mapping of str to str)
        Name of a figure, as ``overview``, to its files by format: ``png``, ``svg``, ``pdf``.
    runs : mapping of str to str
        A run as the tables name it, to its folder.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)

    def of(self, run: str) -> str | None:
        """Return the link to a run's folder, or None."""
        path = self.runs.get(run)
        return None if path is None else href(path)


def href(path: str) -> str:
    """Return a path as a link that can only lead to a file.

    The colon is quoted too: a folder named ``javascript:…`` is then a folder, not a script.
    """
    return quote(path.replace("\\", "/"), safe="/")
