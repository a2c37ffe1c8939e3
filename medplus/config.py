"""The recipes: what determines a run besides its data, validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from medplus.errors import UsageError, nearest, value_fault
from medplus.vocabulary import (
    PAPER_K,
    PAPER_SEEDS,
    Flip,
    Metric,
    NormStats,
    Optimizer,
    Precision,
    Schedule,
    Trainable,
    Vote,
)  # fmt: skip
from medplus.yamlfile import read_yaml

RecipeT = TypeVar("RecipeT", bound="Recipe")


def as_tuple(value: Any) -> tuple[Any, ...] | None:
    """Return a number or a word, or several, as a tuple; None stays None.

    >>> as_tuple(3), as_tuple(range(2)), as_tuple("knn")
    ((3,), (0, 1), ('knn',))
    """
    if value is None:
        return None
    several = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return tuple(value) if several else (value,)  # numpy's numbers, too


_T = TypeVar("_T")
Several = Annotated[tuple[_T, ...], BeforeValidator(as_tuple), Field(min_length=1)]
"""At least one value; one stands for a list of one."""


class Recipe(BaseModel):
    """Base of all recipes: immutable; unknown fields are refused, one value stands for several."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KnnRecipe(Recipe):
    """How neighbours are found and vote; the defaults are the paper's.

    Attributes
    ----------
    k : tuple of int
        Numbers of neighbours; all are served by one search.
    metric : {"l2", "cosine"}
    vote : {"majority", "distance"}
    """

    k: Several[Annotated[int, Field(ge=1)]] = (PAPER_K,)
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

    seeds: Several[Annotated[int, Field(ge=0, lt=2**63)]] = PAPER_SEEDS
    lr: Several[Annotated[float, Field(gt=0)]] = (1e-4,)
    weight_decay: Several[Annotated[float, Field(ge=0)]] = (0.01,)
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(64, ge=1)
    patience: int = Field(5, ge=1)

    @property
    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every learning rate with every weight decay."""
        return tuple(product(self.lr, self.weight_decay))


Solver = Literal["lbfgs", "ridge"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


class ConvexRecipe(Recipe):
    """How heads with a unique optimum are found: neither seeds nor learning rates matter.

    Attributes
    ----------
    solver : {"lbfgs", "ridge"}
        Logistic regression to convergence, or ridge regression in closed form.
    strength : tuple of float
        scikit-learn's C of the former (the larger, the weaker the penalty), and alpha of the
        latter (the larger, the stronger); one head each.
    """

    solver: Solver
    strength: Several[Annotated[float, Field(gt=0)]] = tuple(
        float(f"{10 ** (-6 + i):.3g}") for i in range(13)
    )


Fraction = Annotated[float, Field(ge=0, le=1)]


class FinetuneRecipe(Recipe):
    """How a whole network is trained; the defaults are the paper's.

    The description of every field is also the help of its flag.
    """

    trainable: Trainable = Field("all", description="What learns: all of it, or the head alone.")
    lora: int = Field(
        0,
        ge=0,
        description="Rank of the low-rank updates that learn in place of the weights of linear "
        "layers, all else but the head frozen; 0: none.",
    )
    norm_stats: NormStats = Field(
        "update",
        description="Batch-norm statistics follow the data (as the paper's code does even where "
        "only the head learns), or stay frozen; a frozen network with a trainable head is wholly "
        "in eval mode.",
    )
    epochs: int = Field(100, ge=1, description="Passes over train, at most.")
    batch_size: int = Field(64, ge=1, description="Images per step of the optimiser, all devices.")
    accumulate: int = Field(1, ge=1, description="Backward passes that one step is made of.")
    optimizer: Optimizer = Field("adamw", description="AdamW, or SGD with Nesterov momentum 0.9.")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="Decoupled for AdamW; for SGD part of the gradient, as torch has it.",
    )
    decay_bias_and_norm: bool = Field(
        True, description="Apply weight decay to biases and norm layers too."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor on the learning rate per layer below the head."
    )
    schedule: Schedule = Field(
        "paper",
        description="paper: cosine per epoch as the paper's code steps it; cosine: per step.",
    )
    warmup: Fraction = Field(
        0.0, description="Share of all steps in which the rate rises linearly; cosine only."
    )
    patience: int = Field(
        5, ge=1, description="Stop after so many epochs without a better val loss."
    )
    clip_grad: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0: unlimited.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread out.")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights that is evaluated; 0: none.",
    )
    precision: Precision | Literal["auto"] = Field(
        "fp32", description="auto: bf16 where the hardware multiplies it natively, else fp32."
    )
    channels_last: bool = Field(
        True,
        description="Convolutions keep channels last where that is quicker: on a CPU, and on a GPU "
        "in half precision.",
    )
    fused: bool = Field(False, description="The optimiser's fused kernels.")
    deterministic: bool = Field(True, description="Only deterministic algorithms.")
    flip: Flip = Field(
        "none",
        description="Mirror images; auto: where up and left mean nothing (slides, skin, cells).",
    )
    rotate: float = Field(0.0, ge=0, le=180, description="Rotate by up to so many degrees.")
    translate: Fraction = Field(0.0, description="Shift by up to this share of the image's side.")
    scale: float = Field(0.0, ge=0, lt=1, description="Zoom by up to this share.")
    brightness: float = Field(0.0, ge=0, le=1, description="Add up to so many standard deviations.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Multiply by 1 ± up to this.")
    mixup: float = Field(0.0, ge=0, description="Mixup's alpha; 0: none.")
    cutmix: float = Field(0.0, ge=0, description="CutMix's alpha; 0: none.")

    @field_validator("lora")
    @classmethod
    def _has_layers_that_learn(cls, rank: int, info: ValidationInfo) -> int:
        if rank and info.data.get("trainable") == "head":
            raise PydanticCustomError("frozen", "what it adapts is frozen where trainable is head")
        return rank


FINETUNE_RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    # What fine-tunes well on few images, at the hardware's speed: Wightman et al. (2021, resnet
    # strikes back) and Touvron et al. (2022, DeiT III), with augmentation that keeps anatomy.
    "modern": {
        "epochs": 50,
        "lr": 5e-4,
        "weight_decay": 0.05,
        "decay_bias_and_norm": False,
        "layer_decay": 0.8,
        "schedule": "cosine",
        "warmup": 0.1,
        "patience": 10,
        "clip_grad": 1.0,
        "label_smoothing": 0.1,
        "ema": 0.998,
        "precision": "auto",
        "fused": True,
        "deterministic": False,
        "flip": "auto",
        "rotate": 10.0,
        "translate": 0.05,
        "scale": 0.1,
        "brightness": 0.1,
        "contrast": 0.1,
    },
}


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
    try:
        return kind.model_validate(_given(values))
    except ValidationError as error:
        raise UsageError(value_fault(error.errors()[0], kind.model_fields)) from None


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def finetune_recipe(name: str = "paper", /, **changes: Any) -> FinetuneRecipe:
    """Return a fine-tuning recipe, by its name or from a YAML file, with some fields changed.

    Parameters
    ----------
    name : str
        ``paper``, ``modern``, or the path of a YAML file that maps fields to values; fields that
        it leaves out are the paper's.
    **changes
        Fields to change; None leaves a field as it is.

    Raises
    ------
    UsageError
        If the name or a field is unknown, the file cannot be read, or a value is not allowed.
    """
    if not name.endswith((".yaml", ".yml")):
        named = _named(FINETUNE_RECIPES, name, ", or the path of a .yaml file")
        return make_recipe(FinetuneRecipe, {**named, **_given(changes)})
    fields = read_yaml(Path(name), "recipe")
    try:
        # Checked on its own first, so that what is wrong in the file is told as the file's.
        make_recipe(FinetuneRecipe, fields)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return make_recipe(FinetuneRecipe, {**fields, **_given(changes)})


def probe_recipe(name: str = "paper", /, **changes: Any) -> ProbeRecipe:
    """Return a named probe recipe with some fields changed.

    Raises
    ------
    UsageError
        If the name or a field is unknown, or a value is not allowed.
    """
    return make_recipe(ProbeRecipe, {**_named(PROBE_RECIPES, name), **_given(changes)})


def head_recipe(name: str, *, strength: Any = None, **gradual: Any) -> ProbeRecipe | ConvexRecipe:
    """Return the recipe of linear heads, of either kind, and refuse what it does not take.

    Parameters
    ----------
    name : {"paper", "grid", "lbfgs", "ridge"}
    strength : number or sequence of numbers, optional
        Of ``lbfgs`` and ``ridge``.
    **gradual
        Fields of `ProbeRecipe`; None for the recipe's own.

    Raises
    ------
    UsageError
        If a field is not one of this recipe's, or its value is not allowed.
    """
    if name in SOLVERS:
        _refuse(f"--recipe {name} has one optimum, which none of them changes", gradual)
        return make_recipe(ConvexRecipe, {"solver": name, "strength": strength})
    _refuse("it is for --recipe lbfgs or ridge", {"strength": strength})
    return probe_recipe(name, **gradual)


def _refuse(reason: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            flag = name.replace("seeds", "seed").replace("_", "-")
            raise UsageError(f"leave out --{flag}: {reason}")


def _named(recipes: dict[str, dict[str, Any]], name: str, others: str = "") -> dict[str, Any]:
    if name not in recipes:
        known = ", ".join(recipes)
        raise UsageError(
            f"unknown recipe '{name}'{nearest(name, recipes)} (known: {known}{others})"
        )
    return recipes[name]
