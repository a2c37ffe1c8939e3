"""What can go wrong, said so that the reader knows what to do about it.

Every message is one clear statement that names the file, key or flag at fault, followed by the
remedy. The command line prints it without a traceback and ends with `exit_code`.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, PydanticCustomError


class MedplusError(Exception):
    """Base of all errors that medplus raises on purpose."""

    exit_code = 1


class UsageError(MedplusError):
    """The request itself is wrong: an unknown name, an impossible combination of options."""

    exit_code = 2


class DatasetError(MedplusError):
    """A dataset's file is missing, damaged or not in MedMNIST's layout."""


class DownloadError(MedplusError):
    """A file cannot be fetched, or what has arrived is not what it should be."""


class BackboneError(MedplusError):
    """A backbone cannot be built, or its weights cannot be had or do not fit."""


class StoreError(MedplusError):
    """An embedding store is missing, incomplete, damaged, of another schema, or in use."""


class RunError(MedplusError):
    """A run's inputs cannot be used, or its record cannot be read or written."""


class SweepError(MedplusError):
    """A sweep's engine cannot run, or some of its jobs have failed."""


@contextmanager
def explained(kind: type[MedplusError], what: str, remedy: str = "") -> Iterator[None]:
    """Turn an `OSError` of the block into an error of ours: ``{what}: {reason}; {remedy}``."""
    try:
        yield
    except OSError as error:
        told = f"{what}: {error.strerror or error}"
        raise kind(f"{told}; {remedy}" if remedy else told) from error


def optional(
    module: str, what: str, package: str = "", kind: type[MedplusError] = UsageError
) -> Any:
    """Import a module of a package that need not be installed; without it, `what` cannot be."""
    try:
        return import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise kind(f"{what} needs {name}; run: {pip_install(package or name)}") from None


def writing(
    what: object, remedy: str, kind: type[MedplusError] = RunError
) -> AbstractContextManager[None]:
    """Say what cannot be written, why, and what to do, where the disk refuses the block."""
    return explained(kind, f"{what} cannot be written", remedy)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def pip_install(*packages: str) -> str:
    """Return the command that installs optional libraries, for a message's remedy.

    It names the libraries themselves and never ``medplus[extra]``: whoever registers that name on
    a package index would be installed by our own advice.
    """
    return f"pip install {' '.join(packages)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    by_lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lowered, n=1, cutoff=0.5)
    return f"; did you mean '{by_lowered[close[0]]}'?" if close else ""


def short(value: object) -> str:
    """Return a value as Python writes it, cut where it is long or nested: YAML can mean a lot."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = 100
    writer.maxlevel = 2
    return writer.repr(value)


def fault(message: str, *within: str | int) -> PydanticCustomError:
    """Return what a validator raises: a sentence, and where its fault lies within a value."""
    from pydantic_core import PydanticCustomError

    return PydanticCustomError("sentence", "{message}", {"message": message, "within": within})


def value_fault(fault: ErrorDetails, known: Iterable[str]) -> str:
    """Return a sentence of what pydantic has found, such as a key that is not among those known."""
    # Between the keys there are also positions, and which kind of several it was tried as.
    key = ".".join(part for part in map(str, fault["loc"]) if part.isidentifier())
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])
        return f"unknown key '{name}'{nearest(name, known)}"
    return f"{key} = {short(fault['input'])}: {fault['msg'].lower()}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
