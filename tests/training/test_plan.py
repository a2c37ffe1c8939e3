"""The plan of a run: its name, its place, and what makes it another run."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medplus.config import FinetuneRecipe, finetune_recipe
from medplus.datasets.sources import load_spec
from medplus.embeddings.provenance import settle
from medplus.spec import ExtractSpec
from medplus.training.plan import (
    FinetunePlan,
    load_backbone,
    plan_finetune,
)
from medplus.training.watch import Watch
from medplus.vocabulary import MULTI_LABEL

SPEC = ExtractSpec("/data/toy.npz", 8, "tiny", "none", "native", "prelogits", "fp32")


@pytest.fixture
def plan(learnable, tiny_backbone):
    """Return a function that plans a run; keywords replace what `plan_finetune` is given."""

    def make(**changes):
        given = {
            "spec": SPEC,
            "images": learnable(),
            "backbone": tiny_backbone(),
            "recipe": FinetuneRecipe(),
            "seed": 3,
            "devices": 1,
            "recipe_name": "paper",
            "runs": Path("runs"),
        }
        return plan_finetune(**(given | changes))

    return make


# --- name and place -----------------------------------------------------------------------------


def test_a_run_lies_where_the_design_says_and_is_named_by_recipe_seed_and_epochs(plan):
    made = plan()
    assert made.folder.parent == Path("runs/finetune/toy/8/tiny")
    assert made.folder.name == made.run_id
    assert re.fullmatch(r"paper-seed3-ep100-[0-9a-f]{8}", made.run_id)


@pytest.mark.parametrize("stats", ["update", "frozen"])
def test_where_the_head_alone_learns_the_name_says_so(stats, plan):
    made = plan(recipe=FinetuneRecipe(trainable="head", norm_stats=stats))
    assert made.run_id.startswith(f"paper-head-{stats}-seed3-")


def test_where_low_rank_updates_learn_the_name_says_so(plan):
    assert plan(recipe=FinetuneRecipe(lora=4)).run_id.startswith("paper-lora4-seed3-")


@pytest.mark.parametrize("name", ["my recipe", "../../etc", "a;b$(c)", "ünï", "[x]", "-x"])
def test_no_name_of_a_recipe_leaves_its_folder_or_confuses_a_shell(name, plan):
    made = plan(recipe_name=name)
    assert made.folder.parent == plan().folder.parent
    assert not set(" /;$()[]'\"") & set(made.run_id)


# --- what makes another run ---------------------------------------------------------------------

CHANGED = FinetuneRecipe(
    trainable="head",
    norm_stats="frozen",
    epochs=99,
    batch_size=32,
    accumulate=2,
    optimizer="sgd",
    lr=1e-3,
    weight_decay=0.1,
    decay_bias_and_norm=False,
    layer_decay=0.5,
    schedule="cosine",
    warmup=0.5,
    patience=4,
    clip_grad=1.0,
    label_smoothing=0.1,
    ema=0.9,
    precision="bf16",
    channels_last=False,
    fused=True,
    deterministic=False,
    flip="auto",
    rotate=1.0,
    translate=0.1,
    scale=0.1,
    brightness=0.1,
    contrast=0.1,
    mixup=0.1,
    cutmix=0.1,
).model_copy(update={"lora": 8})  # together with a head alone it would be refused


@pytest.mark.parametrize("field", FinetuneRecipe.model_fields)
def test_every_field_of_the_recipe_makes_another_run(field, plan):
    value = getattr(CHANGED, field)
    assert value != getattr(FinetuneRecipe(), field)
    assert plan(recipe=FinetuneRecipe(**{field: value})).identity != plan().identity


def test_seed_and_number_of_devices_make_another_run(plan):
    identities = {plan(**more).identity for more in ({}, {"seed": 4}, {"devices": 2})}
    assert len(identities) == 3


def test_data_make_another_run(plan, learnable):
    images = learnable()
    others = [replace(images, digest="e" * 64), replace(images, size=9), learnable(MULTI_LABEL)]
    assert len({plan(images=i).identity for i in (images, *others)}) == 4


def test_weights_network_and_preprocessing_make_another_run(plan, tiny_backbone):
    backbone = tiny_backbone()
    others = [
        replace(backbone, weights_sha256="1" * 64),
        replace(backbone, ref=replace(backbone.ref, tag="tiny.other")),
        replace(backbone, feature="pixels"),
        replace(backbone, preprocess=replace(backbone.preprocess, mean=(0.0, 0.0, 0.0))),
        tiny_backbone(canvas=16),
    ]
    assert len({plan(backbone=b).identity for b in (backbone, *others)}) == 6


def test_where_things_lie_and_what_they_are_called_makes_no_other_run(plan, learnable):
    made = plan()
    spec = replace(SPEC, dataset="/elsewhere/toy.npz", backbone="tiny.tag", weights="/tiny.pth")
    moved = replace(learnable(), path="/elsewhere/toy.npz", name="toy2")
    others = [
        plan(spec=spec),
        plan(runs=Path("elsewhere")),
        plan(images=moved),
        plan(recipe_name="mine"),
    ]
    assert {other.identity for other in others} == {made.identity}


def test_a_named_recipe_and_the_same_one_spelled_out_are_one_run(plan):
    fields = finetune_recipe("modern").model_dump()
    assert plan(recipe=FinetuneRecipe(**fields)).identity == (
        plan(recipe=finetune_recipe("modern")).identity
    )


# --- what is kept of it -------------------------------------------------------------------------


def test_the_configuration_is_json_and_holds_the_whole_recipe(plan):
    recipe = finetune_recipe("modern", precision="bf16")
    config = plan(recipe=recipe).config
    read = json.loads(json.dumps(config, allow_nan=False))
    assert read == config
    assert FinetuneRecipe.model_validate(read["recipe"]) == recipe
    assert (read["protocol"], read["seed"], read["devices"]) == ("finetune", 3, 1)


def test_provenance_tells_data_and_backbone(plan, learnable, tiny_backbone):
    images, backbone = learnable(), tiny_backbone()
    found = plan().provenance
    assert (found.spec, found.dataset, found.size) == (SPEC, "toy", 8)
    assert found.classes == list(images.classes)
    assert (found.dataset_digest, found.weights_sha256) == ("d" * 64, "0" * 64)
    assert (found.backbone, found.tag, found.backbone_digest) == (
        "tiny", "tiny.tag", backbone.digest,
    )  # fmt: skip


def test_a_plan_can_be_sent_to_another_process(plan):
    made = FinetunePlan(
        SPEC, FinetuneRecipe(precision="fp32"), "paper", 3, Path("runs"), "data",
        torch.device("cpu"), 2, False, True, False, "best", None, Watch(),
    )  # fmt: skip
    there, run = pickle.loads(pickle.dumps((made, plan())))  # noqa: S301 - our own
    assert (run, there.recipe, there.asked) == (plan(), made.recipe, made.asked)
    assert (there.seed, there.precision) == (3, "fp32")


# --- specs --------------------------------------------------------------------------------------


def test_a_spec_loads_images_and_a_backbone_that_can_learn(write_npz, tmp_path):
    npz = write_npz("toy", n=(4, 3, 2), size=16, folder=tmp_path)
    asked = ExtractSpec(str(npz), None, "test_vit", "none", "native")
    images = load_spec(asked)
    backbone = load_backbone(asked, images)
    assert (images.name, images.size, len(images.splits["train"])) == ("toy", 16, 4)
    assert (backbone.name, backbone.preprocess.fit) == ("test_vit", "native")
    assert all(p.requires_grad for p in backbone.module.parameters())


def test_a_settled_spec_has_every_choice_made(learnable, tiny_backbone, write_npz):
    npz = str(write_npz("toy", n=(4, 3, 2), size=8))
    asked = ExtractSpec(npz, None, "tiny.tag")
    made = settle(asked, learnable(), tiny_backbone(), "fp32", "float16")
    assert made == replace(SPEC, dataset=npz, dtype="float16")


def test_what_means_nothing_for_pixels_stays_open(learnable, write_npz):
    npz = str(write_npz("toy", n=(4, 3, 2), size=8))
    asked = ExtractSpec(npz, None, "pixels", "pretrained")
    images = learnable()
    made = settle(asked, images, load_backbone(asked, images), "fp32", None)
    assert made == ExtractSpec(npz, 8, "pixels")
