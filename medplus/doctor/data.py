"""Dataset files: official, phantoms, own, damaged; and what their caches still need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medplus.datasets import catalog, npzfile
from medplus.datasets.cache import FOLDER, damaged_files
from medplus.datasets.sources.npz import file_md5, find_cached
from medplus.doctor.finding import Finding, from_error, ok, problem, warning
from medplus.errors import DatasetError
from medplus.naming import counted

_WORDS = {
    "official": "official",
    "phantom": "synthetic (phantoms)",
    "own": "not of MedMNIST+",
    "unread": "not read yet, so not known to be official (--deep reads them)",
}


def examine_data(root: Path, deep: bool) -> Iterator[Finding]:
    """Yield what there is to say of the npz files in a folder.

    Parameters
    ----------
    deep : bool
        Read every file to tell whether it is official, and every cache; else say what the caches
        know.
    """
    kinds = Counter[str]()
    for path in sorted(root.glob("*.npz")):
        try:
            kind = _kind(path, deep)
        except (DatasetError, OSError) as error:
            yield from_error(path, error)
            continue
        kinds[kind] += 1
        if kind == "unofficial":
            flag, size = catalog.official_names()[path.name]
            again = f"medplus download {flag} --size {size} --data-root {root}"
            text = "is not the official file; results record it as unofficial"
            yield warning(path, text, f"move it away and fetch it again: {again}")
        folder = root / FOLDER / path.stem
        if deep and folder.is_dir() and (damaged := damaged_files(folder)):
            remedy = "delete this folder; it is filled again from the file"
            yield problem(folder, f"the cache is damaged: {damaged[0].name}", remedy)
    for kind, words in _WORDS.items():
        if kinds[kind]:
            yield ok(f"{counted(kinds[kind], 'file')} {words}")
    if not kinds:
        yield ok(f"no dataset file in {root}")


def _kind(path: Path, deep: bool) -> str:
    """Say what a file is, after a look at its headers.

    Raises
    ------
    DatasetError
        If it is damaged.
    """
    with npzfile.open_npz(path) as archive:
        npzfile.read_headers(archive, path)
        if npzfile.read_phantom_note(archive, path) is not None:
            return "phantom"
    if path.name not in catalog.official_names():
        return "own"
    known = find_cached(path)
    if known is None and not deep:
        return "unread"
    flag, size = catalog.official_names()[path.name]
    md5 = file_md5(path) if deep or known is None else known.facts["md5"]
    return "official" if md5 == catalog.info(flag).md5[size] else "unofficial"


def cache_need(path: Path) -> int:
    """Return how many bytes the cache of a file will still take; 0 where that cannot be told."""
    try:
        if find_cached(path) is not None:
            return 0
        with npzfile.open_npz(path) as archive:
            return sum(header.nbytes for header in npzfile.read_headers(archive, path).values())
    except (DatasetError, OSError):
        return 0
