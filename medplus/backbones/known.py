"""Backbones as they were loaded on this machine: known without weights, torch or timm.

What was seen of one is believed while all that decided it is as it was: the versions and places of
packages, medplus's own source, the processor, and the files of its weights, each by size, times,
and place on the disk. What cannot be told so, such as code in a Python file, is never remembered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from medplus import remembered
from medplus.backbones import sources
from medplus.backbones.identity import Identity
from medplus.backbones.sources.ref import BackboneRef
from medplus.jsonfile import digest_of
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRETRAINED, ExtractSpec

_SUBJECT = "backbones"
_SETTLED_NS = 2 * 10**9
"""File systems tell times to within this: a younger file may change without its time changing."""
_PACKAGES = ("torch", "timm", "torchvision", "safetensors")
_PLACES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
           "HF_ENDPOINT", "TORCH_HOME", "TIMM_USE_OLD_CACHE")  # fmt: skip
"""Variables that decide where weights are looked for."""

Stats = dict[str, list[int]]


@dataclass(frozen=True)
class Known(Identity):
    """A backbone as it was loaded, at one size of images.

    Attributes
    ----------
    dim : int
        Number of embedding dimensions.
    """

    dim: int = field(kw_only=True)


class Sighting:
    """What a spec's backbone is now, before it is loaded, so that it can be known the next time.

    Parameters
    ----------
    spec : ExtractSpec

    Raises
    ------
    UsageError, BackboneError
        As `medplus.backbones.sources.resolve`.
    """

    def __init__(self, spec: ExtractSpec) -> None:
        self.ref = sources.resolve(spec.backbone, spec.weights)
        self._spec, self._key = spec, _key_of(spec)
        self._seen_ns = time.time_ns()
        self._files = self._look()

    def keep(self, loaded: Identity, shape: tuple[int, ...], dim: int) -> None:
        """Remember what was loaded, if nothing that decides it has changed meanwhile.

        Parameters
        ----------
        shape : tuple of int
            Of one image, as the dataset has it.
        dim : int
            Number of embedding dimensions.
        """
        files = self._files
        if self._key is None or files is None or loaded.ref != self.ref or files != self._look():
            return
        if any(max(times) > self._seen_ns - _SETTLED_NS for _, *times, _ in files.values()):
            return
        known = remembered.recall(_SUBJECT, self._key) or {}
        made = known.get("made", {}) if known.get("files") == files else {}
        facts = {
            "preprocess": asdict(loaded.preprocess), "weights_sha256": loaded.weights_sha256,
            "feature": loaded.feature, "licence": loaded.licence, "dim": dim,
        }  # fmt: skip
        made = {**made, _way(self._spec, shape): facts}
        entry = {"ref": asdict(self.ref), "files": files, "made": made}
        remembered.remember(_SUBJECT, self._key, entry)

    def _look(self) -> Stats | None:
        files = sources.weights_files(self.ref)
        return None if files is None else _stats(files)


def is_known(spec: ExtractSpec) -> bool:
    """Tell whether a spec's backbone was loaded here, and would be the same again."""
    return _recall(spec) is not None


def recall_backbone(spec: ExtractSpec, shape: tuple[int, ...]) -> Known | None:
    """Return a spec's backbone as it was loaded for images of a shape, or None."""
    entry = _recall(spec)
    try:
        assert entry is not None
        facts = entry["made"][_way(spec, shape)]
        pixels = PreprocessSpec.read(facts["preprocess"])
        return Known(BackboneRef(**entry["ref"]), **{**facts, "preprocess": pixels})
    except (AssertionError, KeyError, TypeError):
        return None


def _recall(spec: ExtractSpec) -> dict[str, Any] | None:
    key = _key_of(spec)
    entry = None if key is None else remembered.recall(_SUBJECT, key)
    if entry is None:
        return None
    files = entry.get("files")
    return entry if isinstance(files, dict) and _stats(map(Path, files)) == files else None


def _way(spec: ExtractSpec, shape: tuple[int, ...]) -> str:
    return f"{spec.fit} · {spec.feature} · {'×'.join(map(str, shape))}"


def _stats(files: Iterable[Path]) -> Stats | None:
    """Return the stamps of files by their paths; None where one cannot be looked at."""
    try:
        return {str(file.absolute()): remembered.stamp(file.stat()) for file in files}
    except (OSError, ValueError):
        return None


def _key_of(spec: ExtractSpec) -> str | None:
    """Return all that decides what a name stands for, but for files of weights."""
    kind, weights = sources.kind_of(spec.backbone), spec.weights or PRETRAINED
    surroundings = _surroundings()
    if surroundings is None:
        return None
    by_path = kind not in ("pixels", "torchvision", "demo", "timm")
    try:
        return digest_of(
            {
                "kind": kind,
                "name": str(Path(spec.backbone).absolute()) if by_path else spec.backbone,
                "weights": weights
                if weights in (PRETRAINED, NONE)
                else str(Path(weights).resolve()),
                "places": {name: os.environ.get(name) for name in _PLACES},
                "surroundings": surroundings,
            }
        )
    except (OSError, ValueError):
        return None


@cache
def _surroundings() -> str | None:
    """Return a digest of machine, packages and medplus's source, as they are in this process."""
    machine = remembered.machine()
    root = Path(__file__).parents[1]
    try:
        packages = {name: distribution(name) for name in _PACKAGES}
        source = [root / "preprocess.py", *sorted((root / "backbones").rglob("*.[py]*"))]
        stats = _stats(path for path in source if path.suffix in (".py", ".yaml"))
    except (OSError, PackageNotFoundError):
        return None
    if machine is None or stats is None:
        return None
    places = {name: [one.version, str(one.locate_file(name))] for name, one in packages.items()}
    return digest_of({"machine": machine, "packages": places, "source": stats})
