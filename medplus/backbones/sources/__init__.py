"""Where backbones come from (stub until the sources are merged)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medplus.backbones import catalog, finetuned, pythonfile
from medplus.backbones.weights import weights_label
from medplus.spec import PRELOGITS, PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    from medplus.backbones.build import Backbone

PAPER = catalog.PAPER
__all__ = ["weights_label"]


@dataclass(frozen=True)
class BackboneRef:
    """What a name was resolved to."""

    source: str
    spelling: str
    name: str
    tag: str
    weights: str
    weights_from: str
    weights_sha256: str | None = None
    run_id: str | None = None


def resolve(name: str, weights: str | None = None) -> BackboneRef:
    """Resolve a name."""
    from medplus.backbones.build import check_backbone

    chosen = weights or PRETRAINED
    check_backbone(name, chosen)
    short, tag = catalog.resolve(name)
    label = weights_label(chosen)
    if finetuned.is_finetuned(name):
        run = finetuned.read_description(Path(name))
        sha = finetuned.trained_sha256(Path(name))
        file = str(finetuned.network_file(Path(name)).resolve())
        return BackboneRef("run", file, short, tag, PRETRAINED, PRETRAINED, sha, run.run_id)
    if pythonfile.is_python_file(name):
        file, function = pythonfile._parts(name)
        spelling = str(Path(file).resolve()) + (f":{function}" if function else "")
        return BackboneRef("python", spelling, short, tag, label, chosen)
    if short == catalog.PIXELS:
        return BackboneRef("pixels", short, short, tag, "none", "none")
    spelling = tag if tag.startswith(catalog.LOCAL_PREFIX) else short
    return BackboneRef("timm", spelling, short, tag, label, chosen)


def describe(name: str | BackboneRef) -> catalog.BackboneInfo:
    """Describe it."""
    return catalog.describe(name if isinstance(name, str) else name.spelling)


def load(
    ref: BackboneRef, size: int, fit: Fit | None = None, *, frozen: bool = True,
    feature: str = PRELOGITS, code: str | None = None,
) -> Backbone:  # fmt: skip
    """Load it."""
    from medplus.backbones.build import load_backbone

    weights = PRETRAINED if ref.source == "pixels" else ref.weights_from
    backbone = load_backbone(
        ref.spelling, weights, size, fit, frozen=frozen, feature=feature, code=code
    )
    return replace(backbone, ref=ref)


def expand(names: Iterable[str], most: int | None = None) -> list[str]:
    """Expand `all` and wildcards."""
    found: dict[str, Any] = {}
    for name in names:
        if name == "all":
            found |= dict.fromkeys(PAPER)
        elif catalog.is_pattern(name):
            found |= dict.fromkeys(catalog.matching(name))
        else:
            found[name] = None
    return list(found)


def is_code(name: str) -> bool:
    """Tell a Python file."""
    return pythonfile.is_python_file(name)


def is_at_hand(name: str) -> bool:
    """Tell a run or a file that is there from names."""
    return finetuned.is_finetuned(name) or pythonfile.exists(name)


def is_trained(name: str) -> bool:
    """Tell a fine-tuned run, which has weights of its own."""
    return finetuned.is_finetuned(name)


def portable(name: str) -> str:
    """Return the name spelled so that it means the same from any folder."""
    if finetuned.is_finetuned(name):
        return str(Path(name).absolute())
    return next((short for short, tag in PAPER.items() if tag == name), name)


def is_pattern(name: str) -> bool:
    """Tell a name with wildcards."""
    return catalog.is_pattern(name)
