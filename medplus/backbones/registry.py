"""Encoders that medicine uses, as data: what each is, what it asks for, and what it has seen.

``encoders.yaml`` says of each all that is needed to build it without a hub: its architecture with
every argument, how images are normalised, and what of it is the embedding.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from medplus.spec import PRELOGITS

FILE = "encoders.yaml"


class Weights(BaseModel):
    """Where an encoder's weights are, and what of the file is not used.

    Attributes
    ----------
    repository : str or None
        On the hub; None where a file has to be had by other ways.
    file : str or None
        In it; None: the model in the library's own format.
    revision : str or None
        A commit, where it is pinned.
    ignore : tuple of str
        Beginnings of the names of tensors that embedding does not use, such as a decoder's.
    fresh : tuple of str
        Beginnings of those that the file does not have, and that stay as they are made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str | None = None
    file: str | None = None
    revision: str | None = None
    ignore: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


class Encoder(BaseModel):
    """One encoder.

    Attributes
    ----------
    name : str
        What `--backbone` takes.
    title, of : str
        What it is called in full, and the field of medicine.
    source : {"timm", "open_clip", "transformers", "code"}
        The library that makes it; ``code``: it needs code of its own, in a Python file.
    architecture : str or None
        timm's name of it.
    arguments : dict
        Of timm's `create_model`, of open_clip's ``vision_cfg`` (with ``embed_dim`` and
        ``quick_gelu``), or the configuration of transformers. Classes are named.
    mean, std, size
        How images are normalised, and the height and width in pixels of the input.
    feature : str
        What of the network its authors take as the embedding.
    dim : int
        Of that embedding.
    parameters : int or None
        Of the encoder; None where it needs code of its own, and the number is not published.
    licence, gated
        Of the weights, empty where none is stated, and whether access is asked for.
    page, paper : str
        Where to get it, and where it is described.
    pretraining : str
        The data that it has seen.
    overlap : dict
        Datasets of MedMNIST whose images, or whose sources' images, were among them, and why.
    sources : tuple of str
        Where the facts are from.
    note : str
        What else to know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    of: str
    source: Literal["timm", "open_clip", "transformers", "code"]
    architecture: str | None = None
    arguments: dict[str, Any] = {}
    weights: Weights = Weights()
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: PositiveInt
    feature: str = PRELOGITS
    dim: PositiveInt
    parameters: PositiveInt | None = None
    licence: str
    gated: bool
    page: str
    paper: str
    pretraining: str
    overlap: dict[str, str] = {}
    sources: tuple[str, ...] = Field(min_length=1)
    note: str = ""


@cache
def encoders() -> dict[str, Encoder]:
    """Return all encoders by their names, in the file's order."""
    import yaml

    text = files("medplus.backbones").joinpath(FILE).read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built
    document: dict[str, dict[str, Any]] = loader(text).get_single_data()
    return {name: Encoder(name=name, **fields) for name, fields in document.items()}


def find(backbone: str) -> Encoder | None:
    """Return the encoder that a backbone is, or began as: by its name, or its repository.

    Examples
    --------
    >>> find("hf:microsoft/rad-dino").name, find("rad_dino@a-run").name
    ('rad_dino', 'rad_dino')
    """
    name = backbone.partition("@")[0]
    if ":" not in name:
        return encoders().get(name)
    repository = name.rpartition(":")[2].casefold()
    return next(
        (e for e in encoders().values() if repository == (e.weights.repository or "").casefold()),
        None,
    )


def overlap(backbone: str, dataset: str) -> str | None:
    """Return how a backbone may have seen a dataset's images before, if that is known.

    Parameters
    ----------
    backbone : str
        As for `find`.
    dataset : str
        Its name.

    Examples
    --------
    >>> "ChestX-ray14" in overlap("rad_dino", "chestmnist")
    True
    >>> overlap("resnet18", "chestmnist") is None
    True
    """
    known = find(backbone)
    return None if known is None else known.overlap.get(dataset)
