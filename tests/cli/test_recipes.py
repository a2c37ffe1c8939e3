"""Recipe fields as options: each has its flag, and what is given there arrives in the recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any, Literal

import click
import pytest
from pydantic import Field

from medplus.cli.finetune import finetune
from medplus.cli.recipes import recipe_options
from medplus.config import FINETUNE_RECIPES, FinetuneRecipe, Recipe, finetune_recipe

FLAGS = {p.name: p for p in finetune.params if isinstance(p, click.Option)}


class Toy(Recipe):
    steps: int = Field(3, ge=1, description="How many.")
    rate: float = Field(0.5, description="How fast.")
    kind: Literal["a", "b"] = Field("a", description="Which.")
    either: Literal["a", "b"] | Literal["auto"] = Field("auto", description="Which, or auto.")
    deep_thought: bool = Field(False, description="Whether.")


def parse(*arguments: str, leave_out: tuple[str, ...] = ()) -> Any:
    """Return what a command with the toy's options is called with."""
    other = Toy(steps=7, deep_thought=True)
    add = recipe_options({"plain": Toy(), "other": other}, leave_out)
    command = click.command(add(lambda **given: given))  # type: ignore[arg-type]
    return command.main(list(arguments), standalone_mode=False)


def test_nothing_given_is_none() -> None:
    assert parse() == dict.fromkeys(Toy.model_fields)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--steps", "5"], "steps", 5),
        (["--rate", "1e-3"], "rate", 0.001),
        (["--kind", "b"], "kind", "b"),
        (["--either", "auto"], "either", "auto"),
        (["--either", "b"], "either", "b"),
        (["--deep-thought"], "deep_thought", True),
        (["--no-deep-thought"], "deep_thought", False),
    ],
)
def test_value_has_the_type_of_its_field(arguments: list[str], field: str, value: object) -> None:
    given = parse(*arguments)

    assert given.pop(field) == value
    assert set(given.values()) == {None}


@pytest.mark.parametrize(
    "arguments",
    [["--steps", "1.5"], ["--rate", "fast"], ["--kind", "c"], ["--kind", "auto"], ["--deep", "x"]],
)
def test_value_of_another_type_is_refused(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(*arguments)


def test_fields_may_be_left_out() -> None:
    assert "steps" not in parse(leave_out=("steps",))
    with pytest.raises(click.NoSuchOption):
        parse("--steps", "3", leave_out=("steps",))


def test_help_shows_what_each_recipe_has(capsys: pytest.CaptureFixture[str]) -> None:
    parse("--help")
    shown = " ".join(capsys.readouterr().out.split())

    assert "--steps INTEGER How many. [plain: 3, other: 7]" in shown
    assert "--rate FLOAT How fast. [default: 0.5]" in shown
    assert "--deep-thought / --no-deep-thought Whether. [plain: no, other: yes]" in shown
    assert "--either [a|b|auto]" in shown


# --- of medplus finetune ------------------------------------------------------------------------


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
    finetune.main([*names, *arguments], standalone_mode=False)
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
