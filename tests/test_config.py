"""Recipes: the paper's by default, and every wrong field or value named."""

from __future__ import annotations

import itertools
import math

import pytest
from pydantic import ValidationError

from medplus.config import PROBE_RECIPES, KnnRecipe, ProbeRecipe, make_recipe, probe_recipe
from medplus.errors import UsageError


def test_default_knn_recipe_is_the_papers():
    assert KnnRecipe().model_dump() == {"k": (11,), "metric": "l2", "vote": "majority"}


def test_default_probe_recipe_is_the_papers():
    assert ProbeRecipe().model_dump() == {
        "seeds": (9930641, 115149041, 252139603),
        "lr": (1e-4,),
        "weight_decay": (0.01,),
        "epochs": 100,
        "batch_size": 64,
        "patience": 5,
    }
    assert probe_recipe() == probe_recipe("paper") == ProbeRecipe()


def test_grid_recipe_tries_13_learning_rates_evenly_from_1e_4_to_1():
    rates = probe_recipe("grid").lr
    assert len(rates) == 13
    assert (rates[0], rates[-1]) == (1e-4, 1.0)
    steps = [math.log10(b / a) for a, b in itertools.pairwise(rates)]
    assert steps == pytest.approx([1 / 3] * 12, abs=0.01)


@pytest.mark.parametrize("name", PROBE_RECIPES)
def test_every_named_recipe_is_valid_and_may_be_changed(name):
    changed = probe_recipe(name, epochs=3, lr=None)
    assert changed.epochs == 3
    assert changed.lr == probe_recipe(name).lr


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        ProbeRecipe().epochs = 3


def test_none_stands_for_the_default():
    assert make_recipe(KnnRecipe, {"k": None, "metric": "cosine"}).k == (11,)


@pytest.mark.parametrize(
    ("field", "nearest"),
    [("seed", "seeds"), ("weight_decy", "weight_decay"), ("batchsize", "batch_size")],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(field, nearest):
    with pytest.raises(UsageError, match=f"unknown field '{field}'; did you mean '{nearest}'"):
        make_recipe(ProbeRecipe, {field: 1})


def test_an_unknown_field_like_no_other_is_named_alone():
    with pytest.raises(UsageError, match=r"unknown field 'zzz'$"):
        make_recipe(ProbeRecipe, {"zzz": 1})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (KnnRecipe, "k", (0,)),
        (KnnRecipe, "k", ()),
        (KnnRecipe, "k", (1, 2.5)),
        (KnnRecipe, "metric", "l3"),
        (KnnRecipe, "vote", "acclamation"),
        (ProbeRecipe, "lr", (0.0,)),
        (ProbeRecipe, "lr", (math.inf,)),
        (ProbeRecipe, "lr", (1e-3, math.nan)),
        (ProbeRecipe, "weight_decay", (-1e-9,)),
        (ProbeRecipe, "seeds", (-1,)),
        (ProbeRecipe, "seeds", (2**63,)),
        (ProbeRecipe, "epochs", 0),
        (ProbeRecipe, "batch_size", "many"),
        (ProbeRecipe, "patience", 0),
    ],
)
def test_an_impossible_value_is_named_with_its_field(kind, field, value):
    bad = value[-1] if isinstance(value, tuple) and value else value
    with pytest.raises(UsageError) as error:
        make_recipe(kind, {field: value})
    assert str(error.value).startswith(f"{field} = {bad!r}: ")


def test_the_limits_themselves_are_allowed():
    recipe = ProbeRecipe(seeds=(0, 2**63 - 1), weight_decay=(0.0,), epochs=1, patience=1)
    assert recipe.seeds == (0, 2**63 - 1)


@pytest.mark.parametrize(("name", "nearest"), [("papr", "paper"), ("grids", "grid")])
def test_an_unknown_recipe_is_named_with_the_nearest_and_all_known(name, nearest):
    with pytest.raises(
        UsageError, match=rf"unknown recipe '{name}'; did you mean '{nearest}'\? .*paper, grid"
    ):
        probe_recipe(name)
