"""The conditions that the paper's runs were made under, as runs tell theirs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from medplus.config import finetune_recipe, probe_recipe
from medplus.reporting.runs import as_text
from medplus.spec import PRELOGITS
from medplus.vocabulary import PAPER_K

_OF_THE_MACHINE = {"precision", "channels_last", "fused", "deterministic"}
"""Fields of a recipe that say how fast, and change no result by more than rounding."""


@cache
def paper_conditions(protocol: str) -> Mapping[str, str]:
    """Return the paper's conditions of a protocol; precision is left to the machine."""
    common = {"data": "official", "weights": "trained", "fit": "pad"}
    if protocol == "finetune":
        recipe = finetune_recipe("paper").model_dump(mode="json")
        own = {name: value for name, value in recipe.items() if name not in _OF_THE_MACHINE}
    elif protocol == "probe":
        recipe = probe_recipe("paper").model_dump(mode="json")
        own = {name: recipe[name] for name in ("epochs", "batch_size", "patience")}
        own |= {name: recipe[name][0] for name in ("lr", "weight_decay")}
        own["feature"] = PRELOGITS
    else:
        own = {"k": PAPER_K, "metric": "l2", "vote": "majority", "feature": PRELOGITS}
    return {name: as_text(value) for name, value in {**common, **own}.items()}
