"""The installation: versions, what medplus requires, and what cannot be imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata

from medplus._version import __version__
from medplus.doctor.finding import Finding, counted
from medplus.doctor.trial import Trial

_TOLD = ("torch", "torchvision", "timm", "zarr", "numpy")
_FAISS = "faiss"
_DEVELOPMENT = "dev"

_said = partial(Finding, "installation")


def examine_installation(trials: Mapping[str, Trial]) -> Iterator[Finding]:
    """Yield what there is to say of the packages; `trials` are those that were imported."""
    python = f"{platform.python_version()} in {sys.prefix}"
    yield _said("ok", f"medplus {__version__}", f"Python {python}")
    faiss = faiss_packages()
    versions = {name: version for name in _TOLD if (version := _version(name))} | faiss
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    if told:
        yield _said("ok", "", told)
    if len(faiss) > 1:
        both = " and ".join(f"{name} {version}" for name, version in faiss.items())
        yield _said(
            "problem",
            _FAISS,
            f"{both} are installed at once, and overwrite each other's files",
            f"run pip uninstall --yes {' '.join(faiss)}, then install medplus again",
        )
    yield from _requirements(faiss)
    for package, trial in trials.items():
        if trial.error and package != "pynvml":
            yield _said(
                "problem",
                package,
                f"cannot be imported: {trial.error}",
                f"install it again: pip install --force-reinstall {_pip_name(package)}",
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
        yield _said(
            "warning",
            "medplus",
            "runs without being installed, so its requirements were not compared",
            "install it: pip install .",
        )
        return
    except ImportError as error:
        yield _said(
            "problem",
            "packaging",
            f"cannot be imported: {error}",
            "install it: pip install packaging",
        )
        return
    extras = [name for name in own.get_all("Provides-Extra") or [] if name != _DEVELOPMENT]
    met, wrong = 0, False
    for required in map(Requirement, texts):
        needed = required.marker is None or required.marker.evaluate({"extra": ""})
        offered = any(required.marker.evaluate({"extra": e}) for e in extras if required.marker)
        installed = _version(required.name)
        if not (needed or (offered and installed)):
            continue
        if installed and required.specifier.contains(installed, prereleases=True):
            met += 1
            continue
        wrong = True
        yield _unmet(required.name, str(required.specifier), installed, faiss)
    if not wrong:
        yield _said("ok", "", f"{counted(met, 'requirement')} met")


def _unmet(name: str, wanted: str, installed: str | None, faiss: Mapping[str, str]) -> Finding:
    if installed:
        return _said(
            "problem",
            name,
            f"is {installed}, medplus needs {wanted}",
            f"run pip install --upgrade '{name}{wanted}'",
        )
    if name.startswith(_FAISS) and faiss:
        other = ", ".join(faiss)
        return _said(
            "warning",
            name,
            f"is not installed, {other} is in its place",
            f"if kNN is to search on a GPU through faiss, uninstall {other}, then "
            f"pip install '{name}{wanted}'",
        )
    return _said(
        "problem",
        name,
        f"is not installed, medplus needs {wanted}",
        f"run pip install '{name}{wanted}'",
    )


def _pip_name(package: str) -> str:
    if package == _FAISS:
        return next(iter(faiss_packages()), "faiss-gpu")
    return {"sklearn": "scikit-learn"}.get(package, package)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, KeyError):  # absent, or with damaged metadata
        return None
