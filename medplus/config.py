"""The recipes: what determines a run besides its data, validated."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medplus.errors import UsageError, nearest
from medplus.vocabulary import PAPER_K, PAPER_SEEDS, Metric, Vote

RecipeT = TypeVar("RecipeT", bound="Recipe")


class Recipe(BaseModel):
    """Base of all recipes: immutable, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KnnRecipe(Recipe):
    """How neighbours are found and vote; the defaults are the paper's.

    Attributes
    ----------
    k : tuple of int
        Numbers of neighbours; all are served by one search.
    metric : {"l2", "cosine"}
    vote : {"majority", "distance"}
    """

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((PAPER_K,), min_length=1)
    metric: Metric = "l2"
    vote: Vote = "majority"


class ProbeRecipe(Recipe):
    """How linear heads are trained; the defaults are the paper's.

    Attributes
    ----------
    seeds : tuple of int
        One head per seed, learning rate and weight decay; all are trained at once.
    lr, weight_decay : tuple of float
        AdamW's learning rate and decoupled weight decay.
    epochs : int
        At most so many; the cosine schedule ends there.
    batch_size : int
    patience : int
        Stop a head after so many epochs in a row without a better val loss.
    """

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(PAPER_SEEDS, min_length=1)
    lr: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (1e-4,), min_length=1
    )
    weight_decay: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        (0.01,), min_length=1
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(64, ge=1)
    patience: int = Field(5, ge=1)


PROBE_RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    # 1e-4 to 1, since the best rate depends on the scale of the embeddings; which one is chosen on
    # val, as is common for linear probes (Caron et al., ICCV 2021).
    "grid": {"lr": tuple(float(f"{10 ** (-4 + i / 3):.3g}") for i in range(13))},
}


def make_recipe(kind: type[RecipeT], values: dict[str, Any]) -> RecipeT:
    """Build a recipe; None stands for the default.

    Raises
    ------
    UsageError
        If a field is unknown or its value is not allowed; names the field and the nearest name.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"unknown field '{field}'{nearest(field, kind.model_fields)}"
            ) from None
        raise UsageError(f"{field} = {first['input']!r}: {first['msg'].lower()}") from None


def probe_recipe(name: str = "paper", **changes: Any) -> ProbeRecipe:
    """Return a named probe recipe with some fields changed.

    Raises
    ------
    UsageError
        If the name or a field is unknown, or a value is not allowed.
    """
    if name not in PROBE_RECIPES:
        known = ", ".join(PROBE_RECIPES)
        raise UsageError(f"unknown recipe '{name}'{nearest(name, PROBE_RECIPES)} (known: {known})")
    given = {field: value for field, value in changes.items() if value is not None}
    return make_recipe(ProbeRecipe, {**PROBE_RECIPES[name], **given})
