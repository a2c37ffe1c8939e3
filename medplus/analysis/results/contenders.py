"""Who is compared: a backbone with its weights, fit and feature, and the rank it was tuned by."""

from __future__ import annotations

from pathlib import PurePath

import pandas as pd

from medplus.analysis.results.cells import APART, RANDOM
from medplus.analysis.results.runs import ANY
from medplus.spec import NONE, PIXELS, PRELOGITS

AXES = ("weights", "fit", "feature", "lora")
"""What is compared beside backbone and size; never a reason to leave a run out."""

_USUAL = {"fit": "pad", "feature": PRELOGITS}


def with_contenders(runs: pd.DataFrame) -> pd.DataFrame:
    """Give backbones that stand in a report more than once a name each.

    Parameters
    ----------
    runs : pandas.DataFrame
        Columns `medplus.analysis.results.runs.RUN_COLUMNS`.

    Returns
    -------
    pandas.DataFrame
        With `backbone` as before, followed by what differs in this report and is not the usual:
        random weights beside trained ones, several weights of one network, another fit than ``pad``
        or another feature than ``prelogits``; and always by what low-rank updates it was
        fine-tuned. The bare name stands in the further column `network`, and the columns `AXES` are
        there, empty for raw pixels.
    """
    pixels = runs["backbone"] == PIXELS
    axes = {
        name: runs["conditions"].map(lambda c, name=name: c.get(name, "")).mask(pixels, "")
        for name in _USUAL
    }
    weights = runs["weights"].mask(pixels, "")
    lora = runs["conditions"].map(lambda c: c.get("lora", "")).replace("0", "")
    apart = [
        _weights_told(runs["backbone"], weights),
        *(_told(values.replace(ANY, ""), _USUAL[name]) for name, values in axes.items()),
        lora.map(lambda rank: f"LoRA r = {rank}" if rank else ""),
    ]
    told = pd.concat(apart, axis=1).agg(lambda row: ", ".join(filter(None, row)), axis=1)
    names = [
        f"{network}{APART}{what}" if what else network
        for network, what in zip(runs["backbone"], told, strict=True)
    ]
    return runs.assign(network=runs["backbone"], backbone=names, weights=weights, **axes, lora=lora)


def _weights_told(networks: pd.Series, weights: pd.Series) -> pd.Series:
    random = weights == NONE
    trained = ~random & (weights != "")
    several = weights.where(trained).groupby(networks).transform("nunique") > 1
    names = weights.map(lambda one: PurePath(one).name)
    return names.where(trained & several, "").mask(random & trained.any(), RANDOM)


def _told(values: pd.Series, usual: str) -> pd.Series:
    present = values[values != ""]
    if present.nunique() < 2:
        return pd.Series("", index=values.index)
    unsaid = usual if usual in set(present) else present.mode().iloc[0]
    return values.mask(values == unsaid, "")
