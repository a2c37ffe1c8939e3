"""Recipes: the paper's by default, and every wrong field or value named."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from medplus.config import (
    FINETUNE_RECIPES,
    PROBE_RECIPES,
    FinetuneRecipe,
    KnnRecipe,
    ProbeRecipe,
    finetune_recipe,
    head_recipe,
    make_recipe,
    probe_recipe,
)
from medplus.errors import UsageError

SHIPPED = Path(__file__).parents[1] / "configs/recipes"


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


def test_none_stands_for_the_default():
    assert make_recipe(KnnRecipe, {"k": None, "metric": "cosine"}).k == (11,)


@pytest.mark.parametrize(
    ("field", "nearest"),
    [("seed", "seeds"), ("weight_decy", "weight_decay"), ("batchsize", "batch_size")],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(field, nearest):
    with pytest.raises(UsageError, match=f"unknown key '{field}'; did you mean '{nearest}'"):
        make_recipe(ProbeRecipe, {field: 1})


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


# --- fine-tuning ------------------------------------------------------------------------------


def test_default_finetune_recipe_is_the_papers():
    assert FinetuneRecipe().model_dump() == {
        "trainable": "all",
        "lora": 0,
        "norm_stats": "update",
        "epochs": 100,
        "batch_size": 64,
        "accumulate": 1,
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.01,
        "decay_bias_and_norm": True,
        "layer_decay": 1.0,
        "schedule": "paper",
        "warmup": 0.0,
        "patience": 5,
        "clip_grad": 0.0,
        "label_smoothing": 0.0,
        "ema": 0.0,
        "precision": "fp32",
        "channels_last": True,
        "fused": False,
        "deterministic": True,
        "flip": "none",
        "rotate": 0.0,
        "translate": 0.0,
        "scale": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
    }
    assert finetune_recipe() == finetune_recipe("paper") == FinetuneRecipe()


def test_modern_recipe_has_what_it_promises():
    modern = finetune_recipe("modern")
    assert (modern.precision, modern.channels_last, modern.fused) == ("auto", True, True)
    assert modern.schedule == "cosine"
    assert 0 < modern.warmup < 1
    assert 0 < modern.layer_decay < 1
    assert 0 < modern.label_smoothing < 1
    assert 0 < modern.ema < 1
    assert modern.flip == "auto"
    assert (modern.mixup, modern.cutmix) == (0, 0)  # a mix of two patients is no patient


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_every_finetune_recipe_may_be_changed(name):
    changed = finetune_recipe(name, epochs=3, lr=None, deterministic=False)
    assert (changed.epochs, changed.lr) == (3, finetune_recipe(name).lr)
    assert not changed.deterministic


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_shipped_recipe_file_is_the_recipe_of_its_name_and_says_every_field(name):
    path = SHIPPED / f"{name}.yaml"
    assert finetune_recipe(str(path)) == finetune_recipe(name)
    assert list(yaml.safe_load(path.read_text())) == list(FinetuneRecipe.model_fields)


def test_every_built_in_recipe_is_shipped_as_a_file():
    assert {path.stem for path in SHIPPED.iterdir()} == set(FINETUNE_RECIPES)


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_shipped_recipe_file_explains_fields_as_their_flags_do(name):
    comments = " ".join(
        line.removeprefix("# ")
        for line in (SHIPPED / f"{name}.yaml").read_text().splitlines()
        if line.startswith("# ")
    )
    missing = [
        field
        for field, info in FinetuneRecipe.model_fields.items()
        if str(info.description) not in comments
    ]
    assert missing == []


@pytest.fixture
def recipe_file(tmp_path):
    """Return a function that writes a recipe file."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_file_is_the_papers_recipe_but_for_what_it_says(recipe_file):
    recipe = finetune_recipe(recipe_file("lr: 1e-3\nflip: none\nepochs: 7\n"))
    assert recipe == FinetuneRecipe(lr=0.001, epochs=7)
    assert finetune_recipe(recipe_file("")) == FinetuneRecipe()


def test_changes_win_over_the_file(recipe_file):
    recipe = finetune_recipe(recipe_file("lr: 0.5\nepochs: 7\n"), lr=0.25, epochs=None)
    assert (recipe.lr, recipe.epochs) == (0.25, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epohs: 3", "unknown key 'epohs'; did you mean 'epochs'?"),
        ("epochs: many", "epochs = 'many': "),
        ("lr: -1", "lr = -1: "),
        ("flip: no", "flip = False: "),  # YAML's word for it
        ("seed: 1", "unknown key 'seed'"),
    ],
)
def test_what_is_wrong_in_a_recipe_file_is_told_as_the_files(text, says, recipe_file):
    path = recipe_file(text)
    with pytest.raises(UsageError) as error:
        finetune_recipe(path)
    assert str(error.value).startswith(f"{path}: {says}")


def test_a_file_is_checked_even_where_changes_would_cover_its_fault(recipe_file):
    with pytest.raises(UsageError, match=r"mine\.yaml: lr = -1"):
        finetune_recipe(recipe_file("lr: -1"), lr=0.1)


@pytest.mark.parametrize(
    ("text", "says"),
    [("- epochs", "must map"), ("lr: ]", "not valid YAML at line 1"), (None, "does not exist")],
)
def test_a_recipe_file_that_cannot_be_read_is_named_once(text, says, recipe_file, tmp_path):
    path = recipe_file(text) if text else str(tmp_path / "no.yaml")
    with pytest.raises(UsageError, match=says) as error:
        finetune_recipe(path)
    assert str(error.value).count(path) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("papr", r"unknown recipe 'papr'; did you mean 'paper'\? .*paper, modern, or the path"),
        ("grid", r"unknown recipe 'grid'.*\.yaml file"),
        ("mine", r"unknown recipe 'mine'"),
    ],
)
def test_an_unknown_finetune_recipe_is_named(name, says):
    with pytest.raises(UsageError, match=says):
        finetune_recipe(name)


FLOATS = [name for name, f in FinetuneRecipe.model_fields.items() if isinstance(f.default, float)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-9])
@pytest.mark.parametrize("field", FLOATS)
def test_no_number_of_a_recipe_is_negative_or_not_finite(field, value):
    with pytest.raises(UsageError, match=f"^{field} = "):
        finetune_recipe(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trainable", "tail"),
        ("lora", -1),
        ("lora", 2.5),
        ("norm_stats", "frosty"),
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("batch_size", "auto"),
        ("accumulate", 0),
        ("optimizer", "lamb"),
        ("lr", 0.0),
        ("layer_decay", 0.0),
        ("layer_decay", 1.1),
        ("schedule", "linear"),
        ("warmup", 1.1),
        ("patience", 0),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("precision", "fp64"),
        ("flip", "vertical"),
        ("rotate", 181.0),
        ("translate", 1.1),
        ("scale", 1.0),
        ("contrast", 1.0),
        ("deterministic", "perhaps"),
    ],
)
def test_an_impossible_value_of_a_finetune_recipe_is_named_with_its_field(field, value):
    with pytest.raises(UsageError) as error:
        finetune_recipe(**{field: value})
    assert str(error.value).startswith(f"{field} = {value!r}: ")


@pytest.mark.parametrize("number", [np.int64(3), np.array([3]), 3, [3], (3,)])
def test_heads_take_one_number_or_several_also_those_of_numpy(number):
    found = head_recipe("paper", seeds=number, lr=np.float32(0.5))
    assert (found.seeds, found.lr) == ((3,), (0.5,))
