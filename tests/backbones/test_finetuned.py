"""The network of a fine-tuned run: its file, and the run as a backbone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from medplus.backbones.build import load_backbone
from medplus.backbones.finetuned import (
    NETWORK_FILE,
    NetworkDescription,
    is_finetuned,
    read_description,
    read_network,
    write_network,
)
from medplus.backbones.flops import cost_of
from medplus.backbones.sources import PAPER, describe, resolve
from medplus.backbones.sources import timm as timm_source
from medplus.errors import BackboneError, UsageError
from medplus.preprocess import PreprocessSpec
from medplus.tensorfile import write_tensors

pytestmark = pytest.mark.usefixtures("fast_disk")

NAME = "mobilenetv3_small_050"
QUICK = {"resnet18", "densenet121", "efficientnet_b4"}
"""Those of the paper's ten that are small enough to be written and read in a second."""


@pytest.fixture(scope="module")
def run(write_run):
    """One fine-tuned run: its folder, and the network that is in it."""
    return write_run(NAME)


@pytest.fixture
def broken(run, new_folder):
    """Return a function that copies the run with the bytes of its network file changed."""

    def change(edit):
        folder = new_folder()
        (folder / NETWORK_FILE).write_bytes(edit((run[0] / NETWORK_FILE).read_bytes()))
        return folder

    return change


def assert_equal_states(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def message_of(kind, path, *rest, **more):
    """Return the message with which a path is refused as a backbone; it must name the path."""
    with pytest.raises(kind) as caught:
        load_backbone(str(path), *rest, **more)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# --- the file ---------------------------------------------------------------------------------


def test_network_is_read_as_it_was_written_from_the_folder_or_the_file(run):
    folder, network = run
    for path in (folder, folder / NETWORK_FILE):
        description, state = read_network(path)
        assert_equal_states(state, network.state_dict())
        assert description == read_description(path)
        assert (description.run_id, description.classes) == ("seed1-00000001", ("a", "b", "c"))
        assert (description.epoch, description.val_loss) == (7, 0.5)
        assert description.spec == load_backbone(NAME, "none").preprocess


@given(
    run_id=st.text(min_size=1),
    classes=st.lists(st.text(), min_size=1).map(tuple),
    epoch=st.integers(1, 10**6),
    val_loss=st.floats(allow_nan=False, allow_infinity=False),
    fit=st.sampled_from(["pad", "resize", "native"]),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_any_description_survives(run_id, classes, epoch, val_loss, fit, mean, tmp_path_factory):
    spec = PreprocessSpec(mean, (0.25, 0.5, 1 / 3), fit, None if fit == "native" else 224)
    written = NetworkDescription(
        run_id=run_id, backbone="b", tag="b.t", weights_sha256="0" * 64, preprocess=vars(spec),
        feature="prelogits", dim=3, dataset="é", size=28, task="multi-label, binary-class",
        classes=classes, epoch=epoch, val_loss=val_loss, precision="bf16",
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "described.safetensors"
    write_network(path, {"head.bias": torch.zeros(2)}, written)
    found = read_description(path)
    # Through JSON tuples become lists.
    assert found.spec == written.spec == spec
    assert hash(found.spec) == hash(spec)
    exact = {"preprocess", "trained_sha256"}
    assert found.model_dump(exclude=exact) == written.model_dump(exclude=exact)


def test_digest_in_the_file_is_that_of_the_loaded_backbone(run):
    folder, _ = run
    assert read_description(folder).trained_sha256 == load_backbone(str(folder)).weights_sha256
    assert read_description(folder).trained_sha256 != load_backbone(NAME, "none").weights_sha256
    assert read_description(folder).weights_sha256 == load_backbone(NAME, "none").weights_sha256


def test_telling_a_run_from_a_name_imports_nothing_heavy():
    code = (
        "import sys, json; from medplus.backbones.finetuned import is_finetuned, no_network; "
        "is_finetuned('resnet18'), is_finetuned('/'), no_network; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {"torch", "timm", "torchvision", "safetensors"}


def test_what_is_a_fine_tuned_run(run, tmp_path):
    folder, _ = run
    (tmp_path / "other.safetensors").touch()
    (tmp_path / "file.txt").touch()
    yes = [folder, f"{folder}/", folder / NETWORK_FILE, tmp_path / "other.safetensors"]
    no = [folder.parent, tmp_path, tmp_path / "file.txt", tmp_path / "none.safetensors", "resnet18"]
    assert all(is_finetuned(str(path)) for path in yes)
    assert not any(is_finetuned(str(path)) for path in no)


# --- as a backbone ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "hf-hub"])
def test_small_networks_are_loaded_with_the_weights_of_the_run(name, write_run, monkeypatch):
    if name == "hf-hub":  # a name with a slash, as if the hub had this network
        name = "hf-hub:some/net@v1"
        make = timm_source.make
        monkeypatch.setattr(
            timm_source, "make", lambda tag, *rest: make("test_resnet.r160_in1k", *rest)
        )
    folder, network = write_run(name)
    found = load_backbone(str(folder))
    assert_equal_states(found.module.state_dict(), network.backbone.state_dict())
    began_as = resolve(name)
    assert found.name == f"{began_as.name}@seed1-00000001"
    assert found.tag == f"{began_as.tag}@seed1-00000001"
    assert found.architecture == (began_as.name, began_as.tag)
    assert found.run_id == "seed1-00000001"


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.extensive) for n in PAPER]
)
def test_each_of_the_papers_ten_is_loaded_with_the_weights_of_the_run(name, write_run, tmp_path):
    folder, network = write_run(name, folder=tmp_path)
    found = load_backbone(str(folder), frozen=False)
    assert_equal_states(found.module.state_dict(), network.backbone.state_dict())
    assert found.name == f"{name}@seed1-00000001"
    assert found.weights_sha256 == read_description(folder).trained_sha256
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        embedding = network.backbone(x)
        assert torch.equal(found.module(x), embedding)
    assert embedding.isfinite().all()
    (folder / NETWORK_FILE).unlink()  # half a gigabyte


def test_name_tag_and_label_say_which_run_it_is(run):
    folder, _ = run
    for path in (folder, f"{folder}/", folder / NETWORK_FILE):
        found = load_backbone(str(path))
        assert found.name == f"{NAME}@seed1-00000001"
        assert found.tag == f"{resolve(NAME).tag}@seed1-00000001"
        assert found.weights == str((folder / NETWORK_FILE).resolve())
        assert found.feature == "prelogits"
        ref = resolve(str(path))
        assert (ref.name, ref.tag) == (found.name, found.tag)


def test_run_is_frozen_and_in_eval_mode_unless_it_is_to_be_trained_on(run):
    folder, _ = run
    frozen, trainable = load_backbone(str(folder)), load_backbone(str(folder), frozen=False)
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())
    assert all(parameter.requires_grad for parameter in trainable.module.parameters())
    assert not any(m.training for b in (frozen, trainable) for m in b.module.modules())


