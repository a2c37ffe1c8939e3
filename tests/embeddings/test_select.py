"""Finding the one store that is meant, and saying what to do when there is none or several."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch

from medplus.cli.knn import knn
from medplus.cli.probe import probe
from medplus.device import resolve_precision
from medplus.embeddings.info import write_info
from medplus.embeddings.select import find_store
from medplus.errors import StoreError
from medplus.seal import seal
from medplus.spec import ExtractSpec

pytestmark = pytest.mark.usefixtures("fast_disk")

EMBEDDINGS = [np.zeros((n, 2), "f4") for n in (3, 1, 1)]
LABELS = [np.arange(n) % 3 for n in (3, 1, 1)]


@pytest.fixture
def add(write_store, tmp_path):
    """Write a store with given properties under the test's root."""
    return lambda **properties: write_store(EMBEDDINGS, LABELS, root=tmp_path, **properties)


def make_incomplete(store):
    file = store.path / "zarr.json"
    document = json.loads(file.read_text())
    attributes = {**document["attributes"]["medplus"], "complete": False}
    del attributes["seal"]
    document["attributes"]["medplus"] = seal(attributes)
    file.write_text(json.dumps(document))


def message_of(root, *names, **choices):
    with pytest.raises(StoreError) as error:
        find_store(root, ExtractSpec(*names, **choices))
    return str(error.value)


def test_dataset_size_and_backbone_are_enough_where_they_match_one_store(add, tmp_path):
    add(dataset="a"), add(size=64), add(backbone="other")
    meant = add()
    assert find_store(tmp_path, ExtractSpec("toy", 28, "toynet")).path == meant.path


def test_a_backbone_is_found_by_its_full_tag(add, tmp_path):
    meant = add()
    assert find_store(tmp_path, ExtractSpec("toy", 28, "toynet.tag")).path == meant.path


def test_an_npz_file_is_found_by_its_stem(add, tmp_path):
    meant = add(dataset="my.images")
    query = ExtractSpec("some/where/my.images.npz", 28, "toynet")
    assert find_store(tmp_path, query).path == meant.path


VARIANTS = {
    "weights": ({"weights": "pretrained", "backbone_digest": "p" * 64}, "none", "pretrained"),
    "precision": ({"precision": "bf16"}, "fp32", "bf16"),
    "dtype": ({"dtype": "float16"}, "float32", "float16"),
    "fit": ({"fit": "native"}, "pad", "native"),
}


@pytest.mark.parametrize("option", VARIANTS)
def test_each_option_tells_stores_apart(option, add, tmp_path):
    properties, first, second = VARIANTS[option]
    plain, varied = add(), add(**properties)
    for value, meant in [(first, plain), (second, varied)]:
        query = ExtractSpec("toy", 28, "toynet", **{option: value})
        assert find_store(tmp_path, query).path == meant.path


@pytest.mark.parametrize("option", VARIANTS)
def test_several_stores_are_listed_with_exactly_the_flags_that_tell_them_apart(
    option, add, tmp_path
):
    properties, first, second = VARIANTS[option]
    stores = [add(), add(**properties)]
    message = message_of(tmp_path, "toy", 28, "toynet")
    assert message.startswith("2 stores match toy at 28 px with toynet")
    for store, value in zip(stores, (first, second), strict=True):
        [line] = [line for line in message.splitlines() if str(store.path) in line]
        assert line.startswith(f"  --{option} {value} --key {store.key[:8]}")
    flags = {word for word in message.split() if word.startswith("--")}
    assert flags == {f"--{option}", "--key"}


def test_the_flags_of_the_list_find_the_store(add, tmp_path):
    stores = [add(), add(precision="bf16"), add(precision="bf16", dtype="float16")]
    message = message_of(tmp_path, "toy", 28, "toynet")
    for store in stores:
        [line] = [line for line in message.splitlines() if str(store.path) in line]
        words = shlex.split(line.partition("(")[0])
        choices = {flag[2:]: value for flag, value in zip(words[::2], words[1::2], strict=True)}
        key = choices.pop("key")
        found = find_store(tmp_path, ExtractSpec("toy", 28, "toynet", **choices), key=key)
        assert found.path == store.path


def test_a_key_may_be_abbreviated(add, tmp_path):
    stores = [add(), add(precision="bf16")]
    for store in stores:
        found = find_store(tmp_path, ExtractSpec("toy", 28, "toynet"), key=store.key[:6])
        assert found.path == store.path


