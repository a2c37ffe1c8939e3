"""The names of corruptions: what is meant, how strong, by whose table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from medplus.corruptions.table import (
    COLOUR,
    FAMILIES,
    GENERAL,
    GREY,
    NAMES,
    SEVERITIES,
    SHORT,
    TABLE,
)
from medplus.errors import UsageError, nearest


@dataclass(frozen=True)
class Corruption:
    """One corruption at one severity.

    Attributes
    ----------
    name : str
        Of `medplus.corruptions.table.NAMES`.
    severity : int
        From 1 to 5.
    table : str
        Whose parameters: a MedMNIST flag, ``grey`` or ``colour``; empty until it is settled.

    Examples
    --------
    >>> noise = Corruption.parse("speckle_noise:3")
    >>> str(noise.settled("breastmnist", channels=1)), noise.settled("mine", channels=3).parameters
    ('speckle_noise:3@breastmnist', (0.2,))
    """

    name: str
    severity: int
    table: str = ""

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """Return what ``NAME:SEVERITY`` or ``NAME:SEVERITY@TABLE`` means.

        Raises
        ------
        UsageError
            Names the part that is wrong, and what it may be.
        """
        named, _, table = text.partition("@")
        name, _, severity = named.partition(":")
        if name not in NAMES:
            raise UsageError(f"unknown corruption '{name}'{nearest(name, NAMES)}")
        if severity not in map(str, SEVERITIES):
            raise UsageError(f"corruption '{text}' needs a severity from 1 to 5, as in {name}:3")
        if "@" in text and name not in TABLE.get(table, ()):
            have = ", ".join(key for key, rows in TABLE.items() if name in rows)
            raise UsageError(f"corruption '{text}': {name} is in the lists of {have}")
        return cls(name, int(severity), table)

    def __str__(self) -> str:
        return f"{self.name}:{self.severity}" + (f"@{self.table}" if self.table else "")

    def settled(self, dataset: str, channels: int) -> Corruption:
        """Return it with a table: its own, the dataset's, or the general one of such images.

        Raises
        ------
        UsageError
            If it needs colour, and the images have none.
        """
        if self.table:
            return self
        listed = self.name in TABLE.get(dataset, ()) and dataset not in (GREY, COLOUR)
        table = dataset if listed else general(channels)
        if self.name not in TABLE[table]:
            raise UsageError(f"{self.name} is for colour images; those of {dataset} are grey")
        return replace(self, table=table)

    @property
    def parameters(self) -> tuple[float, ...]:
        """What it is made with, once it is settled."""
        return TABLE[self.table][self.name][self.severity - 1]


def general(channels: int) -> str:
    """Return the name of the general table for grey or for colour images."""
    return GREY if channels == 1 else COLOUR


def of_dataset(dataset: str, channels: int) -> tuple[str, ...]:
    """Return the corruptions that a dataset is given unasked.

    Those of MedMNIST-C for its twelve datasets; of other data all but what belongs to a modality.
    """
    if dataset in TABLE and dataset not in (GREY, COLOUR):
        return tuple(TABLE[dataset])
    return tuple(name for name in GENERAL if name in TABLE[general(channels)])


def chosen(words: Iterable[str], dataset: str, channels: int) -> tuple[str, ...]:
    """Return the corruptions that words name: themselves, or families such as ``noise``.

    Of a family only those that the dataset's list has; where it has none, those of the general
    list.

    Raises
    ------
    UsageError
        If a word names none.
    """
    own = of_dataset(dataset, channels)
    found: dict[str, None] = {}
    for word in words:
        members = FAMILIES.get(word) or SHORT.get(word)
        if members is None:
            if word not in NAMES:
                known = (*FAMILIES, *SHORT, *NAMES)
                raise UsageError(f"unknown corruption '{word}'{nearest(word, known)}")
            members = (word,)
            found[word] = None
            continue
        listed = [name for name in members if name in own]
        anyway = [name for name in members if name in TABLE[general(channels)]]
        found.update(dict.fromkeys(listed or anyway))
    return tuple(found)
