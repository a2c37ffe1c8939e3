"""What identifies embeddings: one frozen object, carried from the command line to the report."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, Unpack, get_args

from medplus.corruptions.named import Corruption
from medplus.errors import UsageError, nearest
from medplus.jsonfile import digest_of
from medplus.vocabulary import Fit, Precision, StoreDtype

PRELOGITS = "prelogits"
"""The feature that is a network's embedding where no other is asked for."""
CLS, AVG, CLS_AVG, POOLER = "cls", "avg", "cls+avg", "pooler"
LAYER = "layer:"
FEATURES = (PRELOGITS, CLS, AVG, CLS_AVG, POOLER)
PIXELS = "pixels"
"""The backbone that is none: an image's own values."""
PRETRAINED = "pretrained"
NONE = "none"
AUTO = "auto"
NO_GROUPS = "none"
PATTERN = "path~"
"""Begins a group column that is no column, but a regular expression for the images' paths."""
IMPORTED = "imported:"
"""Begins the name of a backbone whose embeddings were made elsewhere; no command computes them."""
SCHEMA = 2
"""The version of what a store holds; it is part of every key."""


def check_feature(feature: str) -> None:
    """Refuse what is no feature of any network.

    Raises
    ------
    UsageError
    """
    if feature in FEATURES or (feature.startswith(LAYER) and len(feature) > len(LAYER)):
        return
    raise UsageError(
        f"unknown feature '{feature}'{nearest(feature, FEATURES)} (prelogits, cls, avg, cls+avg, "
        "pooler, or layer:NAME with the name of a module, such as layer:layer3 or layer:blocks.5)"
    )


class Made(Protocol):
    """What a spec is compared with: embeddings, or a run on them, that exist.

    Attributes
    ----------
    spec : ExtractSpec
        Settled.
    dataset, backbone, tag : str
        The dataset's name, the backbone's short name, and its full name.
    """

    @property
    def spec(self) -> ExtractSpec: ...  # noqa: D102
    @property
    def dataset(self) -> str: ...  # noqa: D102
    @property
    def backbone(self) -> str: ...  # noqa: D102
    @property
    def tag(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class ExtractSpec:
    """Every choice that determines embeddings.

    None is a choice that was not made: an extraction takes its default, a search any. A spec is
    *settled* where all are made, as stores and records carry it; what means nothing for raw pixels
    stays None.

    Attributes
    ----------
    dataset : str
        A MedMNIST flag, or the path of an npz file or of a folder of images; settled, absolute.
    size : int or None
        Height and width of the images in pixels; by default the dataset's own.
    backbone : str
        As `medplus.backbones.sources.resolve` takes it; settled, so that it can be named again
        from any folder.
    weights : str or None
        ``pretrained``, ``none`` (random), or a file; by default ``pretrained``.
    fit : {"pad", "resize", "native"} or None
        How images are brought to the backbone's input; by default ``pad``, or as a fine-tuned run
        was trained.
    feature : str or None
        What of the network is its embedding; by default ``prelogits``.
    precision : {"auto", "fp32", "bf16", "fp16"} or None
        Of the computation; by default ``auto``, what the hardware runs natively.
    dtype : {"float32", "float16"} or None
        How embeddings are stored; by default ``float32``.
    group_column : str or None
        Of a folder of images: the column of its table whose groups stay in one split; ``none``; or
        ``path~`` and a regular expression that finds them in the images' paths. It changes the
        data, and so their digest.
    exclude : str or None
        The path of a ``suspects.csv``, whose verdicts leave images out; none where it is None, also
        of a search. What is left out changes the data, and so their digest; settled, absolute.
    corruption : str or None
        ``NAME:SEVERITY`` of `medplus.corruptions`: what the test images, the only ones embedded,
        were made worse by; none where it is None, also of a search. Settled, with ``@TABLE``.

    Examples
    --------
    >>> spec = ExtractSpec("breastmnist", 28, "resnet18", feature="avg")
    >>> spec.command()
    'medplus extract --dataset breastmnist --size 28 --backbone resnet18 --feature avg'
    """

    dataset: str
    size: int | None = None
    backbone: str = "resnet18"
    weights: str | None = None
    fit: Fit | None = None
    feature: str | None = None
    precision: Precision | Literal["auto"] | None = None
    dtype: StoreDtype | None = None
    group_column: str | None = None
    exclude: str | None = None
    corruption: str | None = None

    def __post_init__(self) -> None:
        """Take paths for the names that they are."""
        for name in ("dataset", "backbone", "weights", "exclude"):
            if isinstance(value := getattr(self, name), Path):
                object.__setattr__(self, name, str(value))

    def key(self, data_digest: str, weights_digest: str) -> str:
        """Return the identity of a settled spec's embeddings: equal keys, equal embeddings.

        Names take no part, so that data and weights may be moved.

        Parameters
        ----------
        data_digest : str
            SHA-256 of the dataset: its arrays and what its labels mean.
        weights_digest : str
            SHA-256 of the backbone: its architecture, its weights in memory, and what images are
            normalised with.

        Returns
        -------
        str
            SHA-256 in hex.
        """
        choices = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("dataset", "backbone", "weights", "group_column", "exclude")
            and not (name == "corruption" and value is None)
        }
        return digest_of(
            {"schema": SCHEMA, "data": data_digest, "weights": weights_digest, **choices}
        )

    def matches(self, made: Made) -> bool:
        """Tell whether embeddings that exist have every choice that this spec makes.

        Dataset and backbone match by any of their names.
        """
        have = made.spec
        if self.exclude != have.exclude or not _same_corruption(self.corruption, have.corruption):
            return False
        if self.dataset not in (made.dataset, have.dataset) or self.backbone not in (
            made.backbone,
            made.tag,
            have.backbone,
        ):
            return False
        # A settled None means nothing for raw pixels, so that whatever is asked for is met.
        return all(
            asked is None or found is None or asked == found
            for asked, found in (
                (self.size, have.size),
                (self.weights, have.weights),
                (self.fit, have.fit),
                (self.feature, have.feature),
                (self.precision, None if have.backbone == PIXELS else have.precision),
                (self.dtype, have.dtype),
            )
        )

    def command(self, data_root: str | None = None, store: str | None = None) -> str:
        """Return the command that makes, completes or repairs these embeddings.

        Parameters
        ----------
        data_root, store : str, optional
            Folder of the datasets and root of the stores, where they are not the default.
        """
        words = ["medplus", "extract"]
        options: dict[str, Any] = {
            "dataset": self.dataset,
            "size": self.size,
            "backbone": self.backbone.removeprefix(IMPORTED),
        }
        if self.is_imported:
            words = ["medplus", "store", "import", "FILE"]
        else:
            options |= {name: getattr(self, name) for name in CHOICES} | {"data_root": data_root}
        options["store"] = store
        for name, value in options.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    @property
    def is_imported(self) -> bool:
        """Whether the embeddings were made elsewhere, so that no command makes them again."""
        return self.backbone.startswith(IMPORTED)

    def describe(self) -> str:
        """Return dataset, size and backbone in words."""
        size = "" if self.size is None else f" at {self.size} px"
        return f"{self.dataset}{size} with {self.backbone}"