def test_run_of_a_run_is_named_after_the_last_and_loaded(run, write_run):
    folder, _ = run
    second, network = write_run(str(folder), seed=2, weights="pretrained")
    description = read_description(second)
    ref = resolve(NAME)
    assert (description.backbone, description.tag) == (ref.name, ref.tag)
    assert description.weights_sha256 == read_description(folder).trained_sha256
    found = load_backbone(str(second))
    assert found.name == f"{NAME}@seed2-00000002"
    assert_equal_states(found.module.state_dict(), network.backbone.state_dict())


def test_run_on_raw_pixels_is_still_raw_pixels(write_run, tmp_path):
    plain = load_backbone("pixels")
    description = NetworkDescription(
        run_id="r-1", backbone="pixels", tag="pixels", weights_sha256=plain.weights_sha256,
        preprocess=vars(plain.preprocess), feature="pixels", dim=784, dataset="toy", size=28,
        task="binary-class", classes=("a", "b"), epoch=1, val_loss=0.1, precision="fp32",
    )  # fmt: skip
    state = {"head.weight": torch.zeros(2, 784), "head.bias": torch.zeros(2)}
    write_network(tmp_path / NETWORK_FILE, state, description)
    found = load_backbone(str(tmp_path), fit="pad")
    assert (found.name, found.preprocess) == ("pixels@r-1", plain.preprocess)
    assert not found.is_network


def test_a_run_is_described_like_any_backbone(write_run):
    folder, _ = write_run("test_resnet", size=64, fit="native")
    info, plain = describe(str(folder)), describe("test_resnet")
    assert info == replace(
        plain, name="test_resnet@seed1-00000001", tag=f"{plain.tag}@seed1-00000001", native_size=64
    )
    assert cost_of(resolve(str(folder))) == cost_of(resolve("test_resnet"))


# --- fit and canvas ---------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["pad", "resize", "native"])
def test_images_are_fitted_as_the_run_was_trained_unless_told_otherwise(fit, write_run):
    folder, _ = write_run("test_resnet", size=64, fit=fit)
    trained = load_backbone("test_resnet", "none", 64, fit).preprocess
    assert load_backbone(str(folder), size=64).preprocess == trained
    for other in ("pad", "resize", "native"):
        expected = load_backbone("test_resnet", "none", 64, other).preprocess
        assert load_backbone(str(folder), size=64, fit=other).preprocess == expected


