"""Weights fetched from a local server that plays the hub, and used without it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save

from medplus.backbones.build import load_backbone
from medplus.backbones.fetch import fetch_weights
from medplus.backbones.sources import resolve
from medplus.backbones.weights import state_sha256
from medplus.embeddings.extract import extract
from medplus.errors import BackboneError, UsageError
from tests.backbones.hub import NOWHERE, environment, medplus, serve, use_hub

NAMES = ["test_resnet", "test_vit"]
TAGS = {name: f"{name}.r160_in1k" for name in NAMES}


def address(name: str) -> str:
    return f"/timm/{TAGS[name]}/resolve/main/model.safetensors"


@dataclass
class Carried:
    """A folder written with the hub, the hub's cache, what was told, and what the hub has."""

    folder: Path
    home: Path
    told: dict[str, dict]
    states: dict[str, dict[str, torch.Tensor]]
    asked: list[str]


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    root = tmp_path_factory.mktemp("carried")
    torch.manual_seed(3)
    states = {name: timm.create_model(name).state_dict() for name in NAMES}
    with serve({address(name): save(states[name]) for name in NAMES}) as hub:
        done = medplus(
            "backbones", "--fetch", ",".join(NAMES), "--to", "carry", "--json",
            env=environment(hub.url, root / "home"), cwd=root,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = {row["name"]: row for row in json.loads(done.stdout)["fetched"]}
    return Carried(root / "carry", root / "home", told, states, hub.asked)


def test_each_file_is_fetched_once(carried):
    assert [line for line in carried.asked if line.startswith("GET /timm")] == [
        f"GET {address(name)}" for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_folder_holds_the_hubs_tensors_and_the_manifest_tells_their_file(carried, name):
    manifest = json.loads((carried.folder / "manifest.json").read_bytes())
    entry = manifest["weights"][TAGS[name]]
    content = (carried.folder / entry["file"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["bytes"] == len(content)
    assert manifest["format"] == 1
    found = load_file(carried.folder / entry["file"])
    assert found.keys() == carried.states[name].keys()
    for key, value in carried.states[name].items():
        assert torch.equal(found[key], value), key
    assert carried.told[name] == {
        "name": name, "tag": TAGS[name], "weights_sha256": carried.told[name]["weights_sha256"],
        "path": f"carry/{entry['file']}", "sha256": entry["sha256"], "bytes": entry["bytes"],
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", ["name", "full tag"])
def test_weights_of_the_folder_are_those_of_the_hub(carried, name, spelling):
    loaded = load_backbone(name if spelling == "name" else TAGS[name], str(carried.folder))
    # The digest that the other process has from the hub's own file.
    assert loaded.weights_sha256 == carried.told[name]["weights_sha256"]
    assert loaded.weights == "pretrained"
    if name == "test_resnet":
        state = {k: v for k, v in carried.states[name].items() if not k.startswith("fc.")}
        assert loaded.weights_sha256 == state_sha256({f"network.{k}": v for k, v in state.items()})


_OFFLINE = """
import json, sys
from pathlib import Path
import medplus
from medplus.backbones.build import load_backbone
from medplus.errors import MedplusError
store = medplus.extract(sys.argv[1], backbone="test_resnet", fit="native", precision="fp32",
                        device="cpu")
try:
    load_backbone("test_efficientnet")
except MedplusError as error:
    print(json.dumps([store.info.key, store.info.weights, str(error)]))
"""


def test_store_is_the_same_from_the_cache_offline_and_from_the_folder(
    carried, write_npz: Callable, tmp_path
):
    data = write_npz("toy", size=32, n=(4, 3, 3))
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(data)],
        env=environment(NOWHERE, carried.home, HF_HUB_OFFLINE="1"), cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    key, label, refusal = json.loads(done.stdout)
    from_folder = extract(
        str(data), backbone="test_resnet", fit="native", precision="fp32", device="cpu",
        weights=str(carried.folder), store=tmp_path / "other",
    )  # fmt: skip
    assert from_folder.info.key == key
    assert from_folder.info.weights == label == "pretrained"
    assert "HF_HUB_OFFLINE" in refusal
    assert_names_the_ways_out(refusal, "test_efficientnet.r160_in1k")


def assert_names_the_ways_out(message: str, tag: str) -> None:
    assert f"the pretrained weights of {tag} cannot be had" in message
    for way in (f"backbones --fetch {tag}", "HF_HOME", "--weights DIR", "--weights none"):
        assert way in message
    assert "\n" not in message.strip()


# --- models that only the hub knows -----------------------------------------------------------

MODEL = "acme/tiny-eyes"
HUB_NAME = f"hf-hub:{MODEL}"
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def published(folder: Path, architecture: str, revision: str = "main") -> tuple[Any, dict]:
    """Return a network of three classes, and the files of its model on the hub."""
    torch.manual_seed(9)
    network = timm.create_model(architecture, num_classes=3)
    network.pretrained_cfg.update(mean=MEAN, std=STD)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    names = ("config.json", "model.safetensors")
    root = f"/{MODEL}/resolve/{revision}"
    return network, {f"{root}/{name}": (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("revision", ["main", "v2"])
def test_model_of_the_hub_is_carried_with_its_configuration(revision, tmp_path, monkeypatch):
    name = HUB_NAME if revision == "main" else f"{HUB_NAME}@{revision}"
    network, files = published(tmp_path / "published", "test_resnet", revision)
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        [fetched] = fetch_weights([name], tmp_path / "carry")
    assert sorted(line for line in hub.asked if line.startswith(f"GET /{MODEL}")) == [
        f"GET {path}" for path in sorted(files)
    ]
    with serve({}) as elsewhere:
        use_hub(elsewhere, tmp_path / "other cache", monkeypatch)
        loaded = load_backbone(name, str(tmp_path / "carry"))
    assert elsewhere.asked == []
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    expected = state_sha256({f"network.{k}": v for k, v in state.items()})
    assert loaded.weights_sha256 == fetched.weights_sha256 == expected
    assert (loaded.tag, loaded.weights) == (name, "pretrained")
    assert (loaded.preprocess.mean, loaded.preprocess.std) == (MEAN, STD)


@pytest.fixture
def carried_model(tmp_path, monkeypatch) -> Path:
    """Return a folder with a vision transformer of the hub, which cannot be asked any more."""
    _, files = published(tmp_path / "published", "test_vit")
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        fetch_weights([HUB_NAME], tmp_path / "carry")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "carry"


def test_carried_model_of_the_hub_serves_every_command(
    carried_model, write_npz: Callable, cli: Callable
):
    data = write_npz("toy", size=32, n=(6, 4, 4))
    chosen = ("--dataset", data, "--backbone", HUB_NAME, "--weights", carried_model)
    for command in (("extract", "--fit", "native", "--feature", "cls+avg"), ("knn", "--k", "1")):
        ran = cli(*command, *chosen)
        assert ran.code == 0, ran.err


@pytest.mark.parametrize("size", [64, 160])
def test_carried_model_takes_images_of_other_sizes(carried_model, size):
    module = load_backbone(HUB_NAME, str(carried_model), size=size, fit="native").module
    assert module(torch.rand(1, 3, size, size)).shape == (1, 64)


def test_configuration_that_is_missing_or_changed_is_told(carried_model):
    [config] = carried_model.rglob("config.json")
    config.write_bytes(config.read_bytes().replace(b"0.4", b"0.9"))
    with pytest.raises(BackboneError, match=r"config\.json is not the file that manifest\.json"):
        load_backbone(HUB_NAME, str(carried_model))
    config.unlink()
    with pytest.raises(BackboneError, match=r"config\.json, which .* is missing"):
        resolve(HUB_NAME, str(carried_model))


def test_weights_file_for_a_model_of_the_hub_is_what_is_loaded(tmp_path, monkeypatch):
    network, files = published(tmp_path / "published", "test_resnet")
    other = {key: value + 1 for key, value in network.state_dict().items()}
    (tmp_path / "other.safetensors").write_bytes(save(other))
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        loaded = load_backbone(HUB_NAME, str(tmp_path / "other.safetensors"))
    kept = {f"network.{k}": v for k, v in other.items() if not k.startswith("fc.")}
    assert loaded.weights_sha256 == state_sha256(kept)


# --- a hub that does not answer as it should --------------------------------------------------


def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let nothing sleep; return the list of what would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.mark.parametrize("name", ["test_resnet", HUB_NAME])
def test_rate_limit_is_told_at_once_with_the_ways_out(name, tmp_path, monkeypatch):
    slept = waits(monkeypatch)
    with serve({}, status=429) as hub:
        use_hub(hub, tmp_path, monkeypatch)
        with pytest.raises(BackboneError) as caught:
            fetch_weights([name])
    assert "the hub answers 429" in str(caught.value)
    assert_names_the_ways_out(str(caught.value), TAGS.get(name, name))
    assert slept == []


def test_what_the_cache_has_is_used_at_the_rate_limit(tmp_path, monkeypatch):
    state = timm.create_model("test_resnet").state_dict()
    with serve({address("test_resnet"): save(state)}) as hub:
        use_hub(hub, tmp_path, monkeypatch)
        [fetched] = fetch_weights(["test_resnet"])
        hub.status = 429
        assert load_backbone("test_resnet").weights_sha256 == fetched.weights_sha256


# --- torchvision's AlexNet --------------------------------------------------------------------


@pytest.fixture
def alexnet(monkeypatch, tmp_path):
    """Return a small AlexNet as its server has it: name of the file, content, state."""
    from torchvision import models
    from torchvision.models import AlexNet

    for name in ("http_proxy", "https_proxy", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def small(**_):
        network = AlexNet(num_classes=5)
        for i, (n_in, n_out) in {1: (9216, 4), 4: (4, 4), 6: (4, 5)}.items():
            network.classifier[i] = torch.nn.Linear(n_in, n_out)
        return network

    monkeypatch.setattr(models, "alexnet", small)
    torch.manual_seed(8)
    state = small().state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return f"alexnet-{hashlib.sha256(content).hexdigest()[:8]}.pth", content, state


def point_to(url: str, monkeypatch) -> None:
    from torchvision.models import AlexNet_Weights

    monkeypatch.setattr(AlexNet_Weights.IMAGENET1K_V1.value, "url", url)


def test_alexnet_is_fetched_and_carried_like_the_others(alexnet, tmp_path, monkeypatch):
    name, content, state = alexnet
    with serve({f"/models/{name}": content}) as server:
        point_to(f"{server.url}/models/{name}", monkeypatch)
        [fetched] = fetch_weights(["alexnet"], tmp_path / "carry")
    assert len(server.asked) == 1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    loaded = load_backbone("alexnet", str(tmp_path / "carry"))
    assert loaded.weights_sha256 == fetched.weights_sha256
    assert loaded.weights == "pretrained"
    kept = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
    assert loaded.weights_sha256 == state_sha256(kept)


def test_alexnet_in_the_cache_needs_no_server(alexnet, tmp_path, monkeypatch):
    name, content, _ = alexnet
    with serve({f"/{name}": content}) as server:
        point_to(f"{server.url}/{name}", monkeypatch)
        [fetched] = fetch_weights(["alexnet"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_backbone("alexnet").weights_sha256 == fetched.weights_sha256


@pytest.mark.parametrize("status", [404, 429])
def test_alexnets_server_that_refuses_is_told(status, alexnet, monkeypatch):
    with serve({}, status=status) as server:
        point_to(f"{server.url}/{alexnet[0]}", monkeypatch)
        with pytest.raises(BackboneError, match=f"answers {status}.*TORCH_HOME.*--weights DIR"):
            fetch_weights(["alexnet"])


def test_alexnet_is_not_asked_for_when_the_hub_is_to_stay_offline(alexnet, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with serve({f"/{alexnet[0]}": alexnet[1]}) as server:
        point_to(f"{server.url}/{alexnet[0]}", monkeypatch)
        with pytest.raises(BackboneError, match="HF_HUB_OFFLINE forbids"):
            load_backbone("alexnet")
    assert not server.asked


# --- what cannot be fetched -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [
        ("pixels", None, "'pixels' has no weights on a hub"),
        ("resnet19", None, "unknown backbone 'resnet19'"),
        ("test_vit4", None, "no pretrained weights of 'test_vit4'"),
        ("local-dir:weights", "carry", "'local-dir:weights' has no weights on a hub"),
        ("my.py", None, "'my.py' has no weights on a hub"),
    ],
)
def test_what_has_no_weights_to_fetch_is_refused_before_anything_is_fetched(
    name, to, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("def backbone(): ...")
    Path("weights").mkdir()
    for file in ("config.json", "model.safetensors"):
        Path("weights", file).touch()
    monkeypatch.setattr("medplus.backbones.fetch.load", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UsageError, match=reason):
        fetch_weights(["resnet18", name], to and tmp_path / to)
