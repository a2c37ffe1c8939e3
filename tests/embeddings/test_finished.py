"""A finished extraction is found without torch, and only while all that decided it is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medplus import remembered
from medplus.backbones import build, sources
from medplus.backbones.lean import timm
from medplus.embeddings.extract import extract_all
from medplus.spec import ExtractSpec
from tests.embeddings.extractions import NETWORK, chunk_files

pytestmark = pytest.mark.skipif(remembered.machine() is None, reason="nothing is remembered here")

FINISHED = """
import json, sys
from medplus.embeddings.extract import extract_all
from medplus.spec import ExtractSpec
specs = [ExtractSpec(**fields) for fields in json.loads(sys.argv[1])]
done = extract_all(specs, store=sys.argv[2])
print(json.dumps([[one.status for one in done], sorted({"torch", "timm"} & set(sys.modules))]))
"""

CODE = """
import torch
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(float(open({0!r}).read())))
    def forward(self, x):
        return x.mean((2, 3)) * self.factor
def backbone():
    return Own(), (0.0,) * 3, (1.0,) * 3, 32
"""


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch):
    """Remember nothing of other tests; let files be old enough to be told apart by their times."""
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "cache"))
    now = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: now() + 3600 * 10**9)


@pytest.fixture
def loads(monkeypatch):
    """Return the list of names that were loaded since."""
    names = []
    load = build.load

    def watch(ref, *rest, **more):
        names.append(ref.name)
        return load(ref, *rest, **more)

    monkeypatch.setattr(build, "load", watch)
    return names


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "weights.safetensors", 1)


def write_weights(path, seed):
    torch.manual_seed(seed)
    network = timm.create_model(NETWORK, pretrained=False)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


@pytest.fixture
def spec(write_npz, weights):
    npz = write_npz(n=(4, 2, 2), size=32, channels=3)
    return ExtractSpec(str(npz), None, NETWORK, str(weights), "native", precision="fp32")


def extract(spec, tmp_path):
    [done] = extract_all([spec], store=tmp_path / "stores")
    return done


def elsewhere(specs, tmp_path, **environment):
    """Extract in a process of its own; return the statuses, and what of torch it imported."""
    asked = json.dumps([vars(spec) for spec in specs])
    done = subprocess.run(
        [sys.executable, "-c", FINISHED, asked, str(tmp_path / "stores")],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    statuses, imported = json.loads(done.stdout)
    return statuses, imported


def test_a_finished_extraction_imports_no_torch(spec, tmp_path):
    pixels = ExtractSpec(spec.dataset, backbone="pixels")
    demo = ExtractSpec(spec.dataset, backbone="efficientnet_lite0", fit="native")
    specs = [spec, pixels, *([demo] if sources.demo.available() else [])]
    made = [one.store.info.key for one in extract_all(specs, store=tmp_path / "stores")]
    assert elsewhere(specs, tmp_path) == (["skipped"] * len(specs), [])
    found = [one.store.info.key for one in extract_all(specs, store=tmp_path / "stores")]
    assert found == made


def test_another_version_of_a_package_is_noticed(spec, tmp_path):
    pixels = ExtractSpec(spec.dataset, backbone="pixels")
    extract(pixels, tmp_path)
    other = tmp_path / "packages" / "timm-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(other.parent), *filter(None, sys.path)])
    assert elsewhere([pixels], tmp_path, PYTHONPATH=path) == (["skipped"], ["torch"])


def test_what_is_known_is_not_loaded_again(spec, loads, tmp_path):
    first, second = extract(spec, tmp_path), extract(spec, tmp_path)
    assert (first.status, second.status) == ("extracted", "skipped")
    assert len(loads) == 1
    assert second.to_dict() == {
        **first.to_dict(), "status": "skipped", "chunks_computed": 0, "chunks_reused": 3,
        "seconds": 0.0, "images_per_second": None,
    }  # fmt: skip


def test_other_weights_of_the_same_size_and_date_are_noticed(spec, weights, loads, tmp_path):
    first = extract(spec, tmp_path)
    before = weights.stat()
    content = weights.read_bytes()
    write_weights(weights, 2)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    other = extract(spec, tmp_path)
    assert other.status == "extracted"
    assert other.store.info.weights_sha256 != first.store.info.weights_sha256
    weights.write_bytes(content)
    again = extract(spec, tmp_path)
    assert (again.status, again.store.path) == ("skipped", first.store.path)
    assert len(loads) == 3


def test_weights_that_changed_just_now_are_loaded_again(spec, loads, tmp_path, monkeypatch):
    monkeypatch.undo()  # times are what they are: a file system may not tell the next change
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "cache"))
    extract(spec, tmp_path)
    assert not (tmp_path / "cache" / "backbones.json").exists()


def test_other_images_are_noticed(spec, tmp_path, write_npz):
    first = extract(spec, tmp_path)
    with np.load(spec.dataset) as file:
        arrays = dict(file)
    arrays["test_images"] = 255 - arrays["test_images"]
    np.savez(spec.dataset, **arrays)
    other = extract(spec, tmp_path)
    assert other.status == "extracted"
    assert other.store.info.key != first.store.info.key


def test_images_of_another_size_are_not_those_that_are_known(spec, write_npz, loads, tmp_path):
    one, other = (
        ExtractSpec(str(write_npz(n=(3, 2, 2), size=size, channels=c)), backbone="pixels")
        for size, c in ((28, 1), (28, 3))
    )
    assert [extract(each, tmp_path).store.info.dim for each in (one, other)] == [784, 2352]
    assert len(loads) == 2


def test_code_is_loaded_whenever_it_is_named(spec, loads, tmp_path):
    """A Python file may read whatever it likes, such as a module or weights beside it."""
    factor = tmp_path / "factor.txt"
    factor.write_text("1")
    code = tmp_path / "own.py"
    code.write_text(CODE.format(str(factor)))
    own = ExtractSpec(spec.dataset, backbone=str(code))
    first, second = extract(own, tmp_path), extract(own, tmp_path)
    factor.write_text("2")
    third = extract(own, tmp_path)
    assert [one.status for one in (first, second, third)] == ["extracted", "skipped", "extracted"]
    assert len(loads) == 3


def test_a_damaged_store_of_a_known_backbone_is_repaired(spec, loads, tmp_path):
    first = extract(spec, tmp_path)
    intact = chunk_files(first.store.path)
    chunk = first.store.path / "val" / "embeddings" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    again = extract(spec, tmp_path)
    assert (again.status, again.chunks_computed, again.chunks_reused) == ("resumed", 1, 2)
    assert chunk_files(again.store.path) == intact
    assert len(loads) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda memory: memory.unlink(),
        lambda memory: memory.write_bytes(b"\xff{"),
        lambda memory: memory.write_text(memory.read_text().replace('"dim": ', '"dim": 1')),
        lambda memory: (memory.unlink(), memory.mkdir()),
    ],
    ids=["missing", "unreadable", "changed", "unwritable"],
)
def test_without_its_memory_all_is_as_ever(spoil, spec, loads, tmp_path):
    first = extract(spec, tmp_path)
    spoil(tmp_path / "cache" / "backbones.json")
    again = extract(spec, tmp_path)
    assert (again.status, again.store.info.key) == ("skipped", first.store.info.key)
    assert len(loads) == 2


def test_the_hubs_next_snapshot_is_noticed(spec, loads, tmp_path, monkeypatch):
    name = "test_resnet.r160_in1k"
    repository = tmp_path / "hub" / f"models--timm--{name}"
    for commit, seed in (("a" * 40, 1), ("b" * 40, 2)):
        torch.manual_seed(seed)
        state = timm.create_model("test_resnet", pretrained=False).state_dict()
        (repository / "snapshots" / commit).mkdir(parents=True)
        save_file(state, repository / "snapshots" / commit / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pretrained = ExtractSpec(spec.dataset, backbone="test_resnet", fit="native", precision="fp32")
    first, second = extract(pretrained, tmp_path), extract(pretrained, tmp_path)
    assert (first.status, second.status, len(loads)) == ("extracted", "skipped", 1)
    (repository / "refs" / "main").write_text("b" * 40)
    third = extract(pretrained, tmp_path)
    assert third.status == "extracted"
    assert third.store.info.weights_sha256 != first.store.info.weights_sha256
