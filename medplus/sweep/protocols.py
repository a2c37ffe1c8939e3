"""The protocols of a grid: recipes with their fields settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from medplus.config import (
    FINETUNE_RECIPES,
    KnnRecipe,
    ProbeRecipe,
    as_tuple,
    finetune_recipe,
    make_recipe,
    probe_recipe,
)
from medplus.errors import UsageError, fault
from medplus.run.folds import Fold, Folds
from medplus.run.record import Protocol
from medplus.spec import AUTO

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
NO_FEATURE_TO_TRAIN = (
    "fine-tuning has no choice of feature, since it trains the network as it is, up to a head on "
    "its pre-logits"
)
_EXTRACTED = "the feature stands under 'extract', for knn and probe alike"


class Knn(KnnRecipe):
    """The kNN protocol of a grid: the recipe, and what searches."""

    backend: Literal["auto", "faiss", "torch", "bf16"] = "auto"


class Finetune(BaseModel):
    """The fine-tuning protocol of a grid.

    Attributes
    ----------
    options : dict
        As `medplus.finetune` takes them: the recipe's name or the path of its file, and all of its
        fields, settled; `batch_size` may be ``auto``.
    folds : tuple of Fold or None
        What is trained, each as a job of its own; None stands for the official splits.
    """

    model_config = ConfigDict(frozen=True)

    options: dict[str, Any]
    folds: tuple[Fold | None, ...] = (None,)


def _probe(options: dict[str, Any]) -> ProbeRecipe:
    return probe_recipe(str(options.pop("recipe", "paper")), **options)


def _finetune(options: dict[str, Any]) -> Finetune:
    name = str(options.pop("recipe", "paper"))
    if name not in FINETUNE_RECIPES and Path(name).is_file():
        name = str(Path(name).absolute())  # workers have other working folders
    dealt = {name: options.pop(name) for name in ("folds", "repeats", "pool") if name in options}
    if dealt and "folds" not in dealt:
        raise UsageError(f"'{next(iter(dealt))}' goes with folds; name both")
    auto = {"batch_size": options.pop("batch_size")} if options.get("batch_size") == AUTO else {}
    fields = finetune_recipe(name, **options).model_dump(mode="json")
    settled = {"recipe": name, **fields, **auto}
    if not dealt:
        return Finetune(options=settled)
    folds = Folds(dealt.pop("folds"), **dealt)
    return Finetune(options=settled, folds=tuple(Fold.at(folds, i) for i in range(len(folds))))


def _made_by(make: Callable[[dict[str, Any]], Any], no_feature: str) -> BeforeValidator:
    """Make a protocol of the options that its section has."""

    def read(value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            return value  # which is refused
        options = {name: given for name, given in (value or {}).items() if given is not None}
        for name in {"seed", "seeds"} & options.keys():
            raise fault("seeds stand at the top of a grid, for all protocols", name)
        if "feature" in options:
            raise fault(no_feature, "feature")
        try:
            return make({**options})
        except UsageError as error:
            text = str(error)
            starts = {n: (f"{n} =", f"unknown {n} '") for n in options}
            named = [n for n in options if text.startswith(starts[n]) or f"'{n}'" in text]
            raise fault(text, *named[:1]) from None

    return BeforeValidator(read)


class Protocols(BaseModel):
    """The protocols that are to run; None for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    knn: Annotated[Knn | None, _made_by(partial(make_recipe, Knn), _EXTRACTED)] = None
    probe: Annotated[ProbeRecipe | None, _made_by(_probe, _EXTRACTED)] = None
    finetune: Annotated[Finetune | None, _made_by(_finetune, NO_FEATURE_TO_TRAIN)] = None

    @property
    def names(self) -> tuple[Protocol, ...]:
        """Those that are to run."""
        return tuple(name for name in PROTOCOLS if getattr(self, name) is not None)

    @model_validator(mode="before")
    @classmethod
    def _with_options(cls, value: Any) -> Any:
        """Let a list of protocols, or one, stand for each of them with its defaults."""
        names = as_tuple(value) or ()
        return dict.fromkeys(names) if all(isinstance(name, str) for name in names) else value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.names:
            raise fault("protocols = {}: a grid has at least one")
        return self
