"""The installation: versions, what medplus requires, and what cannot be imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from medplus._version import __version__
from medplus.doctor.finding import Finding, ok, problem, warning
from medplus.doctor.trial import Trial
from medplus.naming import counted

_TOLD = ("torch", "torchvision", "timm", "zarr", "numpy")
_FAISS = "faiss"
_DEVELOPMENT = "dev"


def examine_installation(trials: Mapping[str, Trial]) -> Iterator[Finding]:
    """Yield what there is to say of the packages; `trials` are those that were imported."""
    yield ok(f"Python {platform.python_version()} in {sys.prefix}", f"medplus {__version__}")
    faiss = faiss_packages()
    told = {name: version for name in _TOLD if (version := _version(name))} | faiss
    if told:
        yield ok(", ".join(f"{name} {version}" for name, version in told.items()))
    if len(faiss) > 1:
        both = " and ".join(f"{name} {version}" for name, version in faiss.items())
        text = f"{both} are installed at once, and overwrite each other's files"
        remedy = f"run pip uninstall --yes {' '.join(faiss)}, then install medplus again"
        yield problem(_FAISS, text, remedy)
    yield from _requirements(faiss)
    pip_names = {"sklearn": "scikit-learn", _FAISS: next(iter(faiss), "faiss-gpu")}
    for package, trial in trials.items():
        if trial.error and package != "pynvml":
            remedy = f"pip install --force-reinstall {pip_names.get(package, package)}"
            yield problem(
                package, f"cannot be imported: {trial.error}", f"install it again: {remedy}"
            )


def faiss_packages() -> dict[str, str]:
    """Return the installed packages that bring the module faiss, and their versions."""
    names = {str(found.name) for found in metadata.distributions() if found.name}
    ours = sorted(name for name in names if name.lower().replace("_", "-").startswith("faiss"))
    return {name: _version(name) or "?" for name in ours}


def _requirements(faiss: Mapping[str, str]) -> Iterator[Finding]:
    """Compare what is installed with what medplus's own metadata require."""
    try:
        from packaging.requirements import Requirement

        own = metadata.metadata("medplus")
        texts = metadata.requires("medplus") or []
    except metadata.PackageNotFoundError:
        text = "runs without being installed, so its requirements were not compared"
        yield warning("medplus", text, "install it: pip install .")
        return
    except ImportError as error:
        text = f"cannot be imported: {error}"
        yield problem("packaging", text, "install it: pip install packaging")
        return
    extras = [name for name in own.get_all("Provides-Extra") or [] if name != _DEVELOPMENT]
    met, unmet = 0, []
    for required in map(Requirement, texts):
        needed = required.marker is None or required.marker.evaluate({"extra": ""})
        offered = any(required.marker.evaluate({"extra": e}) for e in extras if required.marker)
        installed = _version(required.name)
        if installed and required.specifier.contains(installed, prereleases=True):
            met += needed or offered
        elif needed or (offered and installed):
            unmet.append(_unmet(required.name, str(required.specifier), installed, faiss))
    yield from unmet or [ok(f"{counted(met, 'requirement')} met")]


def _unmet(name: str, wanted: str, installed: str | None, faiss: Mapping[str, str]) -> Finding:
    command = f"pip install '{name}{wanted}'"
    if installed:
        text = f"is {installed}, medplus needs {wanted}"
        return problem(name, text, f"run pip install --upgrade '{name}{wanted}'")
    if name.startswith(_FAISS) and faiss:
        other = ", ".join(faiss)
        remedy = f"if kNN is to search on a GPU through faiss, uninstall {other}, then {command}"
        return warning(name, f"is not installed, {other} is in its place", remedy)
    return problem(name, f"is not installed, medplus needs {wanted}", f"run {command}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, KeyError):  # absent, or with damaged metadata
        return None
