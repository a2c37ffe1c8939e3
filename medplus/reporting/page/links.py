"""Where a page finds the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True)
class PageLinks:
    """Relative paths from the page to what lies beside it.

    A page that is mailed alone says the same without them; only the links are gone.

    Attributes
    ----------
    files : mapping of str to (mapping of str to str)
        Name of a table or figure, as ``fig1_overview``, to its files by format: ``csv`` or ``png``,
        ``svg``, ``pdf``.
    runs : mapping of str to str
        A run as the tables name it, to its folder.
    """

    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)

    def of(self, run: str) -> str | None:
        """Return the link to a run's folder, or None."""
        path = self.runs.get(run)
        return None if path is None else href(path)

    def of_files(self, names: Sequence[str] | None = None) -> list[tuple[str, str]]:
        """Return (label, link) of the files of these tables and figures; by default of all."""
        return [
            (f"{name}.{kind}", href(path))
            for name, kinds in self.files.items()
            if names is None or name in names
            for kind, path in kinds.items()
        ]


def href(path: str) -> str:
    """Return a path as a link that can only lead to a file.

    The colon is quoted too: a folder named ``javascript:…`` is then a folder, not a script.
    """
    return quote(path.replace("\\", "/"), safe="/")
