"""Names of backbones, and what is known of them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import alexnet

from medplus.backbones import catalog
from medplus.backbones.build import load_backbone
from medplus.backbones.sources import PAPER, describe, resolve
from medplus.errors import BackboneError, UsageError

DIMS = {
    "vgg16": 4096,
    "alexnet": 4096,
    "resnet18": 512,
    "densenet121": 1024,
    "efficientnet_b4": 1792,
    "vit_base_patch16_224": 768,
    "vit_base_patch16_clip_224": 768,
    "eva02_base_patch16_clip_224": 768,
    "vit_base_patch16_224.dino": 768,
    "samvit_base_patch16": 256,
}


def named(name):
    ref = resolve(name)
    return ref.name, ref.tag


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER)
def test_short_name_and_full_tag_name_the_same(name):
    assert named(name) == named(PAPER[name]) == (name, PAPER[name])


@pytest.mark.parametrize("name", [name for name in PAPER if name != "alexnet"])
def test_pinned_tags_are_timms_and_have_weights(name):
    assert PAPER[name] in timm.list_models(pretrained=True)


def test_timm_name_stands_for_its_default_tag():
    assert named("resnet50") == ("resnet50", "resnet50.a1_in1k")


def test_full_default_tag_is_shortened():
    assert named("resnet50.a1_in1k") == ("resnet50", "resnet50.a1_in1k")


def test_other_tag_stays_in_the_name():
    assert named("resnet50.tv_in1k") == ("resnet50.tv_in1k", "resnet50.tv_in1k")
    assert named("resnet18.tv_in1k") == ("resnet18.tv_in1k", "resnet18.tv_in1k")


def test_new_default_in_timm_does_not_change_what_a_name_means(monkeypatch):
    # As if the paper's resnet18 had other weights than timm's default.
    monkeypatch.setitem(catalog.PAPER, "resnet18", "resnet18.tv_in1k")
    assert named("resnet18") == ("resnet18", "resnet18.tv_in1k")
    assert named("resnet18.a1_in1k") == ("resnet18.a1_in1k", "resnet18.a1_in1k")


def test_name_that_ends_in_a_dot_is_unknown():
    with pytest.raises(UsageError, match=r"unknown weights 'resnet18\.'"):
        resolve("resnet18.")


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_hub_names_are_left_to_timm(prefix):
    name = "hf-hub:timm/resnet18.a1_in1k"
    assert named(prefix + "timm/resnet18.a1_in1k") == (name, name)


def test_local_folders_in_timms_format(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=4).eval()
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    expected = ("local-dir:tiny", f"local-dir:{folder}")
    for name in ("tiny", "./tiny", f"{folder}", "local-dir:tiny", f"local-dir:{folder}"):
        assert named(name) == expected

    backbone = load_backbone("./tiny", size=32, fit="native")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        own = network.forward_head(network.forward_features(x), pre_logits=True)
        torch.testing.assert_close(backbone.module(x), own)
    with pytest.raises(UsageError, match=r"nothing is no model in timm's format"):
        resolve("local-dir:nothing")


def test_code_in_a_local_folder_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "trace"), "w")

    folder = tmp_path / "tiny"
    timm.models.save_for_hf(timm.create_model("test_resnet"), folder, safe_serialization=True)
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
        archive.writestr("archive/version", "3")
    for protocol in (2, 4):
        with pytest.raises(BackboneError, match=r"the model in .*tiny cannot be used"):
            load_backbone(str(folder))
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(), protocol))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("resnet81", "resnet18"),
        ("ResNet18", "resnet18"),
        ("vgg_16", "vgg16"),
        ("alexnett", "alexnet"),
        ("pixel", "pixels"),
        ("densenet-121", "densenet121"),
        ("sam_vit_base_patch16", "samvit_base_patch16"),
    ],
)
def test_unknown_name_suggests_the_nearest(typo, meant):
    with pytest.raises(UsageError, match=f"unknown backbone '{typo}'; did you mean '{meant}'"):
        resolve(typo)


def test_unknown_tag_suggests_the_nearest_and_lists_all():
    with pytest.raises(UsageError, match=r"did you mean 'resnet18\.a1_in1k'") as caught:
        resolve("resnet18.a1_in1")
    for tag in timm.list_models("resnet18.*", pretrained=True):
        assert tag in str(caught.value)


@settings(deadline=None, max_examples=25)
@given(
    name=st.text(max_size=20)
    | st.from_regex(r"(resnet18|alexnet|pixels|vit_base_patch16_224)\.[a-z0-9_.*\[\]]{0,8}")
)
def test_any_name_resolves_or_is_a_usage_error(name):
    try:
        short, tag = named(name)
    except UsageError:
        return
    assert tag.startswith(short)
    assert named(tag) == (short, tag)


def test_import_loads_no_heavy_package():
    code = (
        "import sys, json, medplus.backbones.sources as s; s.resolve('resnet18'); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {"torch", "timm", "torchvision"}


# --- descriptions -----------------------------------------------------------------------------


def test_the_papers_ten_are_described():
    assert list(DIMS) == list(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_dimension_is_the_papers(name):
    assert describe(name).dim == DIMS[name]


@pytest.mark.parametrize("name", [name for name in PAPER if name != "alexnet"])
def test_parameters_are_the_networks_without_its_classifier(name):
    with torch.device("meta"):
        network = timm.create_model(PAPER[name], num_classes=1000)
    whole = sum(p.numel() for p in network.parameters())
    classifier = sum(p.numel() for p in network.get_classifier().parameters())
    assert classifier > 0
    assert describe(name).n_parameters == whole - classifier


def test_parameters_of_alexnet_are_torchvisions_without_the_last_layer():
    with torch.device("meta"):
        network = alexnet()
    network.classifier = network.classifier[:-1]
    assert describe("alexnet").n_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in PAPER if name != "alexnet"])
def test_normalisation_and_native_size_are_the_weights_own(name):
    config = timm.models.get_pretrained_cfg(PAPER[name])
    info = describe(name)
    assert (info.mean, info.std) == (tuple(config.mean), tuple(config.std))
    assert info.native_size == config.input_size[-1]
    assert info.fixed_size == config.fixed_input_size
    assert info.licence == (config.license or "")


def test_sam_is_native_to_1024_pixels():
    assert describe("samvit_base_patch16").native_size == 1024


def test_describing_allocates_no_weights(monkeypatch):
    devices = []
    register = torch.nn.Module.register_parameter

    def record(self, name, parameter):
        devices.append(None if parameter is None else parameter.device.type)
        register(self, name, parameter)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", record)
    describe("resnet18")
    assert "meta" in devices
    assert set(devices) <= {"meta", None}


def test_description_of_any_timm_network():
    info = describe("resnet50.tv_in1k")
    assert (info.name, info.tag, info.dim) == ("resnet50.tv_in1k", "resnet50.tv_in1k", 2048)
