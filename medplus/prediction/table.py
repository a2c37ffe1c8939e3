"""A table of predictions that is written while images are read, and resumed after any crash.

Rows are kept in parts, each a file that is whole or not there; the last step puts them together.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus import atomic, lock
from medplus.datasets.columns import csv_text
from medplus.errors import UsageError, writing
from medplus.jsonfile import parse_json
from medplus.naming import counted

_PARTIAL = ".partial"
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class PredictionTable:
    """A CSV file of predictions, its description beside it, and what there is of both so far.

    Attributes
    ----------
    path : Path
        Of the CSV file.
    columns : list of str
    settings : dict
        All that decides what is in it: the run, the options, the images.
    """

    path: Path
    columns: list[str]
    settings: dict[str, Any]

    @property
    def document(self) -> Path:
        """The description of a finished table: ``predictions.json``."""
        return self.path.with_suffix(".json")

    @property
    def _folder(self) -> Path:
        return self.path.with_name(f"{self.path.name}{_PARTIAL}")

    @contextmanager
    def hold(self, overwrite: bool = False) -> Iterator[int | None]:
        """Hold the table for the duration of the block.

        Parameters
        ----------
        overwrite : bool
            Whether a table of something else may be replaced.

        Yields
        ------
        int or None
            The number of rows that are there already; None for a finished table.

        Raises
        ------
        UsageError
            If there is a table of another run, of other options or images.
        RunError
            If it cannot be written.
        """
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        place = self.path.with_name(f".{self.path.name}.lock")
        with lock.hold(place, f"the table {self.path}"):
            if not overwrite and self._is_finished():
                shutil.rmtree(self._folder, ignore_errors=True)  # its writer was killed at the end
                yield None
                return
            if overwrite or not self._is_begun():
                with self._explained():
                    shutil.rmtree(self._folder, ignore_errors=True)
                    self._folder.mkdir()
                    atomic.write_json(self._folder / _SETTINGS, self.settings)
            atomic.remove_leftovers_in(self._folder)
            yield self._end_of(self._parts())

    def add(self, start: int, rows: Sequence[Sequence[str]]) -> None:
        """Keep the rows from number `start` on.

        Raises
        ------
        RunError
            If they cannot be written.
        """
        name = f"{start:010d}-{start + len(rows):010d}.csv"
        with self._explained():
            content = csv_text(rows).encode(errors="backslashreplace")
            atomic.write_bytes(self._folder / name, content)

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows that are kept so far."""
        for part in self._parts():
            with part.open(encoding="utf-8", newline="") as file:
                yield from csv.reader(file)

    def finish(self, document: dict[str, Any]) -> None:
        """Put the rows together and describe them.

        Raises
        ------
        RunError
            If they cannot be written.
        """
        whole = self._folder / f".whole{_PARTIAL}"
        with self._explained():
            with whole.open("wb") as file:
                file.write(csv_text([self.columns]).encode())
                for part in self._parts():
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file)
            atomic.sync(whole)
            self.path.unlink(missing_ok=True)  # or the description would be of another table
            atomic.write_json(self.document, {**document, "settings": self.settings})
            whole.replace(self.path)
            atomic.sync_folder(self.path.parent)
        shutil.rmtree(self._folder, ignore_errors=True)

    def description(self) -> dict[str, Any]:
        """Return what `finish` was given."""
        document: dict[str, Any] = parse_json(self.document.read_bytes())
        return document

    def _is_finished(self) -> bool:
        """Tell whether the table is there; refuse one that is of something else."""
        if not self.path.exists():
            return False
        known: Any = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = self.description()["settings"]
        if known == self.settings:
            return True
        raise UsageError(
            f"{self.path} is there already, and {self._difference(known)}; name another --out, or "
            "say --overwrite"
        )

    def _is_begun(self) -> bool:
        """Tell whether some of the table is there; refuse one of something else."""
        if not self._folder.exists():
            return False
        known: Any = None
        with suppress(OSError, ValueError):
            known = parse_json((self._folder / _SETTINGS).read_bytes())
        if known is None and not self._parts():
            return False  # its writer was killed before it had begun
        if known == self.settings:
            return True
        n = self._end_of(self._parts())
        raise UsageError(
            f"{self._folder} holds {counted(n, 'row')} of an unfinished table that "
            f"{self._difference(known)}; finish that with its own command, name another --out, or "
            "say --overwrite"
        )

    def _difference(self, known: Any) -> str:
        """Say what tells another table from this one."""
        if not isinstance(known, dict):
            return f"is no table of predictions that {self.document.name} describes"
        names = sorted(known.keys() | self.settings.keys())
        other = [name for name in names if known.get(name) != self.settings.get(name)]
        if "run" in other:
            return f"is of another run ({known.get('run')})"
        return f"is of other {', '.join(name.replace('_', ' ') for name in other)}"

    def _parts(self) -> list[Path]:
        """Return the files of rows that follow one another from the first row on."""
        found, end = [], 0
        for path in sorted(self._folder.glob("*-*.csv")):
            first, _, last = path.stem.partition("-")
            if int(first) != end:
                break
            found.append(path)
            end = int(last)
        return found

    @staticmethod
    def _end_of(parts: Sequence[Path]) -> int:
        return int(parts[-1].stem.partition("-")[2]) if parts else 0

    def _explained(self) -> AbstractContextManager[None]:
        return writing(
            self.path,
            "free space or name another --out, and run the same command again: what is finished "
            "is kept",
        )
