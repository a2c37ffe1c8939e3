"""Recipe fields as options: each has its flag, and what is given there arrives in the recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import click
import pytest

from medplus.cli.finetune import finetune
from medplus.cli.main import medplus as group
from medplus.config import FINETUNE_RECIPES, FinetuneRecipe, finetune_recipe

FLAGS = {p.name: p for p in finetune.params if isinstance(p, click.Option)}


@pytest.mark.parametrize(
    "arguments", [["--epochs", "1.5"], ["--lr", "fast"], ["--flip", "c"], ["--fused", "x"]]
)
def test_value_of_another_type_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(click.UsageError):
        recipe_of(monkeypatch, *arguments)


def test_every_field_has_a_flag_of_its_name() -> None:
    for field in FinetuneRecipe.model_fields:
        assert f"--{field.replace('_', '-')}" in FLAGS[field].opts


def test_every_flag_says_its_default_in_every_recipe() -> None:
    for field in set(FinetuneRecipe.model_fields) - {"batch_size"}:
        told = FLAGS[field].help or ""
        for name in FINETUNE_RECIPES:
            value = getattr(finetune_recipe(name), field)
            text = f"{value:g}" if isinstance(value, float) else str(value)
            if isinstance(value, bool):
                text = "yes" if value else "no"
            assert re.search(rf"\[.*({name}|default): {re.escape(text)}[],]", told), (field, told)


OTHER: dict[str, str] = {
    "trainable": "head", "lora": "8", "norm_stats": "frozen", "epochs": "99", "batch_size": "32",
    "accumulate": "2", "optimizer": "sgd", "lr": "1e-3", "weight_decay": "0.1",
    "layer_decay": "0.5", "schedule": "constant", "warmup": "0.5", "patience": "4",
    "clip_grad": "2", "label_smoothing": "0.2", "ema": "0.9", "precision": "bf16",
    "flip": "horizontal", "rotate": "1", "translate": "0.2", "scale": "0.2", "brightness": "0.2",
    "contrast": "0.2", "mixup": "0.3", "cutmix": "0.4",
}  # fmt: skip
"""For every field with a value, one that no built-in recipe has."""

SWITCHES = ("decay_bias_and_norm", "channels_last", "fused", "deterministic")


def recipe_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> FinetuneRecipe:
    """Return the recipe that `medplus finetune` would train by."""
    import medplus.training

    asked: list[dict[str, Any]] = []

    def remember(*names: object, **options: Any) -> list[Any]:
        asked.append(options)
        return []

    monkeypatch.setattr(medplus.training, "finetune_all", remember)
    names = ("--dataset", "toy.npz", "--backbone", "pixels", "--json")
    # As the group would: click keeps the names of the option for help.
    finetune.main([*names, *arguments], standalone_mode=False, **group.context_settings)
    [options] = asked
    fields = {name: options.get(name) for name in FinetuneRecipe.model_fields}
    return finetune_recipe(options["recipe"], **fields)


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_without_flags_the_recipe_is_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe_of(monkeypatch, "--recipe", name) == finetune_recipe(name)


def test_these_are_all_fields() -> None:
    assert set(OTHER) | set(SWITCHES) == set(FinetuneRecipe.model_fields)


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
@pytest.mark.parametrize("field", OTHER)
def test_flag_changes_its_field_and_no_other(
    field: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = finetune_recipe(name)
    flag = f"--{field.replace('_', '-')}"

    after = recipe_of(monkeypatch, "--recipe", name, flag, OTHER[field])

    assert getattr(after, field) != getattr(before, field)
    assert str(getattr(after, field)) in (OTHER[field], str(float_or_none(OTHER[field])))
    assert after.model_copy(update={field: getattr(before, field)}) == before


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
@pytest.mark.parametrize("field", SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_switch_is_turned_on_and_off(
    field: str, name: str, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = ("--" if on else "--no-") + field.replace("_", "-")

    after = recipe_of(monkeypatch, "--recipe", name, flag)

    assert after == finetune_recipe(name, **{field: on})


def float_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def test_finetune_helps_without_the_recipes_once_they_are_remembered(tmp_path) -> None:
    environment = {**os.environ, "MEDPLUS_CACHE": str(tmp_path)}
    code = (
        "import json, sys; from medplus.cli.finetune import finetune; print(json.dumps(["
        "[p.to_info_dict() for p in finetune.params], 'pydantic' in sys.modules],"
        " default=lambda kind: kind.__qualname__))"
    )
    (first, was_loaded), (second, is_loaded) = (
        json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment))
        for _ in range(2)
    )
    assert (was_loaded, is_loaded) == (True, False)
    assert first == second
