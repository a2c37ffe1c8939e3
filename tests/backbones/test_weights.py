"""Weights from files, from memory and from a hub that is not there."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from medplus.backbones.build import load_backbone
from medplus.backbones.weights import state_sha256
from medplus.errors import BackboneError

NETWORKS = ["test_resnet", "test_vit", "test_efficientnet"]


def random_network(name: str = "test_resnet", num_classes: int = 1000) -> torch.nn.Module:
    torch.manual_seed(11)
    sized = {"img_size": 224} if name == "test_vit" else {}
    network = timm.create_model(name, num_classes=num_classes, **sized)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    return network.eval()


def save(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def assert_holds(name: str, path: Path, network: torch.nn.Module) -> None:
    """The backbone built from the file has the network's weights, all but the classifier's."""
    backbone = load_backbone(name, str(path))
    network.reset_classifier(0)
    expected = network.state_dict()
    found = backbone.module.network.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert backbone.weights == str(path.resolve())


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("classes", [1000, 0, 7], ids=["classifier", "headless", "own classes"])
def test_weights_are_those_of_the_file(tmp_path, name, suffix, classes):
    network = random_network(name, classes)
    path = save(network.state_dict(), tmp_path / f"weights{suffix}")
    assert_holds(name, path, network)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_nested_state_dict_is_found(tmp_path, key):
    network = random_network()
    document = {"epoch": 3, "lr": 0.1, key: network.state_dict(), "optimizer": {"state": {}}}
    assert_holds("test_resnet", save(document, tmp_path / "run.pth"), network)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_prefixes_of_parallel_and_compiled_training_are_dropped(tmp_path, prefix, suffix):
    network = random_network()
    state = {prefix + key: value for key, value in network.state_dict().items()}
    assert_holds("test_resnet", save(state, tmp_path / f"w{suffix}"), network)


def test_half_precision_file_is_read_into_fp32(tmp_path):
    network = random_network().half()
    path = save(network.state_dict(), tmp_path / "half.safetensors")
    assert_holds("test_resnet", path, network.float())


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_distilled_network_with_two_classifiers_is_read(tmp_path, classes):
    network = random_network("deit_tiny_distilled_patch16_224", classes)
    path = save(network.state_dict(), tmp_path / "deit.safetensors")
    assert_holds("deit_tiny_distilled_patch16_224", path, network)


def test_file_of_another_image_size_is_resized_to_the_canvas(tmp_path):
    network = random_network("vit_tiny_patch16_384")
    path = save(network.state_dict(), tmp_path / "384.safetensors")
    module = load_backbone("vit_tiny_patch16_384", str(path)).module
    assert module.network.pos_embed.shape[1] == 1 + 14**2
    assert torch.equal(module.network.blocks[3].mlp.fc1.weight, network.blocks[3].mlp.fc1.weight)


@pytest.mark.parametrize("classes", [1000, 5, 0], ids=["classifier", "own classes", "headless"])
def test_alexnet_is_read_with_or_without_its_last_layer(tmp_path, classes, monkeypatch):
    from torchvision import models
    from torchvision.models import AlexNet

    def small(**_):
        # Real AlexNet is 244 MB; its keys are what matters here.
        network = AlexNet(num_classes=max(classes, 1))
        for i in (1, 4, 6):
            old = network.classifier[i]
            narrow = torch.nn.Linear(9216 if i == 1 else 8, old.out_features if i == 6 else 8)
            network.classifier[i] = narrow
        return network

    torch.manual_seed(5)
    expected = small().state_dict()
    if classes == 0:
        expected = {k: v for k, v in expected.items() if not k.startswith("classifier.6")}
    path = save(expected, tmp_path / "alexnet.pth")
    monkeypatch.setattr(models, "alexnet", small)
    found = load_backbone("alexnet", str(path)).module.state_dict()
    assert found.keys() == {k for k in expected if not k.startswith("classifier.6")}
    for key, value in found.items():
        assert torch.equal(value, expected[key])


# --- digest -----------------------------------------------------------------------------------


def test_digest_is_equal_from_memory_and_from_every_kind_of_file(tmp_path):
    random = load_backbone("test_resnet", "none")
    state = random.module.network.state_dict()
    dim = random.module.network.num_features
    with_head = {**state, "fc.weight": torch.rand(3, dim), "fc.bias": torch.rand(3)}
    digests = {random.weights_sha256}
    for number, document in enumerate(
        [state, {"state_dict": state}, {f"module.{k}": v for k, v in state.items()}]
    ):
        path = save(document, tmp_path / f"{number}.pth")
        digests.add(load_backbone("test_resnet", str(path)).weights_sha256)
    for document in (state, with_head):
        path = save(document, tmp_path / "w.safetensors")
        digests.add(load_backbone("test_resnet", str(path)).weights_sha256)
    assert len(digests) == 1


def test_digest_ignores_the_memory_format():
    network = random_network()
    before = state_sha256(network.state_dict())
    assert state_sha256(network.to(memory_format=torch.channels_last).state_dict()) == before


def test_digest_tells_dtypes_shapes_and_names_apart():
    digests = set()
    for name, value in (
        ("a", torch.zeros(4)),
        ("b", torch.zeros(4)),
        ("a", torch.zeros(2, 2)),
        ("a", torch.zeros(4, dtype=torch.int32)),
        ("a", torch.zeros(8, dtype=torch.bfloat16)),
        ("a", torch.zeros(())),
        ("a", torch.zeros(0)),
    ):
        module = torch.nn.Module()
        module.register_buffer(name, value)
        digests.add(state_sha256(module.state_dict()))
    assert len(digests) == 7


def test_digest_is_the_documented_sha256():
    module = torch.nn.Module()
    module.register_buffer("b", torch.tensor([1.0, 2.0]))
    module.register_buffer("a", torch.tensor(3, dtype=torch.int64))
    expected = hashlib.sha256()
    expected.update(b"a:torch.int64:():" + (3).to_bytes(8, "little"))
    expected.update(b"b:torch.float32:(2,):" + bytes.fromhex("0000803f00000040"))
    assert state_sha256(module.state_dict()) == expected.hexdigest()


# --- what is refused --------------------------------------------------------------------------


def refusal(path: Path, name: str = "test_resnet") -> str:
    """Return the message with which a weights file is refused; it must name the file."""
    with pytest.raises(BackboneError) as caught:
        load_backbone(name, str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_file_tells_what_weights_takes(tmp_path):
    message = refusal(tmp_path / "none.pth")
    assert "does not exist" in message
    assert "'pretrained' or 'none'" in message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, suffix, part):
    path = save(random_network().state_dict(), tmp_path / f"w{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"no weights", b"\xff" * 64, b"PK\x03\x04" + bytes(60)])
def test_file_of_something_else_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


class _Trap:
    """Unpickling it creates a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("protocol", ["torch", "bare pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_never_run(tmp_path, protocol):
    sprung, path = tmp_path / "sprung", tmp_path / "w.pth"
    document = {**random_network().state_dict(), "extra": _Trap(sprung)}
    if protocol == "torch":
        torch.save(document, path)
    else:
        path.write_bytes(pickle.dumps({"extra": _Trap(sprung)}))
    assert "unsafe or damaged" in refusal(path)
    assert not sprung.exists()
    if protocol == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())  # noqa: S301
    assert sprung.exists()  # the trap does work where it is unpickled


@pytest.mark.parametrize(
    "document", [{}, [], 3, "text", {"state_dict": {}}, torch.zeros(3), {"epoch": 3}]
)
def test_file_without_a_state_dict_is_refused(tmp_path, document):
    refusal(save(document, tmp_path / "w.pth"))


def test_value_that_is_no_tensor_is_named(tmp_path):
    state = {**random_network().state_dict(), "epoch": 3}
    assert "'epoch', which is not a tensor" in refusal(save(state, tmp_path / "w.pth"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_missing_key_is_named(tmp_path, suffix):
    state = random_network().state_dict()
    del state["layer2.0.conv2.weight"]
    message = refusal(save(state, tmp_path / f"w{suffix}"))
    assert "layer2.0.conv2.weight" in message
    assert "do not fit test_resnet" in message


@pytest.mark.parametrize(
    ("held", "asked"), [("test_vit", "test_resnet"), ("test_resnet", "test_vit")]
)
def test_weights_of_another_network_are_refused(tmp_path, held, asked):
    path = save(random_network(held).state_dict(), tmp_path / "w.safetensors")
    assert f"do not fit {asked}" in refusal(path, asked)


# --- without a network ------------------------------------------------------------------------

_LOAD = """
import sys, time
from medplus.backbones.build import load_backbone
from medplus.errors import MedplusError
import timm, torchvision, huggingface_hub
start = time.monotonic()
try:
    print(load_backbone(sys.argv[1], sys.argv[2]).weights_sha256)
except MedplusError as error:
    print(type(error).__name__, error)
print(time.monotonic() - start)
"""


def load_without_network(
    name: str, weights: str, home: Path, **environment: str
) -> tuple[str, float]:
    """Return what loading prints, and its seconds, where the hub's address refuses connections."""
    nowhere = "http://127.0.0.1:9"
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    inherited = {k: v for k, v in inherited.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, name, weights],
        env={
            **inherited,
            "HF_ENDPOINT": nowhere,
            "HF_HOME": str(home),
            "TORCH_HOME": str(home),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    text, seconds = done.stdout.rstrip().rsplit("\n", 1)
    return text, float(seconds)


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("vit_base_patch16_224.dino", marks=pytest.mark.extensive)]
)
def test_pretrained_without_network_names_the_ways_out_quickly(name, tmp_path):
    text, seconds = load_without_network(name, "pretrained", tmp_path)
    assert text.startswith("BackboneError the pretrained weights of ")
    assert "--weights FILE" in text
    assert "--weights none" in text
    assert "\n" not in text
    assert seconds < 10


@pytest.mark.extensive
def test_hub_name_without_network_fails_quickly_even_for_random_weights(tmp_path):
    text, seconds = load_without_network("hf-hub:timm/resnet18.a1_in1k", "none", tmp_path)
    assert text.startswith("BackboneError")
    assert seconds < 10


@pytest.mark.parametrize("prefix", ["model.", "encoder.", "module.encoder_q.", "backbone.model."])
def test_the_prefix_of_any_framework_is_dropped_and_said(tmp_path, prefix, caplog):
    network = random_network()
    state = {prefix + key: value for key, value in network.state_dict().items()}
    state["criterion.weight"] = torch.zeros(3)
    with caplog.at_level("INFO", "medplus"):
        assert_holds("test_resnet", save(state, tmp_path / "w.pth"), network)
    assert "before the names of its tensors is dropped" in caplog.text


def test_of_averaged_and_last_weights_the_averaged_are_taken_and_said(tmp_path, caplog):
    network = random_network()
    state = network.state_dict()
    zeros = {key: torch.zeros_like(value) for key, value in state.items()}
    both = save({"state_dict": zeros, "state_dict_ema": state}, tmp_path / "both.pth")
    with caplog.at_level("INFO", "medplus"):
        assert_holds("test_resnet", both, network)
    assert "holds state_dict and state_dict_ema: state_dict_ema is taken" in caplog.text


def test_two_networks_in_one_file_are_refused(tmp_path):
    state = random_network().state_dict()
    both = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in state.items()}
    assert "several networks (student., teacher.)" in refusal(save(both, tmp_path / "w.pth"))


def test_keys_of_another_network_are_told_beside_the_networks_own(tmp_path):
    message = refusal(save({"enc.0.w": torch.zeros(2)}, tmp_path / "w.pth"))
    assert "the file has enc.0.w, …" in message and "the network conv1.0.weight" in message
