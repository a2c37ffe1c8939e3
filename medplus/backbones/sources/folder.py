"""Models in folders in timm's format: a path, or ``local-dir:path``."""

from __future__ import annotations

from pathlib import Path

from medplus.backbones.servers import LOCAL_PREFIX
from medplus.backbones.sources.ref import BackboneRef
from medplus.backbones.sources.timm import build, describe
from medplus.backbones.weights_folder import CONFIG
from medplus.errors import UsageError
from medplus.naming import leads_to

__all__ = ["build", "claims", "describe", "resolve"]


def claims(name: str) -> bool:
    """Tell a folder with a model; a name of timm's stays one where a folder is called alike."""
    if name.startswith(LOCAL_PREFIX):
        return True
    if not leads_to(Path(name) / CONFIG, Path.is_file):
        return False
    from medplus.backbones.lean import timm

    return not timm.is_model(name.partition(".")[0])


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the folder is.

    Raises
    ------
    UsageError
        If it holds no model.
    """
    folder = Path(name.removeprefix(LOCAL_PREFIX))
    if not leads_to(folder / CONFIG, Path.is_file):
        raise UsageError(
            f"{folder} is no model in timm's format: a folder with config.json and "
            "model.safetensors, as timm.models.save_for_hf writes it"
        )
    absolute = folder.resolve()
    short, tag = f"{LOCAL_PREFIX}{absolute.name}", f"{LOCAL_PREFIX}{absolute}"
    return BackboneRef("folder", tag, short, tag, weights)
