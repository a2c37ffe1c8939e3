"""The protocols of a grid: recipes with their fields settled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from medplus.config import (
    FINETUNE_RECIPES,
    FinetuneRecipe,
    KnnRecipe,
    ProbeRecipe,
    finetune_recipe,
    make_recipe,
    probe_recipe,
)
from medplus.errors import UsageError
from medplus.run.folds import Fold, Folds
from medplus.run.record import Protocol
from medplus.spec import AUTO

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
NO_FEATURE_TO_TRAIN = (
    "fine-tuning has no choice of feature, since it trains the network as it is, up to a head on "
    "its pre-logits"
)
_EXTRACTED = "the feature stands under 'extract', for knn and probe alike"


def fault(message: str, *within: str | int) -> PydanticCustomError:
    """Return an error of validation that is a sentence, and where its fault lies within a value."""
    return PydanticCustomError("sentence", "{message}", {"message": message, "within": within})


def several(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


class Knn(KnnRecipe):
    """The kNN protocol of a grid: the recipe, and what searches."""

    k: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(several), Field(min_length=1)
    ] = KnnRecipe.model_fields["k"].default
    backend: Literal["auto", "faiss", "torch", "bf16"] = "auto"


class Finetune(BaseModel):
    """The fine-tuning protocol of a grid: a recipe with its fields settled.

    Attributes
    ----------
    name : str
        ``paper``, ``modern`` or the path of the recipe's YAML file.
    changes : dict
        The fields that the grid changes.
    batch_size : int or "auto" or None
        As for `medplus.finetune`.
    folds : tuple of Fold or None
        What is trained, each as a job of its own; None stands for the official splits.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    changes: dict[str, Any]
    batch_size: int | Literal["auto"] | None
    recipe: FinetuneRecipe
    folds: tuple[Fold | None, ...] = (None,)


def _probe(options: dict[str, Any]) -> ProbeRecipe:
    name = options.pop("recipe", "paper")
    lists = {n: several(options[n]) for n in ("lr", "weight_decay") if n in options}
    return probe_recipe(str(name), **(options | lists))


def _finetune(options: dict[str, Any]) -> Finetune:
    name = str(options.pop("recipe", "paper"))
    if name not in FINETUNE_RECIPES and Path(name).is_file():
        name = str(Path(name).absolute())  # workers have other working folders
    batch_size = options.pop("batch_size", None)
    dealt = {name: options.pop(name) for name in ("folds", "repeats", "pool") if name in options}
    if dealt and "folds" not in dealt:
        raise UsageError(f"'{next(iter(dealt))}' goes with folds; name both")
    settled = None if batch_size == AUTO else batch_size
    made = Finetune(name=name, changes=options, batch_size=batch_size,
                    recipe=finetune_recipe(name, batch_size=settled, **options))  # fmt: skip
    if dealt:
        folds = Folds(dealt.pop("folds"), **dealt)
        every = tuple(Fold.at(folds, i) for i in range(len(folds)))
        return made.model_copy(update={"folds": every})
    return made


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
        fields = [*options]
        try:
            return make(options)
        except UsageError as error:
            text = str(error)
            starts = {n: (f"{n} =", f"unknown {n} '") for n in fields}
            named = [n for n in fields if text.startswith(starts[n]) or f"'{n}'" in text]
            raise fault(text, *named[:1]) from None

    return BeforeValidator(read)


class Protocols(BaseModel):
    """The protocols that are to run; None for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    knn: Annotated[Knn | None, _made_by(lambda o: make_recipe(Knn, o), _EXTRACTED)] = None
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
        if isinstance(value, str):
            return {value: None}
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return dict.fromkeys(value)
        return value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.names:
            raise fault("protocols = {}: a grid has at least one")
        return self