def test_normalisation_is_the_runs_even_if_timms_has_changed(run, tmp_path):
    description, state = read_network(run[0])
    changed = {**description.preprocess, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    write_network(
        tmp_path / NETWORK_FILE, state, description.model_copy(update={"preprocess": changed})
    )
    spec = load_backbone(str(tmp_path), fit="resize").preprocess
    assert spec == PreprocessSpec((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "resize", 224)


def test_network_of_fixed_input_refuses_another_size_and_says_which_it_takes(write_run):
    folder, _ = write_run("test_vit", size=64, fit="native")
    for size, fit, remedy in [
        (128, None, "use images of 64 px"),
        (28, None, "use images of 64 px"),
        (64, "pad", "leave --fit out"),
    ]:
        with pytest.raises(BackboneError) as caught:
            load_backbone(str(folder), size=size, fit=fit)
        assert "test_vit@seed1-00000001 takes an input of 64 px" in str(caught.value)
        assert str(caught.value).endswith(remedy)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "some/file.pth"])
def test_a_run_takes_no_other_weights(run, weights):
    message = message_of(UsageError, run[0], weights)
    assert "has its own weights; leave --weights out" in message


def test_any_changed_byte_is_refused(broken, run):
    size = (run[0] / NETWORK_FILE).stat().st_size
    for position in random.Random(1).sample(range(size), 12):

        def flip(content, position=position):
            changed = bytearray(content)
            changed[position] ^= 1
            return bytes(changed)

        assert "make the run again" in message_of(BackboneError, broken(flip))


@pytest.mark.parametrize("path", ["a.safetensors", f"run/{NETWORK_FILE}"])
def test_tensors_of_others_are_no_network(path, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    save_file({"backbone.w": torch.zeros(3)}, file)
    message_of(BackboneError, file)
    with pytest.raises(BackboneError):
        resolve(str(file))


def test_a_description_that_lacks_something_is_refused_with_its_place(run, tmp_path):
    description, state = read_network(run[0])
    fields = description.model_dump(mode="json")
    del fields["dim"]
    write_tensors(tmp_path / NETWORK_FILE, state, {"network": fields})
    assert "'dim' is invalid" in message_of(BackboneError, tmp_path)


def test_weights_that_do_not_fit_the_architecture_are_refused_with_the_key(run, tmp_path):
    description, state = read_network(run[0])
    del state["backbone.network.conv_stem.weight"]
    write_network(tmp_path / NETWORK_FILE, state, description)
    message = message_of(BackboneError, tmp_path)
    assert f"do not fit {resolve(NAME).tag}" in message
    assert "conv_stem.weight" in message


@pytest.mark.parametrize("record", [None, "{", json.dumps({"protocol": "probe"})])
def test_a_folder_without_a_network_is_no_fine_tuned_run(record, tmp_path):
    if record is not None:
        (tmp_path / "record.json").write_text(record)
    message = message_of(UsageError, tmp_path)
    assert f"is no fine-tuned run that has trained an epoch: it has no {NETWORK_FILE}" in message
    assert "medplus finetune" in message


def test_a_folder_of_runs_names_one(write_run, tmp_path):
    write_run(folder=tmp_path / "runs" / "b")
    write_run(folder=tmp_path / "runs" / "a")
    message = message_of(UsageError, tmp_path / "runs")
    assert f"there is one in it: {tmp_path / 'runs' / 'a'}" in message


def test_a_path_that_does_not_exist_is_no_unknown_name(tmp_path):
    message = message_of(UsageError, tmp_path / "runs" / "x")
    assert message.startswith("there is no fine-tuned run at ")


def test_a_file_that_is_no_network_is_told(tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    assert "is no network of a fine-tuned run" in message_of(UsageError, file)


@pytest.mark.parametrize("ending", ["", f"/{NETWORK_FILE}"])
@pytest.mark.parametrize("there", ["seed1-lr0.1-0a.partial", "seed1-lr0.1-0a"])
def test_a_run_that_is_finished_by_now_or_not_yet_is_found_for_the_user(
    there, ending, write_run, tmp_path
):
    write_run(folder=tmp_path / there)
    asked = ({"seed1-lr0.1-0a.partial", "seed1-lr0.1-0a"} - {there}).pop()
    message = message_of(UsageError, f"{tmp_path / asked}{ending}")
    assert f"(but at {tmp_path / there})" in message


def test_a_folder_of_the_name_of_a_network_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("resnet18").mkdir()
    assert resolve("resnet18").tag == "resnet18.a1_in1k"
    Path("toynet").mkdir()
    with pytest.raises(UsageError, match="toynet is no fine-tuned run"):
        resolve("toynet")