def test_auto_is_the_precision_that_an_extraction_takes_here(add, tmp_path):
    stores = {precision: add(precision=precision) for precision in ("fp32", "bf16", "fp16")}
    here = resolve_precision("auto", torch.device("cpu"))
    found = find_store(tmp_path, ExtractSpec("toy", 28, "toynet", precision="auto"), device="cpu")
    assert found.path == stores[here].path


def test_weights_precision_and_fit_mean_nothing_for_pixels(add, tmp_path):
    meant = add(backbone="pixels", weights=None, fit=None, feature=None, precision=None)
    query = ExtractSpec("toy", 28, "pixels", weights="pretrained", precision="bf16", fit="pad")
    assert find_store(tmp_path, query).path == meant.path


def test_a_weights_file_is_found_by_any_spelling_of_its_path(add, tmp_path, monkeypatch):
    file = tmp_path / "w.pth"
    meant = add(weights=str(file.resolve()))
    monkeypatch.chdir(tmp_path)
    for spelling in ("w.pth", "./w.pth", str(file)):
        query = ExtractSpec("toy", 28, "toynet", weights=spelling)
        assert find_store(tmp_path, query).path == meant.path


def test_a_complete_store_is_preferred_to_an_incomplete_one(add, tmp_path):
    make_incomplete(add())
    meant = add(precision="bf16")
    assert find_store(tmp_path, ExtractSpec("toy", 28, "toynet")).path == meant.path


def test_if_only_an_incomplete_store_matches_the_command_that_resumes_it_is_named(add, tmp_path):
    store = add()
    make_incomplete(store)
    message = message_of(tmp_path, "toy", 28, "toynet")
    assert f"{store.path} is incomplete" in message
    assert store.info.resume_command(tmp_path) in message


def command_in(message):
    """Return the options of the extract command that ends a message."""
    words = shlex.split(message.partition("medplus extract ")[2])
    return dict(zip(words[::2], words[1::2], strict=True))


def test_if_none_matches_what_is_there_and_the_extract_command_are_named(add, tmp_path):
    add(backbone="resnet18")
    message = message_of(tmp_path, "toy", 28, "resnet34")
    assert "toy/28/resnet18" in message
    assert command_in(message) == {
        "--dataset": "toy",
        "--size": "28",
        "--backbone": "resnet34",
        "--store": str(tmp_path),
    }


def test_the_extract_command_repeats_every_option_that_was_asked_for(tmp_path):
    message = message_of(
        tmp_path, "my data/x.npz", 64, "resnet34",
        weights="none", precision="fp32", dtype="float16", fit="native",
    )  # fmt: skip
    assert command_in(message) == {
        "--dataset": "my data/x.npz",
        "--size": "64",
        "--backbone": "resnet34",
        "--weights": "none",
        "--precision": "fp32",
        "--dtype": "float16",
        "--fit": "native",
        "--store": str(tmp_path),
    }


def test_if_only_the_options_differ_what_is_there_is_named(add, tmp_path):
    store = add()
    message = message_of(tmp_path, "toy", 28, "toynet", precision="bf16")
    assert "none" not in message.partition("has these options")[0].replace("toynet", "")
    assert "--precision fp32" in message
    assert store.key[:8] in message
    assert command_in(message)["--precision"] == "bf16"


def test_a_root_that_does_not_exist_is_named_with_the_extract_command(tmp_path):
    message = message_of(tmp_path / "nowhere", "toy", 28, "toynet")
    assert f"no folder {tmp_path / 'nowhere'}" in message
    assert "medplus extract --dataset toy --size 28 --backbone toynet" in message


def test_damaged_stores_match_nothing(add, tmp_path):
    damaged = add()
    (damaged.path / "zarr.json").write_text("{}")
    meant = add(precision="bf16")
    assert find_store(tmp_path, ExtractSpec("toy", 28, "toynet")).path == meant.path


def test_only_flags_that_the_selecting_commands_have_are_named(write_store, tmp_path):
    commands = {flag for command in (knn, probe) for p in command.params for flag in p.opts}
    for precision in ("fp32", "bf16"):
        store = write_store(EMBEDDINGS, LABELS, root=tmp_path, precision=precision)
        spec = replace(store.info.spec, group_column="patient")
        write_info(store.path, store.info.model_copy(update={"spec": spec}))
    message = message_of(tmp_path, "toy", 28, "toynet", dtype="float16")
    flags = {word for word in message.partition("(there: ")[2].partition(")")[0].split()
             if word.startswith("--")}  # fmt: skip
    assert {"--precision", "--key"} <= flags <= commands