def _same_corruption(asked: str | None, found: str | None) -> bool:
    """Tell whether both mean the same; a table that is not asked for may be any."""
    if asked is None or found is None or "@" in asked:
        return asked == found
    return asked == found.partition("@")[0]


class Choices(TypedDict, total=False):
    """The fields of a spec besides dataset, size and backbone, as keywords."""

    weights: str | None
    fit: Fit | None
    feature: str | None
    precision: Precision | Literal["auto"] | None
    dtype: StoreDtype | None
    group_column: str | None
    exclude: str | None
    corruption: str | None


CHOICES = tuple(Choices.__annotations__)

_WORDS: dict[str, tuple[str, ...]] = {
    "fit": get_args(Fit),
    "precision": (AUTO, *get_args(Precision)),
    "dtype": get_args(StoreDtype),
}


def make_spec(
    dataset: str | Path,
    size: int | None = None,
    backbone: str | Path = "resnet18",
    **choices: Unpack[Choices],
) -> ExtractSpec:
    """Return a spec, and refuse a word that none of its choices knows.

    Raises
    ------
    UsageError
        Names the field, and what it may be.
    """
    for name, value in choices.items():
        if name not in CHOICES:
            raise UsageError(f"unknown choice '{name}'{nearest(name, CHOICES)}")
        words = _WORDS.get(name, ())
        if words and value is not None and value not in words:
            raise UsageError(f"{name} '{value}' is none of {', '.join(words)}")
    if (corruption := choices.get("corruption")) is not None:
        Corruption.parse(corruption)
    return ExtractSpec(str(dataset), size, str(backbone), **choices)


def specs(
    datasets: Iterable[str],
    sizes: Iterable[int | None] = (None,),
    backbones: Iterable[str] = ("resnet18",),
    **choices: Unpack[Choices],
) -> list[ExtractSpec]:
    """Return a spec for every dataset, size and backbone, in this order.

    Parameters
    ----------
    **choices
        Further fields of `ExtractSpec`, the same for all.

    Examples
    --------
    >>> [spec.describe() for spec in specs(["breastmnist"], [28, 64], ["pixels"])]
    ['breastmnist at 28 px with pixels', 'breastmnist at 64 px with pixels']
    """
    return [
        make_spec(dataset, size, backbone, **choices)
        for dataset, size, backbone in product(datasets, sizes, backbones)
    ]
